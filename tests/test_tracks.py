"""Objects followed through generated videos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.moving import HW, film, found_in

from data.shapes.motion import KINDS, GroundTruthFrame, Kind
from yolact.drawing.detections import PALETTE, draw_detections, object_colors, palette_color
from yolact.evaluation.tracking import TrackScorer, TrackScores
from yolact.results.detections import Detections
from yolact.video.flow import FlowEstimator, carry, shrink
from yolact.video.overlaps import mask_overlaps
from yolact.video.tracks import LOST_SECONDS, Tracker, track_frames

FPS = 20


def follow(
    frames: Iterable[tuple[GroundTruthFrame, Detections]], smooth: bool = True
) -> tuple[list[Detections], TrackScores]:
    """Track what was found, and score it against the truth."""
    tracker, scorer, results = Tracker(smooth), TrackScorer(), []
    estimate, before = FlowEstimator(), None
    for number, (frame, found) in enumerate(frames):
        result = tracker.update(frame.image, found, number / FPS)
        masks = result.masks.numpy()
        scorer.add(frame.ids.tolist(), ids_of(result), mask_overlaps(frame.masks, masks))
        small = shrink(frame.image)
        if before is not None:
            moved = carry(before[1], estimate(small, before[0]))
            scorer.add_step(moved.masks.numpy(), masks)
        before = small, result
        results.append(result)
    return results, scorer.summarize()


def ids_of(found: Detections) -> list[int]:
    assert found.track_ids is not None and found.track_ids.dtype == torch.int64
    assert len(found.track_ids) == len(found) == len(set(found.track_ids.tolist()))
    return found.track_ids.tolist()


def perfect(kind: Kind, frames: int = 40) -> list[tuple[GroundTruthFrame, Detections]]:
    return [(frame, found_in(frame)) for frame in film(kind, frames)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_nothing_found(count: int) -> None:
    frames = [(frame, found[:0]) for frame, found in perfect("moving", count)]
    results, scores = follow(frames)
    assert [ids_of(result) for result in results] == [[]] * count
    assert scores.switches == 0


@pytest.mark.parametrize("kind", KINDS)
def test_objects_keep_their_ids(kind: Kind) -> None:
    results, scores = follow(perfect(kind))
    assert scores.idf1 >= 0.9
    assert scores.mean_iou >= 0.85
    assert all(result.scores.tolist() == sorted(result.scores, reverse=True) for result in results)


def without(
    frames: list[tuple[GroundTruthFrame, Detections]], missed: Iterable[int]
) -> list[tuple[GroundTruthFrame, Detections]]:
    """Miss every object in some frames."""
    gone = set(missed)
    return [(f, found[:0] if n in gone else found) for n, (f, found) in enumerate(frames)]


@pytest.mark.parametrize(("seconds", "is_known"), [(2.0, True), (LOST_SECONDS + 0.5, False)])
def test_who_was_out_of_sight_is_known_again_for_a_time(seconds: float, is_known: bool) -> None:
    frames = perfect("moving", 20 + round(seconds * FPS) + 2)
    results, _ = follow(without(frames, range(20, len(frames) - 2)))
    before, after = set(ids_of(results[19])), set(ids_of(results[-1]))
    assert len(before) == len(after) == 6
    assert len(before & after) >= 5 if is_known else not before & after


def test_smoothing_bridges_and_steadies_without_loss() -> None:
    rng = np.random.default_rng(0)

    def spoilt(found: Detections) -> Detections:
        """Move each mask by up to a cell, and miss one object in ten."""
        shifts = rng.integers(-1, 2, (len(found), 2)).tolist()
        masks = [m.roll(at, (0, 1)) for m, at in zip(found.soft_masks, shifts, strict=True)]
        kept = torch.from_numpy(rng.random(len(found)) > 0.1)
        return replace(found, soft_masks=torch.stack(masks))[kept]

    frames = [(frame, spoilt(found)) for frame, found in perfect("moving", 30)]
    (_, rough), (_, smooth) = (follow(frames, each) for each in (False, True))
    assert smooth.flicker < 0.6 * rough.flicker
    assert smooth.mean_iou > rough.mean_iou + 0.05
    assert smooth.idf1 > rough.idf1


def test_without_smoothing_only_ids_are_added() -> None:
    frames = perfect("crossing", 8)
    results, _ = follow(frames, smooth=False)
    for (_, found), result in zip(frames, results, strict=True):
        assert torch.equal(found.masks, result.masks) and torch.equal(found.boxes, result.boxes)
        assert torch.equal(found.scores, result.scores) and found.track_ids is None


def test_a_cut_ends_all_tracks() -> None:
    results, _ = follow(perfect("cut", 12))
    before, after = ids_of(results[5]), ids_of(results[6])
    assert before and after and not set(before) & set(after)


def test_cuts_on_every_frame_and_changing_sizes() -> None:
    rng, tracker = np.random.default_rng(0), Tracker()
    found = perfect("moving", 1)[0][1]
    for number in range(4):
        image = rng.integers(0, 256, (*HW, 3), np.uint8)
        assert len(ids_of(tracker.update(image, found, number / FPS))) == 6
    tiny = replace(found[:0], image_hw=(16, 16))
    assert ids_of(tracker.update(np.zeros((16, 16, 3), np.uint8), tiny, 1.0)) == []


def test_boxes_without_masks_are_followed() -> None:
    frames = [(f, replace(d, soft_masks=d.soft_masks * 0)) for f, d in perfect("moving", 12)]
    results, _ = follow(frames)
    assert len({number for result in results for number in ids_of(result)}) == 6


def test_memory_does_not_grow() -> None:
    """Objects that flash up anywhere, for far longer than anything is kept."""
    rng, tracker = np.random.default_rng(0), Tracker()
    image, found = np.full((*HW, 3), 90, np.uint8), perfect("moving", 1)[0][1]
    kept = []
    for number in range(120):
        chosen = torch.from_numpy(rng.random(6) < 0.3)
        tracker.update(image, found.filter(min_score=0)[chosen], number * 0.3)
        kept.append(len(tracker._tracks))
    assert max(kept[60:]) <= max(kept[:60]) <= 6 * LOST_SECONDS / 0.3


def test_times_that_stand_still_or_go_back() -> None:
    tracker = Tracker()
    for (frame, found), seconds in zip(perfect("moving", 4), (1.0, 1.0, 0.5, 2.0), strict=True):
        assert len(ids_of(tracker.update(frame.image, found, seconds))) == 6


@pytest.mark.parametrize("step", [0.04, 0.6, 1.0, 6.0])
def test_slow_videos_and_those_that_stall(step: float) -> None:
    """What the last frame showed is followed, however long ago that was."""
    tracker, (frame, found) = Tracker(), perfect("moving", 1)[0]
    ids = [ids_of(tracker.update(frame.image, found, number * step)) for number in range(4)]
    assert ids == [ids[0]] * 4
    assert len(ids[0]) == 6


@pytest.mark.parametrize("most", [None, 0, 2])
def test_what_is_missed_counts_among_the_most_that_are_kept(most: int | None) -> None:
    tracker, (frame, found) = Tracker(top_k=most), perfect("moving", 1)[0]
    counts = []
    for number in range(6):
        order = [number % 2 * 3 + i for i in range(3)]  # by turns, three of six
        few = found[order][:most]
        counts.append(len(tracker.update(frame.image, few, number * 0.03)))
    assert max(counts) == (6 if most is None else most)


def test_frames_of_a_generator() -> None:
    frames = [replace(found, picture=frame.image) for frame, found in perfect("moving", 3)]
    assert len([*track_frames(found for found in frames)]) == 3
    closed = []

    def forever():  # type: ignore[no-untyped-def]
        try:
            while True:
                yield frames[0]
        finally:
            closed.append(True)

    results = track_frames(forever())
    assert len(ids_of(next(results))) == 6
    results.close()
    assert closed


def test_ids_go_with_their_objects() -> None:
    found = replace(perfect("moving", 1)[0][1], track_ids=torch.arange(6) + 10)
    assert ids_of(found[[4, 0]]) == [14, 10]
    assert ids_of(found.filter(min_score=0.8)) == [10, 11]
    assert ids_of(found.sort("score", descending=False)) == [15, 14, 13, 12, 11, 10]
    assert ids_of(found[3:] + found[:1]) == [10, 13, 14, 15]
    assert (found[:1] + replace(found[1:], track_ids=None)).track_ids is None


def test_ids_in_files_and_other_libraries() -> None:
    plain = perfect("moving", 1)[0][1]
    found = replace(plain, track_ids=torch.arange(6) + 10, seconds=1.5)
    values = found.to_dict()
    assert values["seconds"] == 1.5
    assert [each["track_id"] for each in values["objects"]] == list(range(10, 16))
    assert "seconds" not in plain.to_dict() and "track_id" not in plain.to_dict()["objects"][0]
    header, first, *_ = found.to_csv().splitlines()
    assert header.endswith(",area,track_id") and first.endswith(",10")
    assert plain.to_csv().splitlines()[0].endswith(",area")
    assert found.to_dataframe()["track_id"].tolist() == list(range(10, 16))
    theirs = found.to_supervision()
    assert theirs.tracker_id.tolist() == list(range(10, 16))
    assert ids_of(Detections.from_supervision(theirs, HW)) == list(range(10, 16))
    assert plain.to_supervision().tracker_id is None


def test_an_object_keeps_its_colour_and_tells_its_id() -> None:
    found = replace(perfect("moving", 1)[0][1], track_ids=torch.arange(6) + 10)
    colours = object_colors(found, "instance")
    assert object_colors(found[3:], "instance") == colours[3:]
    assert object_colors(found[3:], "class") == [palette_color(int(n)) for n in found.labels[3:]]
    canvas = np.zeros((*HW, 3), np.uint8)
    drawn, other = (
        draw_detections(canvas, replace(found[:1], track_ids=torch.tensor([number])), masks=False)
        for number in (1, 1 + len(PALETTE))  # of one colour
    )
    assert not np.array_equal(drawn, other)
