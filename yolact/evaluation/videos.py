"""Run a video with some settings, and score it: masks, identities, flicker, speed, delay."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.annotations.as_coco import annotation_of, coco_index
from data.annotations.run_lengths import encode
from data.classes import Categories
from data.images import Image
from data.video.reader import VideoSource
from yolact.drawing.detections import draw_detections
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.video.flow import FlowEstimator, carry, shrink
from yolact.video.keyframes import KeyFrameOption, KeyFrames
from yolact.video.overlaps import mask_overlaps
from yolact.video.pipeline import run_video
from yolact.video.stages import Predict
from yolact.video.tracks import Tracker

from .coco import CocoEvaluator
from .tracking import TrackScorer, TrackScores


class VideoRunConfig(NamedTuple):
    """How to run a video."""

    keyframes: KeyFrameOption
    track: bool

    def __str__(self) -> str:
        return f"{self.keyframes} | {'yes' if self.track else 'no'}"


class InMemoryVideo(VideoSource):
    """Frames in memory; records when each is read; if live, they arrive in real time."""

    def __init__(self, images: Sequence[Image], fps: float, *, is_live: bool = False):
        self.images, self.fps, self.is_live = images, fps, is_live
        self.image_hw = images[0].shape[0], images[0].shape[1]
        self.name, self.path = "memory", None
        self.seconds, self.broken_frames = 0.0, 0
        self.read_at: list[float] = []

    def __iter__(self) -> Iterator[Image]:
        """Yield the frames."""
        start = time.perf_counter()
        for number, image in enumerate(self.images):
            self.seconds = number / self.fps
            if self.is_live:
                time.sleep(max(start + self.seconds - time.perf_counter(), 0.0))
            self.read_at.append(time.perf_counter())
            yield image

    def close(self) -> None:
        """Do nothing, as there is nothing to close."""


class FrameTruth(NamedTuple):
    """The ground truth of a frame.

    Attributes:
        masks: (N, H, W) bool.
        labels: labels of N objects.
        ids: ids of N objects; None if unknown.
    """

    masks: NDArray[np.bool_]
    labels: list[int]
    ids: list[int] | None


@dataclass
class VideoRun:
    """The result of a run of a video.

    Attributes:
        found: position of a frame -> detections.
        delays: seconds from reading to delivering each frame.
        fps: frames per second.
    """

    found: dict[int, Detections] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    fps: float = 0.0

    def delay(self, percent: int) -> float:
        """Return a percentile of the delays, in milliseconds."""
        return 1000 * float(np.percentile(self.delays, percent)) if self.delays else math.nan


class RunScores(NamedTuple):
    """The scores of a run of a video."""

    ap: float
    scores: TrackScores
    fps: float
    delays: tuple[float, float]  # median and 95th percentile, in ms


def run_in_memory(
    video: InMemoryVideo, predict: Predict, thresholds: Thresholds, config: VideoRunConfig
) -> VideoRun:
    """Run a video."""
    run = VideoRun()

    def note(position: int, found: Detections) -> None:
        run.delays.append(time.perf_counter() - video.read_at[position])
        run.found[position] = replace(found, picture=None)

    report = run_video(
        video,
        predict,
        draw_detections,
        output=None,
        display=False,
        on_frame=note,
        keyframes=KeyFrames.from_option(config.keyframes, video.fps, thresholds.select),
        track=Tracker().update if config.track else None,
    )
    run.fps = report.fps
    return run


def score_run(
    images: Sequence[Image], truth: Sequence[FrameTruth], run: VideoRun, categories: Categories
) -> RunScores:
    """Score a run; frames that were not delivered do not count."""
    scorer, estimate = TrackScorer(), FlowEstimator()
    before: tuple[int, Detections] | None = None
    evaluator = CocoEvaluator(coco_index(_coco_content(truth, categories)), categories.category_ids)
    for position, found in sorted(run.found.items()):
        masks, there = found.masks.numpy(), truth[position]
        ids = list(range(len(found))) if found.track_ids is None else found.track_ids.tolist()
        objects = list(range(len(there.labels))) if there.ids is None else there.ids
        scorer.add(objects, ids, mask_overlaps(there.masks, masks))
        if before is not None and before[0] == position - 1:
            flow = estimate(shrink(images[position]), shrink(images[position - 1]))
            scorer.add_step(carry(before[1], flow).masks.numpy(), masks)
        before = position, found
        evaluator.add(position, found)
    scores = scorer.summarize()
    if found.track_ids is None or there.ids is None:
        scores = scores._replace(idf1=math.nan)
    ap = evaluator.summarize().mask.overlaps["all"]
    return RunScores(ap, scores, run.fps, (run.delay(50), run.delay(95)))


def _coco_content(truth: Sequence[FrameTruth], categories: Categories) -> dict[str, Any]:
    """Return a video's ground truth in COCO's format, with frames as images."""
    images: list[dict[str, Any]] = []
    entries: list[Any] = []
    for position, (masks, labels, _) in enumerate(truth):
        height, width = masks.shape[1:]
        images.append({"id": position, "height": height, "width": width})
        for mask, label in zip(masks, labels, strict=True):
            number, category_id = len(entries) + 1, categories.category_ids[label]
            entries.append(annotation_of(encode(mask), number, position, category_id))
    return {"images": images, "annotations": entries, "categories": categories.to_coco_json()}


def mean_scores(rows: Sequence[RunScores]) -> RunScores:
    """Average the scores of videos; sum the switches."""
    scores = [each.scores for each in rows]
    together = TrackScores(
        statistics.mean(each.idf1 for each in scores),
        statistics.mean(each.mean_iou for each in scores),
        sum(each.switches for each in scores),
        statistics.mean(each.flicker for each in scores),
    )
    delays = [statistics.mean(each.delays[at] for each in rows) for at in (0, 1)]
    ap, fps = (statistics.mean(getattr(each, name) for each in rows) for name in ("ap", "fps"))
    return RunScores(ap, together, fps, (delays[0], delays[1]))
