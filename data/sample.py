"""What a dataset is: annotated images by index, and the classes of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from .classes import Categories

Segmentation = Any
"""COCO polygons (list of flat x, y lists), COCO run lengths (dict), or an (H, W) bool bitmap."""


@dataclass(frozen=True)
class Sample:
    """One annotated image as it is stored, M objects.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (M, 4) float32 xyxy in pixels.
        labels: (M,) int64, 0-based.
        is_crowd: (M,) bool.
        segmentations: M outlines in pixels of the image.
        image_id: the dataset's own identifier.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    segmentations: tuple[Segmentation, ...]
    image_id: int


class Dataset(Protocol):
    """The one protocol of every dataset: to train on, to score against, to describe."""

    @property
    def categories(self) -> Categories:
        """The classes; the position of a class is its label."""
        ...

    @property
    def image_ids(self) -> Sequence[int]:
        """Index -> the dataset's own identifier of an image."""
        ...

    @property
    def coco(self) -> COCO:
        """The ground truth as pycocotools sees it."""
        ...

    def __len__(self) -> int:
        """Count the images."""
        ...

    def sample(self, index: int) -> Sample:
        """Load one annotated image."""
        ...

    def image_info(self, index: int) -> dict[str, Any]:
        """Return `id`, `file_name`, `height` and `width` of an image, without decoding it."""
        ...

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """Return the objects of an image as entries of COCO's `annotations`."""
        ...
