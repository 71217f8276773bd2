"""Outcomes of every object and every detection at one score threshold.

Within a class, pycocotools decides: a detection with an IoU of 0.5 or more with an object, of masks
or boxes, has found it. Remaining detections may be in the right place with the wrong class:
remaining pairs with an IoU of 0.5 or more are confusions, matched by highest IoU first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .matches import Matches, Rows

Integers = NDArray[np.int64]
Overlaps = Callable[[Integers, Integers], NDArray[np.float64]]

MIN_OVERLAP = 0.5


class ImageErrors(NamedTuple):
    """The errors in one image."""

    image_id: int
    missed: int
    false: int


@dataclass(frozen=True)
class Outcome:
    """M objects and N detections, crowds left out, C classes.

    Attributes:
        score_threshold: minimum score of the detections.
        num_classes: C.
        objects: (M,) rows of `matches.OBJECT`.
        detected_labels: (M,) the label that each object was detected as, C if it was missed.
        detections: (N,) rows of `matches.DETECTION`.
        true_labels: (N,) the label of the object that each detection shows, C if there is none.
    """

    score_threshold: float
    num_classes: int
    objects: Rows
    detected_labels: Integers
    detections: Rows
    true_labels: Integers

    @property
    def is_found(self) -> NDArray[np.bool_]:
        """(M,) whether an object was detected with its true class."""
        return np.asarray(self.detected_labels == self.objects["label"])

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """(N,) whether a detection found an object of its class."""
        return np.asarray(self.true_labels == self.detections["label"])

    @property
    def confusion(self) -> Integers:
        """(C+1, C+1) counts, [true class or background, detected class or missed]."""
        side = self.num_classes + 1
        counts = np.zeros((side, side), np.int64)
        np.add.at(counts, (self.objects["label"], self.detected_labels), 1)
        false = self.true_labels == self.num_classes
        np.add.at(counts, (self.num_classes, self.detections["label"][false]), 1)
        return counts

    def errors(self) -> list[ImageErrors]:
        """Count the errors in every image that has any, the worst image first.

        An object detected as something else is both missed and a false detection.
        """
        missed = self.objects["image_id"][~self.is_found]
        false = self.detections["image_id"][~self.is_correct]
        images = np.unique(np.concatenate((missed, false)))
        counts = [
            np.bincount(np.searchsorted(images, x), minlength=len(images)) for x in (missed, false)
        ]
        rows = [ImageErrors(*map(int, row)) for row in zip(images, *counts, strict=True)]
        return sorted(rows, key=lambda row: -row.missed - row.false)


def match_outcome(matches: Matches, score_threshold: float, overlaps: Overlaps) -> Outcome:
    """Classify objects and detections as found, missed, false or confused.

    Args:
        matches: matches of boxes or of masks.
        score_threshold: detections with lower scores do not count.
        overlaps: (D,) detection numbers, (G,) object numbers -> (D, G) overlaps in [0, 1].
    """
    num_classes = matches.precision.shape[-1]
    objects = matches.objects[~matches.objects["is_crowd"]]
    detections = matches.detections
    kept = (detections["score"] >= score_threshold) & ~detections["is_ignored"]
    detections = detections[kept]
    found = np.isin(objects["found_by"], detections["number"])
    detected_labels = np.where(found, objects["label"], num_classes)
    true_labels = np.where(detections["found"] > 0, detections["label"], num_classes)
    missed, false = (np.flatnonzero(x == num_classes) for x in (detected_labels, true_labels))
    for image_id in np.intersect1d(objects["image_id"][missed], detections["image_id"][false]):
        rows = false[detections["image_id"][false] == image_id]
        columns = missed[objects["image_id"][missed] == image_id]
        overlap = overlaps(detections["number"][rows], objects["number"][columns])
        for row, column in _closest_pairs(overlap):
            true_labels[rows[row]] = objects["label"][columns[column]]
            detected_labels[columns[column]] = detections["label"][rows[row]]
    return Outcome(score_threshold, num_classes, objects, detected_labels, detections, true_labels)


class SizeRecall(NamedTuple):
    """The share of the objects of one size range that is found.

    Attributes:
        sides: square roots of the smallest and the largest area, in pixels.
        objects: number of these objects, at least 1.
        found: share found at the score threshold, at IoU .5.
        findable: share found at any score, at IoU .5.
        recall: share found at any score, averaged over IoU .5 to .95; COCO's average recall.
    """

    sides: tuple[float, float]
    objects: int
    found: float
    findable: float
    recall: float


def recall_by_size(outcome: Outcome) -> list[SizeRecall]:
    """Group the objects by size, the smallest first; COCO's limits are among the bounds."""
    sides = np.sqrt(np.maximum(outcome.objects["area"], 0))
    rows = []
    for low, high in pairwise((0, 16, 32, 64, 96, 128, 192, 256, 384, math.inf)):
        here = (sides >= low) & (sides < high)
        objects, found = outcome.objects[here], outcome.is_found[here]
        shares = (found, objects["found_by"] > 0, objects["overlaps"] / 10)
        if len(objects):
            means = (float(share.mean()) for share in shares)
            rows.append(SizeRecall((low, high), len(objects), *means))
    return rows


def best_threshold(matches: Matches) -> float:
    """Return the score threshold with the highest F1 of all classes together, at IoU .5."""
    objects = np.count_nonzero(~matches.objects["is_crowd"])
    detections = matches.detections[~matches.detections["is_ignored"]]
    detections = detections[np.argsort(-detections["score"], kind="stable")]
    right = np.cumsum(detections["found"] > 0)
    if not right.any():
        return 0.5
    f1 = 2 * right / (np.arange(1, len(right) + 1) + objects)
    return math.floor(100 * float(detections["score"][np.argmax(f1)])) / 100


def _closest_pairs(overlap: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """Yield row and column of pairs that overlap enough, best first; use each row, column once."""
    overlap = overlap.copy()
    while overlap.max() >= MIN_OVERLAP:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        yield int(row), int(column)
        overlap[row], overlap[:, column] = 0, 0
