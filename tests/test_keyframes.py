"""Key frames: what the network sees of a video, and what is carried to the other frames."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.moving_square import HW, Moving, Network, left_of, number_of, overlap, picture, square
from support.numbered_clip import read_numbers

from data.video.reader import open_video
from data.video.writer import VideoWriter
from yolact.drawing.detections import draw_detections
from yolact.errors import OptionError
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.sources.one import SourceImage
from yolact.video.keyframes import KeyFrames, blend, match
from yolact.video.keyframes import overlap as overlap_of
from yolact.video.pipeline import run_video

Seen = list[tuple[int, Detections]]

pytestmark = pytest.mark.usefixtures("no_thread_stays")


def leave(image: np.ndarray, _: Detections) -> np.ndarray:
    return image


def run(source: Moving, network: Network, keys: KeyFrames | None, **options: object) -> Seen:
    seen: Seen = []
    run_video(
        source,
        network,
        leave,
        output=None,
        display=False,
        on_frame=lambda position, found: seen.append((position, found)),
        keyframes=keys,
        **options,
    )
    return seen


@pytest.mark.parametrize("frames", [0, 1, 2, 5, 13])
@pytest.mark.parametrize("every", [2, 4, 100])
@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 1), (1, 3), (2, 2)])
def test_a_file_is_complete_and_in_order(frames: int, every: int, batch: int, workers: int) -> None:
    network = Network()
    seen = run(Moving(frames), network, KeyFrames(every), batch=batch, workers=workers)
    keys = list(range(0, frames, every))
    assert [position for position, _ in seen] == list(range(frames))
    assert sorted(network.seen) == keys
    assert [position for position, found in seen if not found.carried] == keys
    assert all(number_of(found.picture) == i for i, found in seen if found.carried)
    assert all(overlap(found, position) > 0.85 for position, found in seen[: every + 1])
    assert all(overlap(found, position) > 0.85 for position, found in seen)


def test_boxes_follow() -> None:
    for position, found in run(Moving(9), Network(), KeyFrames(4)):
        left = left_of(position)
        assert found.boxes[0].tolist() == pytest.approx([left, 30, left + 40, 70], abs=1)
        assert found.scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize("cuts", [[], [1], [3], [4, 5], [8], list(range(1, 9))])
def test_nothing_is_carried_across_a_cut(cuts: list[int]) -> None:
    network = Network()
    for position, found in run(Moving(9, cuts=cuts), network, KeyFrames(4)):
        item = sum(position >= cut for cut in cuts)
        assert found.labels.tolist() == [item % 3]
        assert overlap(found, position) > 0.85
    assert set(cuts) <= set(network.seen)


def test_with_cuts_everywhere_the_network_sees_everything() -> None:
    network = Network()
    run(Moving(9, cuts=range(1, 9)), network, KeyFrames(None))
    assert network.seen == list(range(9))


@pytest.mark.parametrize(
    ("blind", "scores"),
    [
        (range(9), [[], [], [], [], []]),
        ([4], [[0.9], [0.675], [0.45], [], []]),
        ([0], [[], [], [0.45], [0.675], [0.9]]),
    ],
)
def test_objects_fade(blind: list[int], scores: list[list[float]]) -> None:
    keys = KeyFrames(4, select=Thresholds(0.3, drop_empty=True).select)
    seen = run(Moving(5), Network(blind=blind), keys)
    for (_, found), expected in zip(seen, scores, strict=True):
        assert found.scores.tolist() == pytest.approx(expected)
        assert found.image_hw == HW


def test_without_a_later_key_frame_objects_stay() -> None:
    for position, found in run(Moving(4), Network(), KeyFrames(100)):
        assert found.scores.tolist() == pytest.approx([0.9])
        assert overlap(found, position) > 0.85


@pytest.mark.parametrize("fps", [1, 3, 30])
def test_auto_looks_once_a_second_or_more(fps: float) -> None:
    network = Network(speed=0)
    run(Moving(25, fps=fps, speed=0), network, KeyFrames(None, fps))
    gaps = np.diff([*network.seen, 25])
    assert gaps.max() <= min(fps, 12)
    assert len(network.seen) <= 25 / min(fps, 12) + 1


def test_auto_holds_few_large_frames() -> None:
    frame = np.broadcast_to(np.uint8(0), (4320, 7680, 3))
    groups = KeyFrames(None).groups([SourceImage(frame)] * 4)
    assert [len(group) for group in groups] == [1] * 4


def test_a_long_stretch_is_cut_where_frames_are_large() -> None:
    frame = np.broadcast_to(np.uint8(0), (4320, 7680, 3))
    groups = KeyFrames(1000).groups([SourceImage(frame)] * 5)
    assert [len(group) for group in groups] == [2, 2, 1]
    small = np.broadcast_to(np.uint8(0), (48, 64, 3))
    assert [len(each) for each in KeyFrames(100).groups([SourceImage(small)] * 250)] == [
        100,
        100,
        50,
    ]


def test_auto_looks_more_often_where_much_moves() -> None:
    calm, wild = Network(speed=1), Network(speed=12)
    run(Moving(24, speed=1), calm, KeyFrames(None))
    run(Moving(24, speed=12), wild, KeyFrames(None))
    assert len(wild.seen) > len(calm.seen)


def test_auto_looks_again_where_an_object_is_lost() -> None:
    network = Network(speed=1, blind=range(7, 30))
    seen = run(Moving(24, speed=1), network, KeyFrames(None))
    assert {6, 7, 8} & set(network.seen)  # between the key frames 0 and 12
    assert [bool(len(found)) for _, found in seen[:5]] == [True] * 5
    assert len(network.seen) == len(set(network.seen))


@pytest.mark.parametrize("hw", [(1, 1), (16, 16), (17, 33)])
def test_every_size(hw: tuple[int, int]) -> None:
    items = [SourceImage(np.full((*hw, 3), 10 * i, np.uint8), str(i)) for i in range(7)]
    keys = KeyFrames(3)
    some = replace(square(10), image_hw=hw, mask_frames=torch.tensor([[0.0, 0, hw[1], hw[0]]]))
    some = replace(some, boxes=torch.tensor([[0.0, 0, *hw[::-1]]]))
    pairs = ((group, some) for group in keys.groups(items))
    filled = list(keys.interpolate(pairs, Network()))
    assert [item.source for item, _ in filled] == [str(i) for i in range(7)]
    assert all(found.image_hw == hw and len(found) == 1 for _, found in filled)


def test_a_change_of_size_is_a_cut() -> None:
    images = [picture(0), picture(1), picture(2)[:90], picture(3)[:90]]
    groups = list(KeyFrames(4).groups([SourceImage(image) for image in images]))
    assert [len(group) for group in groups] == [2, 2]


@pytest.mark.parametrize("stage", ["read", "predict", "draw", "on_frame"])
@pytest.mark.parametrize("keys", [KeyFrames(4), KeyFrames(None)])
def test_an_error_reaches_the_caller_after_what_came_before(
    tmp_path: Path, stage: str, keys: KeyFrames
) -> None:
    network, positions = Network(), []

    def failing_predict(images: list[np.ndarray]) -> list[Detections]:
        if number_of(images[0]) >= 12:
            raise OSError("predict")
        return network(images)

    def failing_draw(image: np.ndarray, _: Detections) -> np.ndarray:
        if number_of(image) == 14 and stage == "draw":
            raise OSError("draw")
        return np.full((*HW, 3), 10 * number_of(image) + 8, np.uint8)

    def on_frame(position: int, _: Detections) -> None:
        positions.append(position)
        if position == 14 and stage == "on_frame":
            raise OSError("on_frame")

    output = tmp_path / "out.mp4"
    with pytest.raises(OSError, match="unplugged" if stage == "read" else stage):
        run_video(
            Moving(22, fail_at=14 if stage == "read" else None),
            failing_predict if stage == "predict" else network,
            failing_draw,
            output=output,
            display=False,
            on_frame=on_frame,
            keyframes=keys,
        )
    expected = 12 if stage == "predict" else 14
    assert read_numbers(output) == list(range(expected))
    assert positions[:expected] == list(range(expected))


def test_ctrl_c_leaves_a_playable_file(tmp_path: Path) -> None:
    def interrupt(position: int, _: Detections) -> None:
        if position == 6:
            raise KeyboardInterrupt

    output = tmp_path / "out.mp4"
    sinks = {"output": output, "display": False, "on_frame": interrupt}
    with pytest.raises(KeyboardInterrupt):
        run_video(Moving(10**6), Network(), leave, **sinks, keyframes=KeyFrames(4))
    assert len(read_numbers(output)) == 6


@pytest.mark.parametrize("most", [1, 5, 8])
def test_max_frames(most: int) -> None:
    network = Network()
    seen = run(Moving(50), network, KeyFrames(4), max_frames=most)
    assert [position for position, _ in seen] == list(range(most))
    assert network.seen == list(range(0, most, 4))


@pytest.mark.parametrize("keys", [KeyFrames(4), KeyFrames(None)])
def test_no_frame_is_kept(keys: KeyFrames) -> None:
    alive, most = weakref.WeakSet(), 0

    class Watched(Moving):
        def __iter__(self) -> Iterator[np.ndarray]:
            for frame in super().__iter__():
                nonlocal most
                frame = frame.view(Weak)
                alive.add(frame)
                most = max(most, len(alive))
                yield frame

    class Weak(np.ndarray):
        __hash__ = object.__hash__

    count = 0

    def counted(position: int, _: Detections) -> None:
        nonlocal count
        count += 1

    sinks = {"output": None, "display": False, "on_frame": counted}
    run_video(Watched(200, speed=1), Network(speed=1), leave, **sinks, keyframes=keys)
    assert count == 200
    assert most < 80


def test_playback_is_paced_after_the_carrying() -> None:
    report = run_video(
        Moving(9, fps=100),
        Network(),
        leave,
        output=None,
        display=False,
        emulate_playback=True,
        keyframes=KeyFrames(4),
    )
    assert report.frames == 9
    assert report.seconds >= 8 / 100


def test_off_is_what_a_plain_loop_gives(tmp_path: Path) -> None:
    clip, by_hand, output = (tmp_path / f"{name}.mp4" for name in ("clip", "hand", "out"))
    with VideoWriter(clip, 25, HW) as writer:
        for number in range(12):
            writer.write(picture(number))

    def predict(images: list[np.ndarray]) -> list[Detections]:
        return [square(float(image[5, 5].sum())) for image in images]

    expected = []
    with (
        open_video(clip) as source,
        VideoWriter(by_hand, source.fps, HW, sound=source.sound) as writer,
    ):
        for frame in source:
            (found,) = predict([frame])
            expected.append(replace(found, seconds=source.seconds).to_json())
            writer.write(draw_detections(frame, found), source.seconds)
    got: list[str] = []
    with open_video(clip) as source:
        run_video(
            source,
            predict,
            draw_detections,
            output=output,
            display=False,
            on_frame=lambda _, found: got.append(found.to_json()),
            keyframes=KeyFrames.from_option("off", source.fps, Thresholds().select),
        )
    assert got == expected
    assert output.read_bytes() == by_hand.read_bytes()


def test_what_is_carried_says_so() -> None:
    (_, key), (_, carried), *_ = run(Moving(3), Network(), KeyFrames(2))
    assert "key" not in key.to_dict()
    assert carried.to_dict()["key"] is False


@pytest.mark.parametrize("asked", ["off", 1])
def test_off(asked: object) -> None:
    assert KeyFrames.from_option(asked, 30, Thresholds().select) is None


@pytest.mark.parametrize("asked", [0, -1, True, 2.5, "sometimes", None])
def test_what_chooses_no_key_frames(asked: object) -> None:
    with pytest.raises(OptionError, match="expected auto, off, or a whole number, at least 1"):
        KeyFrames.from_option(asked, 30, Thresholds().select)


@pytest.mark.parametrize(
    ("overlaps", "pairs"),
    [
        (np.zeros((0, 0)), []),
        (np.zeros((2, 0)), []),
        (np.zeros((2, 3)), []),
        ([[0.5, 0.9], [0.45, 0.8]], [(0, 1), (1, 0)]),
        ([[0.5, 0.9], [0.2, 0.8]], [(0, 0), (1, 1)]),  # two rather than the best one
        ([[0.5, 0.9], [0.2, 0.2]], [(0, 1)]),
        ([[0.7, 0.7]], [(0, 0)]),
    ],
)
def test_match(overlaps: object, pairs: list[tuple[int, int]]) -> None:
    assert match(np.asarray(overlaps, np.float32), 0.3) == pairs


@pytest.mark.parametrize("side", [2, 8, 30])
@pytest.mark.parametrize("has_mask", [False, True])
def test_overlap(side: int, has_mask: bool) -> None:
    small = square(20)
    small = replace(small, boxes=torch.tensor([[20.0, 30, 20 + side, 30 + side]]))
    small.soft_masks[:] = 0
    small.soft_masks[0, 15 : 15 + side // 2, 10 : 10 + side // 2] = float(has_mask)
    assert overlap_of(small, small)[0, 0] == pytest.approx(1)
    moved = replace(small, boxes=small.boxes + 60, soft_masks=small.soft_masks.roll(30, 2))
    assert overlap_of(small, moved)[0, 0] == 0
    assert overlap_of(small, small[:0]).shape == (1, 0)


def test_blend() -> None:
    none, here, there, other = square(0)[:0], square(20), square(28, score=0.5), square(60, 1)
    assert len(blend(none, none, 0.5)) == 0
    middle = blend(here, there, 0.25)
    assert middle.boxes[0, 0] == 22
    assert middle.scores.tolist() == pytest.approx([0.8])
    assert len(middle) == 1
    both = blend(here, other, 0.75)  # other classes are other objects
    assert both.labels.tolist() == [1, 0]
    assert both.scores.tolist() == pytest.approx([0.675, 0.225])
