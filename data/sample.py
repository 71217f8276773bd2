"""The dataset protocol: annotated images by index, and the classes of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from .classes import Categories
from .images import Image

if TYPE_CHECKING:
    from pycocotools.coco import COCO


class RunLengths(TypedDict):
    """A bitmap in COCO's compressed run lengths: `size` is height and width, `counts` a text."""

    size: list[int]
    counts: str


Polygons = list[list[float]]
"""Flat x, y, x, y, ... lists in pixels; a pixel is inside if it is inside any of them. An empty
list stands for an object of which only the box is known."""

Outline = Polygons | RunLengths | NDArray[np.bool_]
"""The outline of an object; an array is an (H, W) bitmap."""


def has_mask(outline: Outline) -> bool:
    """Tell whether an object has an outline, and not only a box."""
    return not isinstance(outline, list) or bool(outline)


class ImageInfo(TypedDict):
    """An entry of COCO's `images`."""

    id: int
    file_name: str
    height: int
    width: int


class Annotation(TypedDict):
    """An entry of COCO's `annotations`; `bbox` is x, y, width, height in pixels."""

    id: int
    image_id: int
    category_id: int
    segmentation: Polygons | RunLengths
    bbox: list[float]
    area: float
    iscrowd: int


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

    image: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    segmentations: tuple[Outline, ...]
    image_id: int


class Dataset(Protocol):
    """Annotated images, to train on, to score against, to describe."""

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
        """The ground truth for pycocotools."""
        ...

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample:
        """Load one annotated image."""
        ...

    def image_info(self, index: int) -> ImageInfo:
        """Describe an image without decoding it."""
        ...

    def annotations(self, index: int) -> list[Annotation]:
        """Return the objects of an image in COCO's format."""
        ...
