"""Objects followed from frame to frame: lasting ids, and masks that do not flicker.

The objects of a frame are carried to the next one by the optical flow. What overlaps there is the
same object; what was out of sight is known again by its colours, near to where it was going.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.images import Image
from layers.native import Floats
from yolact.results.detections import Detections

from .appearance import color_histograms, histogram_similarity
from .flow import FlowEstimator, SmallFrame, carry, shrink
from .keyframes import flow_unless_cut
from .overlaps import Masks, Overlaps, mask_overlaps, match_pairs, small_masks

LOST_SECONDS = 4.0
"""An object that is out of sight for longer gets another id."""

_LEAST_OVERLAP = 0.15
_OTHER_CLASS = 0.9  # factor on the overlap of objects of different classes
_LEAST_SIMILARITY = 0.5
_SIMILARITY_MARGIN = 0.15  # a detection so much more like another track leaves its own
_DUPLICATE_SIMILARITY = 0.8  # similarity of two detections of one object
_TENTATIVE = 0.5  # seconds in which a new object can turn out to be one that was lost
_CONFIRMED_HITS = 3  # detections that make an object more than noise
_HALF_CONFIDENT_HITS = 15  # detections that make it half as sure as it can be
_COAST = 0.12  # seconds for which an object that is missed is shown where the flow takes it
_HIDDEN = 0.4  # share of it that others cover, from which it is not missed but hidden
_NEW = 0.5  # share of a new detection in an average


@dataclass
class _Track:
    """What is known of an object; pixels and seconds, velocity relative to the background."""

    label: int
    histogram: Floats
    box: Floats
    first_seen: float
    last_seen: float
    velocity: Floats
    hits: int = 0

    def predict(self, drift: Floats, passed: float) -> None:
        """Move on as before, in a picture that moves itself."""
        self.box = self.box + np.tile(drift + self.velocity * passed, 2)

    def update(self, histogram: Floats, box: Floats, label: int, now: float, trust: float) -> None:
        """Take over a detection.

        Args:
            histogram: its colours.
            box: where it is.
            label: its class.
            now: seconds.
            trust: its overlap with where the object was expected. What overlaps little may be a
                part of it, or another object as well, and says nothing of how it looks.
        """
        passed = now - self.last_seen
        if passed > 0:
            self.velocity = self.velocity + 0.3 * (_centres(box) - _centres(self.box)) / passed
        self.histogram = self.histogram + 0.4 * max(trust - 0.5, 0.0) * (histogram - self.histogram)
        self.box, self.label, self.last_seen, self.hits = box, label, now, self.hits + 1

    def similarity(self, histogram: Floats) -> float:
        """Compare a detection with it, see `histogram_similarity`."""
        return float(histogram_similarity(self.histogram[None], histogram[None])[0, 0])

    def is_tentative(self, now: float) -> bool:
        """Tell whether its id may still turn out to be another one's."""
        return now - self.first_seen < _TENTATIVE

    def is_lost(self, now: float) -> bool:
        """Tell whether it has been out of sight for too long."""
        return now - self.last_seen > (LOST_SECONDS if self.hits >= _CONFIRMED_HITS else _TENTATIVE)


class _FrameDetections(NamedTuple):
    """The N detections of a frame: where, on a small grid, and how they look."""

    masks: Masks  # (N, h, w)
    histograms: Floats  # (N, 512)
    boxes: Floats  # (N, 4)
    labels: NDArray[np.int64]


