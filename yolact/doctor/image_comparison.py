"""Detections and labels of one image, and their overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.annotations.run_lengths import decode, from_outline, measure, overlaps
from data.sample import Annotation, RunLengths

Overlaps = NDArray[np.float64]
"""(N, M) in [0, 1]: N detections, M labels."""

_MET = 0.5  # minimum overlap of a detection and the label that it has found


class Detection(NamedTuple):
    """A detection.

    Attributes:
        name: name of its class.
        score: in [0, 1].
        box: x, y, width, height in pixels.
        mask: in pixels of the image.
    """

    name: str
    score: float
    box: list[float]
    mask: RunLengths


class Label(NamedTuple):
    """An annotated object.

    Attributes:
        name: name of its class.
        place: index among the annotations of its image.
        box: x, y, width, height in pixels.
        mask: in pixels of the image.
    """

    name: str
    place: int
    box: list[float]
    mask: RunLengths


@dataclass(frozen=True)
class ImageComparison:
    """One image with N detections, the best first, and M labels.

    Attributes:
        split: split of the dataset.
        image: index of the image in the split.
        image_hw: height and width in pixels.
        detections: the N detections.
        labels: the M labels, without crowds.
        crowds: labels that are crowds.
    """

    split: str
    image: int
    image_hw: tuple[int, int]
    detections: tuple[Detection, ...]
    labels: tuple[Label, ...]
    crowds: tuple[Label, ...]

    @cached_property
    def is_same(self) -> NDArray[np.bool_]:
        """(N, M) whether detection and label are of one class."""
        same = [
            [detection.name == label.name for label in self.labels] for detection in self.detections
        ]
        return np.array(same, np.bool_).reshape(len(self.detections), len(self.labels))

    @cached_property
    def mask_overlaps(self) -> Overlaps:
        """Intersection over union of masks."""
        return overlaps([s.mask for s in self.detections], [x.mask for x in self.labels])

    @cached_property
    def overlaps(self) -> Overlaps:
        """The larger of the overlaps of masks and of boxes, as a model's masks are coarse."""
        boxes = overlaps([s.box for s in self.detections], [x.box for x in self.labels])
        return np.maximum(self.mask_overlaps, boxes)

    @cached_property
    def covered(self) -> Overlaps:
        """The share of each detection's mask that lies in each label's."""
        labels = [label.mask for label in self.labels]
        return overlaps([s.mask for s in self.detections], labels, [True] * len(labels))

    @cached_property
    def is_in_crowd(self) -> NDArray[np.bool_]:
        """(N,) whether most of a detection lies in a crowd of its class."""
        crowds = [crowd.mask for crowd in self.crowds]
        shares = overlaps([s.mask for s in self.detections], crowds, [True] * len(crowds))
        same = [
            [detection.name == crowd.name for crowd in self.crowds] for detection in self.detections
        ]
        return np.array((shares * np.array(same).reshape(shares.shape) >= _MET).any(axis=1))

    @cached_property
    def matches(self) -> dict[int, int]:
        """Detection -> the label of its class that it has found; each label once."""
        found: dict[int, int] = {}
        free = np.ones(len(self.labels), np.bool_)
        for number in range(len(self.detections)):
            fits = self.overlaps[number] * self.is_same[number] * free
            if len(fits) and fits.max() >= _MET:
                found[number] = int(fits.argmax())
                free[found[number]] = False
        return found

    def relative_side(self, label: int) -> float:
        """Return the square root of a label's area relative to the image's."""
        height, width = self.image_hw
        return float((measure(self.labels[label].mask)[1] / (height * width)) ** 0.5)


def labels_of(
    annotations: Sequence[Annotation], names: dict[int, str], image_hw: tuple[int, int]
) -> tuple[tuple[Label, ...], tuple[Label, ...]]:
    """Return the labels of an image, and its crowds.

    Args:
        annotations: of the image.
        names: category id -> class name.
        image_hw: height and width of the image.
    """
    kinds: tuple[list[Label], list[Label]] = [], []
    for place, part in enumerate(annotations):
        x, y, w, h = part["bbox"]
        outline = part["segmentation"] or [[x, y, x + w, y, x + w, y + h, x, y + h]]
        mask = from_outline(outline, image_hw)
        label = Label(names[part["category_id"]], place, part["bbox"], mask)
        kinds[bool(part["iscrowd"])].append(label)
    return tuple(kinds[0]), tuple(kinds[1])


def aligned_overlap(one: RunLengths, other: RunLengths) -> float:
    """Return the overlap of two masks after moving one onto the other.

    It is moved so that an edge or the centre of its box meets the other's, in both directions: if
    one of the masks is cut off at a border of the image, the uncut edges determine the position.
    """
    parts = [_cut(decode(mask, (0, 0))) for mask in (one, other)]
    size = np.max([part.shape for part in parts], axis=0)
    best = 0.0
    for down in (0.0, 0.5, 1.0):
        for right in (0.0, 0.5, 1.0):
            laid = [_laid(part, size, (down, right)) for part in parts]
            union = int(np.count_nonzero(laid[0] | laid[1]))
            best = max(best, int(np.count_nonzero(laid[0] & laid[1])) / max(union, 1))
    return best


def _cut(bitmap: NDArray[np.uint8]) -> NDArray[np.uint8]:
    x, y, width, height = cv2.boundingRect(bitmap)
    return bitmap[y : y + height, x : x + width]


def _laid(
    part: NDArray[np.uint8], size: NDArray[np.int64], shares: tuple[float, float]
) -> NDArray[np.uint8]:
    """Place a mask in a larger array: at its start for share 0, at its end for 1."""
    field = np.zeros(size, np.uint8)
    (height, width), (down, right) = part.shape, shares
    top, left = round((size[0] - height) * down), round((size[1] - width) * right)
    field[top : top + height, left : left + width] = part
    return field
