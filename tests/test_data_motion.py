"""Generated videos: the same every time, exact masks, and identities that last."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from data.classes import SHAPE_CLASSES
from data.shapes.clip import export_clip
from data.shapes.motion import KINDS, GroundTruthFrame, Kind, moving_shapes
from data.video.reader import open_video

HW = (72, 96)


def film(kind: Kind, frames: int = 24, seed: int = 0) -> list[GroundTruthFrame]:
    return list(moving_shapes(kind, frames, HW, seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [0, 1, 2, 7])
def test_every_length(kind: Kind, frames: int) -> None:
    assert len(film(kind, frames)) == frames


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_consistent_and_repeatable(kind: Kind) -> None:
    first, again, other = film(kind), film(kind), film(kind, seed=1)
    label_of: dict[int, int] = {}
    for frame, same in zip(first, again, strict=True):
        count = len(frame.ids)
        assert frame.image.shape == (*HW, 3) and frame.image.dtype == np.uint8
        assert frame.masks.shape == (count, *HW) and frame.masks.dtype == np.bool_
        assert frame.labels.shape == frame.ids.shape == (count,)
        assert (frame.masks.sum(axis=0) <= 1).all()  # what is hidden belongs to whoever hides it
        assert set(frame.labels.tolist()) <= set(range(len(SHAPE_CLASSES)))
        for identity, label in zip(frame.ids.tolist(), frame.labels.tolist(), strict=True):
            assert label_of.setdefault(identity, label) == label
        assert all(np.array_equal(*pair) for pair in zip(frame, same, strict=True))
    assert not np.array_equal(first[0].image, other[0].image)


def present(frames: list[GroundTruthFrame]) -> dict[int, str]:
    """Return for each identity "x" and "." for the frames where it is visible and is not."""
    ids = sorted({int(number) for frame in frames for number in frame.ids})
    return {n: "".join("x" if n in frame.ids else "." for frame in frames) for n in ids}


def test_what_happens() -> None:
    moving, hidden, passing = (present(film(kind)) for kind in ("moving", "hidden", "passing"))
    assert all("." not in seen for seen in moving.values()) and len(moving) == 6
    assert len(hidden) == 3
    for seen in hidden.values():
        assert seen.strip("x").strip(".") == "" and 4 <= seen.count(".") <= 12
    assert len(passing) == 6
    for seen in list(passing.values())[1:-1]:
        assert seen[0] == seen[-1] == "." and seen.strip(".").strip("x") == ""


def test_a_cut_changes_scene_and_identities() -> None:
    frames = film("cut")
    before, after = ({int(n) for f in part for n in f.ids} for part in (frames[:12], frames[12:]))
    assert before and after and not before & after
    jump = [np.abs(a.image.astype(int) - b.image).mean() for a, b in pairwise(frames)]
    assert np.argmax(jump) == 11


def test_two_of_a_class_pass_each_other() -> None:
    frames = film("crossing")
    for pair in ((0, 1), (2, 3)):
        sides = []
        for frame in frames:
            if set(pair) <= set(frame.ids.tolist()):
                at = [np.nonzero(frame.masks[frame.ids == number][0])[1].mean() for number in pair]
                sides.append(at[0] < at[1])
        assert {True, False} <= set(sides)
    labels = {int(n): int(label) for f in frames for n, label in zip(f.ids, f.labels, strict=True)}
    assert labels[0] == labels[1] != labels[2] == labels[3]


def test_a_pan_moves_the_background() -> None:
    first, middle = (film("pan")[at] for at in (0, 12))
    half = HW[1] // 2

    def likeness(left: int) -> float:
        """Compare half a picture of the first frame with the left half of the other one."""
        at = slice(left, left + half)
        empty = ~(first.masks.any(axis=0)[:, at] | middle.masks.any(axis=0)[:, :half])
        pair = first.image[:, at][empty], middle.image[:, :half][empty]
        return float(np.corrcoef(*(part.astype(float).ravel() for part in pair))[0, 1])

    assert likeness(half) > likeness(0) + 0.2


def test_sizes_swell() -> None:
    areas = [frame.masks[frame.ids == 2].sum() for frame in film("scaling")]
    assert max(areas) > 2 * min(areas)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind='walk': expected one of moving, scaling"):
        next(moving_shapes("walk"))  # type: ignore[arg-type]


def test_export(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    export_clip(path, (frame.image for frame in moving_shapes("passing", 5, HW)), fps=10)
    with open_video(path) as video:
        read = list(islice(video, 9))
    assert len(read) == 5
    for image, frame in zip(read, film("passing", 5), strict=True):
        assert np.abs(image.astype(int) - frame.image).mean() < 12