class Tracker:
    """Gives the objects of a video their ids, frame after frame, and smooths their masks.

    What it keeps does not grow with the length of a video.

    Args:
        smooth: average masks, boxes and scores along the flow, and bridge what is missed for a
            moment; else ids alone are added.
        given: the highest id that is taken, by the frames before.
        top_k: at most so many objects of a frame, with those that are missed; None for all.

    Example:
        >>> tracker = Tracker()
        >>> for image, detections, seconds in frames:
        ...     print(tracker.update(image, detections, seconds).track_ids)
    """

    def __init__(self, smooth: bool = True, given: int = 0, top_k: int | None = None) -> None:
        self._smooth, self._top_k = smooth, top_k
        self._estimate = FlowEstimator()
        self._tracks: dict[int, _Track] = {}
        self._count = given
        self._last: tuple[SmallFrame, Detections] | None = None
        self._now = 0.0

    def update(self, image: Image, detections: Detections, seconds: float) -> Detections:
        """Take the next frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            detections: N objects found in it, on the CPU.
            seconds: its time in the video.

        Returns:
            These objects with their `track_ids`, highest score first; smoothed, if that is asked
            for, and with those that are missed for a moment.
        """
        small = shrink(image)
        carried = self._propagate(small, detections, seconds)
        carried_masks, ids = small_masks(carried), _ids(carried)
        masks = small_masks(detections)
        boxes, labels = detections.boxes.numpy(), detections.labels.numpy()
        current = _FrameDetections(masks, color_histograms(image, masks), boxes, labels)
        overlaps = mask_overlaps(carried_masks, masks)
        origins = self._match_by_overlap(carried, overlaps, current)
        numbers = {column: ids[row] for column, row in origins.items()}
        numbers = self._reidentify(numbers, current)
        trust = {column: float(overlaps[row, column]) for column, row in origins.items()}
        found = replace(detections, track_ids=self._assign_ids(numbers, current, trust))
        if self._smooth:
            found = _averaged(found, carried, origins)
        missed = self._missed(carried, carried_masks, {*origins.values()}, found, masks)
        every = (found + missed if len(missed) else found.sort())[: self._top_k]
        self._last = small, every
        return every if self._smooth else found

    def _propagate(self, small: SmallFrame, detections: Detections, seconds: float) -> Detections:
        """Carry everything to a new frame, and forget what is lost for long.

        What was in the last frame is not lost, however long ago that was.
        """
        passed, self._now = max(seconds - self._now, 0.0), seconds
        none = replace(detections[:0], track_ids=torch.zeros(0, dtype=torch.int64))
        if self._last is None:
            return none
        before, last = self._last
        flow, _ = flow_unless_cut(self._estimate, small, before)
        if flow is None:
            self._tracks.clear()
            return none
        drift = -np.median(flow.offsets[::4, ::4].reshape(-1, 2), axis=0) * flow.pixel
        shown = set(_ids(last))
        for number, track in list(self._tracks.items()):
            track.predict(drift, passed)
            if number not in shown and track.is_lost(seconds):
                del self._tracks[number]
        return carry(last, flow)

    def _match_by_overlap(
        self, carried: Detections, overlaps: Overlaps, current: _FrameDetections
    ) -> dict[int, int]:
        """Find the carried object that each detection is: position of a detection -> of that."""
        known = [self._tracks[number] for number in _ids(carried)]
        similarity = histogram_similarity(
            _stacked(known, "histogram", current.histograms), current.histograms
        )
        same = carried.labels.numpy()[:, None] == current.labels
        weighed = overlaps * similarity * np.where(same, 1.0, _OTHER_CLASS) * _confidences(known)
        weighed[(overlaps < _LEAST_OVERLAP) | (~same & (similarity < _LEAST_SIMILARITY))] = 0.0
        return {column: row for row, column in match_pairs(weighed)}

    def _reidentify(self, numbers: dict[int, int], current: _FrameDetections) -> dict[int, int]:
        """Find detections that are lost objects: position -> id.

        Args:
            numbers: the ids of those that were found by overlap. Tentative ones can change, and
                those that look far more like a lost object, which has come out behind another.
            current: all detections.
        """
        taken = set(numbers.values())
        lost = {number: track for number, track in self._tracks.items() if number not in taken}
        tracks = list(lost.values())
        boxes = _stacked(tracks, "box", current.boxes)
        similarity = histogram_similarity(
            _stacked(tracks, "histogram", current.histograms), current.histograms
        )
        gone = np.array([[self._now - track.last_seen] for track in tracks]).reshape(-1, 1)
        reach = np.maximum(_sizes(boxes)[:, None], _sizes(current.boxes)).clip(1) * (1 + gone)
        away = np.linalg.norm(_centres(boxes)[:, None] - _centres(current.boxes), axis=2)
        table = similarity * (1 - 0.5 * away / reach) * _confidences(tracks)
        table[(similarity < _LEAST_SIMILARITY) | (away > reach)] = 0.0
        for row, column in np.argwhere(table):
            track, own = tracks[row], self._tracks.get(numbers.get(int(column), 0))
            is_possible = track.label == current.labels[column]
            if own is not None:
                near = 2 * away[row, column] <= reach[row, column]
                # Of two detections of one object the later can outlive the earlier.
                is_duplicate = near and similarity[row, column] >= _DUPLICATE_SIMILARITY
                was_lost = own.is_tentative(self._now) and (
                    is_duplicate or track.last_seen <= own.first_seen
                )
                clearly = (
                    similarity[row, column]
                    > own.similarity(current.histograms[column]) + _SIMILARITY_MARGIN
                )
                is_possible &= was_lost or (clearly and track.hits >= _CONFIRMED_HITS)
            table[row, column] *= is_possible
        again = {column: list(lost)[row] for row, column in match_pairs(table)}
        for column in again.keys() & numbers.keys():
            if self._tracks[numbers[column]].is_tentative(self._now):
                del self._tracks[numbers[column]]
        return numbers | again

    def _assign_ids(
        self, numbers: dict[int, int], current: _FrameDetections, trust: dict[int, float]
    ) -> Tensor:
        """Note where the tracks are now, new ones as well; return the ids of the detections.

        Args:
            numbers: position of a detection -> its id, where it is known.
            current: all detections.
            trust: position -> overlap with where it was expected.
        """
        ids = []
        for column, label in enumerate(current.labels.tolist()):
            histogram, box = current.histograms[column], current.boxes[column]
            if column not in numbers:
                self._count += 1
                still = np.zeros(2, np.float32)
                self._tracks[self._count] = _Track(
                    label, histogram, box, self._now, self._now, still
                )
            ids.append(numbers.get(column, self._count))
            self._tracks[ids[-1]].update(histogram, box, label, self._now, trust.get(column, 0.0))
        return torch.tensor(ids, dtype=torch.int64)

    def _missed(
        self,
        carried: Detections,
        carried_masks: Masks,
        used: set[int],
        found: Detections,
        masks: Masks,
    ) -> Detections:
        """Return the carried objects that were not found, and should have been."""
        cover, numbers = masks.any(axis=0), _ids(found)
        kept = []
        for row, (number, mask) in enumerate(zip(_ids(carried), carried_masks, strict=True)):
            track = self._tracks.get(number)
            if row in used or number in numbers or track is None or track.hits < _CONFIRMED_HITS:
                continue
            hidden = np.count_nonzero(mask & cover) > _HIDDEN * np.count_nonzero(mask)
            if self._now - track.last_seen <= _COAST and not hidden:
                kept.append(row)
        missed = carried[kept]
        return missed[missed.has_pixels()]


