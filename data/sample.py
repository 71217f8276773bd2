"""What a dataset is: annotated images by index, and the classes of their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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


class Samples(Protocol):
    """What a dataset has to offer to be trained on."""

    @property
    def names(self) -> tuple[str, ...]:
        """One class name for each label value."""
        ...

    def __len__(self) -> int:
        """Count the images."""
        ...

    def sample(self, index: int) -> Sample:
        """Load one annotated image."""
        ...
