"""Matches of detections and objects, taken from pycocotools in addition to its averages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

OBJECT = np.dtype(
    [
        ("number", np.int64),  # in `CocoEvaluator.ground_truth`
        ("image_id", np.int64),
        ("label", np.int64),
        ("area", np.float64),  # in pixels
        ("is_crowd", np.bool_),
        ("found_by", np.int64),  # the detection that found it at overlap .5, or 0
        ("overlaps", np.int64),  # number of the ten IoU thresholds at which it is found
    ]
)
DETECTION = np.dtype(
    [
        ("number", np.int64),  # in `CocoResults.detections`, counted from 1
        ("image_id", np.int64),
        ("label", np.int64),
        ("score", np.float64),
        ("found", np.int64),  # the object that it found at overlap .5, or 0
        ("is_ignored", np.bool_),  # because it lies in a crowd
    ]
)


Rows = NDArray[np.void]
"""Rows of `OBJECT` or of `DETECTION`."""


class Matches(NamedTuple):
    """The details of one scoring; M objects, N detections, C classes.

    Attributes:
        precision: (10 IoU thresholds, 101 recalls, C) in [0, 1]; -1 for a class without objects.
        objects: (M,) rows of `OBJECT`.
        detections: (N,) rows of `DETECTION`.
    """

    precision: NDArray[np.float64]
    objects: Rows
    detections: Rows


def collect_matches(scorer: COCOeval, category_ids: Sequence[int]) -> Matches:
    """Extract the matches of detections and objects from a scorer, which itself is large.

    Args:
        scorer: after `accumulate`.
        category_ids: label -> category id.
    """
    label_of = {category_id: label for label, category_id in enumerate(category_ids)}
    order = np.searchsorted(scorer.params.catIds, category_ids)
    objects: list[tuple[Any, ...]] = []
    detections: list[tuple[Any, ...]] = []
    for part in scorer.evalImgs:
        if part is None or part["aRng"] != scorer.params.areaRng[0]:  # the first is "all"
            continue
        place = (part["image_id"], label_of[part["category_id"]])
        areas = [scorer.cocoGt.anns[number]["area"] for number in part["gtIds"]]
        found_by, overlaps = part["gtMatches"][0], np.count_nonzero(part["gtMatches"], axis=0)
        of_objects = (part["gtIds"], areas, part["gtIgnore"], found_by, overlaps)
        objects += [(number, *place, *row) for number, *row in zip(*of_objects, strict=True)]
        found, is_ignored = part["dtMatches"][0], part["dtIgnore"][0]
        of_detections = (part["dtIds"], part["dtScores"], found, is_ignored)
        detections += [(number, *place, *row) for number, *row in zip(*of_detections, strict=True)]
    return Matches(
        scorer.eval["precision"][:, :, order, 0, -1],
        np.array(objects, OBJECT),
        np.array(detections, DETECTION),
    )