def track_frames(
    frames: Generator[Detections, None, None], top_k: int | None = None
) -> Generator[Detections, None, None]:
    """Follow the objects of a video.

    Args:
        frames: what was found in each, with its picture; closed at the end, whatever ends it.
            Frames that do not know their time are a thirtieth of a second apart.
        top_k: see `Tracker`.
    """
    tracker = Tracker(top_k=top_k)
    with closing(frames):
        for number, found in enumerate(frames):
            seconds = number / 30 if found.seconds is None else found.seconds
            yield tracker.update(found.image, found, seconds)


def _averaged(found: Detections, carried: Detections, origins: dict[int, int]) -> Detections:
    """Mix detections with the carried objects that they are."""
    if not origins:
        return found
    new = torch.tensor(list(origins))
    old = carried[list(origins.values())]
    names = ["boxes", "scores", "box_scores"]
    grids = found.soft_masks.shape[1:], carried.soft_masks.shape[1:]
    if grids[0] == grids[1] and torch.equal(found.mask_frames[new], old.mask_frames):
        names.append("soft_masks")
    changed = {}
    for name in names:
        values = getattr(found, name).clone()
        values[new] = torch.lerp(getattr(old, name), values[new], _NEW)
        changed[name] = values
    return replace(found, **changed)


def _ids(found: Detections) -> list[int]:
    return [] if found.track_ids is None else found.track_ids.tolist()


def _confidences(tracks: list[_Track]) -> NDArray[np.float64]:
    """Return (N, 1) factors of 0.5 to 1, more for what was seen more often."""
    hits = np.array([track.hits for track in tracks], np.float64).reshape(-1, 1)
    return 0.5 + 0.5 * hits / (hits + _HALF_CONFIDENT_HITS)


def _stacked(tracks: list[_Track], name: str, like: Floats) -> Floats:
    rows = [getattr(track, name) for track in tracks]
    return np.array(rows, np.float32).reshape(len(rows), like.shape[1])


def _centres(boxes: Floats) -> Floats:
    return np.asarray((boxes[..., :2] + boxes[..., 2:]) / 2, np.float32)


def _sizes(boxes: Floats) -> Floats:
    """Return the diagonals of (N, 4) boxes."""
    return np.asarray(np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1), np.float32)
