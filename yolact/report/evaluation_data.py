"""Detections and objects by number: their boxes, their masks, and how much they overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.annotations import run_lengths
from data.sample import RunLengths
from yolact.evaluation.confusion import Integers
from yolact.evaluation.result_files import CocoResults

if TYPE_CHECKING:
    from pycocotools.coco import COCO

Shape = tuple[list[float], RunLengths]
"""A box x, y, width, height in pixels, and a mask."""


@dataclass(frozen=True)
class EvaluationData:
    """What was detected, and what is there.

    Attributes:
        results: the detections.
        truth: the objects, `CocoEvaluator.ground_truth`.
        masks: whether overlaps are those of masks, or of boxes.
    """

    results: CocoResults
    truth: COCO
    masks: bool

    def detected(self, numbers: Integers) -> list[Shape]:
        """Return the shapes of detections."""
        parts = (self.results.detections[number - 1] for number in numbers)
        return [(list(part.box), self.results.run_lengths(part)) for part in parts]

    def objects(self, numbers: Integers) -> list[Shape]:
        """Return the shapes of objects."""
        parts = (self.truth.anns[number] for number in numbers)
        return [(part["bbox"], self.truth.annToRLE(part)) for part in parts]

    def overlaps(self, detections: Integers, objects: Integers) -> NDArray[np.float64]:
        """Return the (D, G) overlaps of D detections and G objects of one image."""
        is_crowd = np.zeros(len(objects), np.bool_)
        return overlaps(self.detected(detections), self.objects(objects), is_crowd, self.masks)


def overlaps(
    detections: Iterable[Shape], objects: Iterable[Shape], is_crowd: NDArray[np.bool_], masks: bool
) -> NDArray[np.float64]:
    """Compute overlaps as COCO does.

    Args:
        detections: D of them.
        objects: G of them, in the same image.
        is_crowd: (G,); what lies in a crowd overlaps it fully.
        masks: compare masks, and not boxes.

    Returns:
        (D, G) in [0, 1].
    """
    found, actual = ([shape[masks] for shape in shapes] for shapes in (detections, objects))
    return run_lengths.overlaps(found, actual, is_crowd.tolist())
