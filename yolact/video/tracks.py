"""Objects tracked from frame to frame: lasting ids, and masks that do not flicker.

The objects of a frame are carried to the next one by the optical flow. A detection that overlaps
one there is the same object; an object that was out of sight is recognised by its colours, near its
predicted place.
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
"""An object that is out of sight for longer gets a new id."""

_LEAST_OVERLAP = 0.15
_OTHER_CLASS = 0.9  # factor on the overlap of objects of different classes
_LEAST_SIMILARITY = 0.5
_SIMILARITY_MARGIN = 0.15  # a detection this much more similar to another track changes to it
_DUPLICATE_SIMILARITY = 0.8  # similarity of two detections of one object
_TENTATIVE = 0.5  # seconds in which a new object can turn out to be a lost one
_CONFIRMED_HITS = 3  # detections from which on an object is not taken for noise
_HALF_CONFIDENT_HITS = 15  # detections for half of the maximum confidence
_COAST = 0.12  # seconds for which a missed object is shown where the flow takes it
_HIDDEN = 0.4  # covered share of an object, from which on it counts as hidden, not missed
_NEW = 0.5  # weight of a new detection in an average


@dataclass
class _Track:
    """The state of an object, in pixels and seconds; velocity is relative to the background."""

    label: int
    histogram: Floats
    box: Floats
    first_seen: float
    last_seen: float
    velocity: Floats
    hits: int = 0

    def predict(self, drift: Floats, passed: float) -> None:
        """Move on at the same velocity, plus the `drift` of the background."""
        self.box = self.box + np.tile(drift + self.velocity * passed, 2)

    def update(self, histogram: Floats, box: Floats, label: int, now: float, trust: float) -> None:
        """Update the track with a detection.

        Args:
            histogram: its colours.
            box: its place.
            label: its class.
            now: seconds.
            trust: its overlap with the expected place. A detection that overlaps little may be a
                part of the object, or include another one, and does not show its appearance.
        """
        passed = now - self.last_seen
        if passed > 0:
            self.velocity = self.velocity + 0.3 * (_centres(box) - _centres(self.box)) / passed
        self.histogram = self.histogram + 0.4 * max(trust - 0.5, 0.0) * (histogram - self.histogram)
        self.box, self.label, self.last_seen, self.hits = box, label, now, self.hits + 1

    def similarity(self, histogram: Floats) -> float:
        """Compare a detection with the track, see `histogram_similarity`."""
        return float(histogram_similarity(self.histogram[None], histogram[None])[0, 0])

    def is_tentative(self, now: float) -> bool:
        """Tell whether the object may still turn out to be a lost one, whose id it then gets."""
        return now - self.first_seen < _TENTATIVE

    def is_lost(self, now: float) -> bool:
        """Tell whether the object has been out of sight for too long."""
        return now - self.last_seen > (LOST_SECONDS if self.hits >= _CONFIRMED_HITS else _TENTATIVE)


class _FrameDetections(NamedTuple):
    """The N detections of a frame: masks on a small grid, colours and boxes."""

    masks: Masks  # (N, h, w)
    histograms: Floats  # (N, 512)
    boxes: Floats  # (N, 4)
    labels: NDArray[np.int64]


class Tracker:
    """Gives the objects of a video their ids, frame after frame, and smooths their masks.

    Its memory does not grow with the length of a video.

    Args:
        smooth: average masks, boxes and scores along the flow, and bridge objects that are missed
            for a moment; False only adds ids.
        given: the highest id that earlier frames have used.
        top_k: maximum number of objects per frame, including missed ones; None for all.

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
        """Process the next frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            detections: N objects found in it, on the CPU.
            seconds: its time in the video.

        Returns:
            These objects with their `track_ids`, highest score first; with `smooth`, averaged and
            including objects that are missed for a moment.
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
        """Carry all tracks to a new frame, and delete those that have been lost for too long.

        An object of the last frame is not lost, however long ago that frame was.
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
        """Match detections to carried objects: position of a detection -> that of its object."""
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
            numbers: ids of the detections that were matched by overlap. An id can change if it is
                tentative, or if the detection looks far more like a lost object, which has come out
                from behind another.
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
        """Update the tracks, and begin new ones; return the ids of the detections.

        Args:
            numbers: position of a detection -> its id, if known.
            current: all detections.
            trust: position -> overlap with the expected place.
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
        """Return the carried objects that should have been found but were not."""
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
    """Track the objects of a video.

    Args:
        frames: detections of each frame, with its picture; always closed at the end. Frames without
            a time are taken to be a thirtieth of a second apart.
        top_k: see `Tracker`.
    """
    tracker = Tracker(top_k=top_k)
    with closing(frames):
        for number, found in enumerate(frames):
            seconds = number / 30 if found.seconds is None else found.seconds
            yield tracker.update(found.image, found, seconds)


def _averaged(found: Detections, carried: Detections, origins: dict[int, int]) -> Detections:
    """Average detections with the carried objects that they match."""
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
    """Return (N, 1) factors of 0.5 to 1, higher for objects that were seen more often."""
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
