"""A detector whose answers are known: it finds the red and the green rectangles of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.images import Image
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds

NAMES = ("red", "green")
WHOLE, CUT = 0.9, 0.6
"""Scores of what lies clear of the borders of its image, and of what does not."""

Box = tuple[int, int, int, int]


def drawing(image_hw: tuple[int, int], *rectangles: tuple[int, Box]) -> Image:
    """Draw rectangles, each of a label and xyxy in pixels."""
    image = np.zeros((*image_hw, 3), np.uint8)
    for label, (x1, y1, x2, y2) in rectangles:
        image[y1:y2, x1:x2, label] = 255
    return image


@dataclass
class RectangleDetector:
    """Finds each connected patch of a colour; a cell of its masks is a pixel.

    Attributes:
        masks: False finds boxes alone.
        reach: pixels between patches that it takes for one.
        most_at_once: pixels of the largest batch so far.
        model: what is asked of a predictor's.
    """

    masks: bool = True
    reach: int = 0
    workers: int = 2
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    most_at_once: int = 0
    model: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(class_names=NAMES, score_threshold=0.3)
    )

    def for_many(self) -> RectangleDetector:
        return self

    def segment(self, images: Sequence[Image], thresholds: Thresholds) -> list[Detections]:
        self.most_at_once = max(self.most_at_once, sum(image[..., 0].size for image in images))
        return [thresholds.select(self.find(image)) for image in images]

    def find(self, image: Image) -> Detections:
        height, width = image.shape[:2]
        found = [(label, *each) for label in (0, 1) for each in self.patches(image[..., label])]
        boxes = torch.tensor([box for _, box, _ in found], dtype=torch.float32).reshape(-1, 4)
        borders = torch.tensor((0.0, 0.0, width, height))
        scores = torch.where((boxes == borders).any(dim=1), CUT, WHOLE)
        soft_masks = torch.zeros((len(found), 1, 1))
        if self.masks and found:
            soft_masks = torch.from_numpy(np.stack([mask for *_, mask in found])).float()
        everything = Detections(
            boxes=boxes,
            scores=scores,
            labels=torch.tensor([label for label, *_ in found], dtype=torch.int64),
            soft_masks=soft_masks,
            mask_frames=torch.tensor((0.0, 0.0, width, height)).expand(len(found), 4),
            box_scores=scores,
            image_hw=(height, width),
            class_names=NAMES,
        )
        return everything.sort()

    def patches(self, plane: NDArray[np.uint8]) -> list[tuple[Box, NDArray[np.bool_]]]:
        """Return the box of each patch, and its mask in the whole image."""
        shown = (plane > 127).astype(np.uint8)
        kernel = np.ones((1 + 2 * self.reach, 1 + 2 * self.reach), np.uint8)
        closed = cv2.morphologyEx(shown, cv2.MORPH_CLOSE, kernel)
        count, numbers, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=4)
        corners = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist()]
        return [(corners[number - 1], numbers == number) for number in range(1, count)]


class Recorder:
    """An image that can only be read in parts, and notes how large they are."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image, self.dtype, self.shape = image, image.dtype, image.shape
        self.largest = 0

    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[np.uint8]:
        part = self.image[index]
        self.largest = max(self.largest, *part.shape[:2])
        return part
