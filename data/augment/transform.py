"""Augmented network inputs and targets from samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.images import Image, to_tensor
from data.options import Switches
from data.sample import Sample, has_mask
from layers.structures import Target

from .colours import distort_colours
from .placement import Placement, draw_placement, place_whole
from .rasterise import rasterise

PIXEL_MEAN = (123.68, 116.78, 103.94)
"""ImageNet's mean colour, RGB: the fill of the canvas around a shrunken image."""

_DRAWS = 10  # attempts to find an augmentation that keeps an object


LEARNED_SIDE = 4
"""Minimum width and height of a trained object, in pixels of the input."""


@dataclass(frozen=True)
class TrainTransform:
    """The augmentation of the original YOLACT (SSD's), which resamples pixels only once.

    Attributes:
        image_size: S, the side of the network input.
        switches: which augmentations.
        fill: RGB colour of the canvas, 0..255.
        min_object_size: drop objects narrower or lower than this many pixels of the input.
    """

    image_size: int
    switches: Switches = Switches()
    fill: tuple[float, float, float] = PIXEL_MEAN
    min_object_size: float = LEARNED_SIDE

    def __call__(self, sample: Sample, rng: np.random.Generator) -> tuple[Tensor, Target]:
        """Augment one sample.

        Returns:
            The (3, S, S) uint8 RGB image, and its target with the crowds last.
        """
        placement, kept = self.place(sample, rng)
        image = self.render(sample, placement, rng)
        return to_tensor(image), place_target(sample, placement, kept)

    def place(self, sample: Sample, rng: np.random.Generator) -> tuple[Placement, NDArray[np.intp]]:
        """Draw a random placement that keeps an object; after `_DRAWS` attempts, place unaugmented.

        Returns:
            The placement and the indices of the objects that it keeps.
        """
        image_hw, objects = _image_hw(sample), sample.boxes[~sample.is_crowd]
        for _ in range(_DRAWS):
            placement = draw_placement(objects, image_hw, self.image_size, self.switches, rng)
            kept = _visible_objects(sample, placement, self.min_object_size)
            if not len(objects) or not sample.is_crowd[kept].all():
                return placement, kept
        placement = place_whole(image_hw, self.image_size)
        return placement, _visible_objects(sample, placement, self.min_object_size)

    def render(self, sample: Sample, placement: Placement, rng: np.random.Generator) -> Image:
        """Resize the pixels and distort their colours; the fill colour does not change.

        Colours come after the resize, so that their cost does not depend on the image's size.

        Returns:
            (S, S, 3) uint8 RGB.
        """
        piece = placement.piece(sample.image)
        if self.switches.photometric:
            piece = distort_colours(piece, rng)
        return placement.canvas(piece, self.fill)


def place_target(sample: Sample, placement: Placement, kept: NDArray[np.intp]) -> Target:
    """Move K kept objects of a sample to the canvas: boxes (K, 4), masks (K, S, S)."""
    side = placement.image_size
    masks = np.zeros((len(kept), side, side), dtype=np.bool_)
    for mask, index in zip(masks, kept, strict=True):
        rasterise(sample.segmentations[index], _image_hw(sample), placement, mask)
    return Target(
        boxes=torch.from_numpy(placement.boxes(sample.boxes[kept])),
        labels=torch.from_numpy(sample.labels[kept]),
        masks=torch.from_numpy(masks),
        is_crowd=torch.from_numpy(sample.is_crowd[kept]),
        has_mask=torch.tensor([has_mask(sample.segmentations[i]) for i in kept], dtype=torch.bool),
    )


def _visible_objects(
    sample: Sample, placement: Placement, min_object_size: float
) -> NDArray[np.intp]:
    """Return the indices of large enough objects with a visible centre, and of such crowds."""
    boxes = placement.boxes(sample.boxes)
    large = (boxes[:, 2:] - boxes[:, :2] >= min_object_size).all(axis=1)
    kept = np.flatnonzero(large & (placement.holds_centres(sample.boxes) | sample.is_crowd))
    return kept[np.argsort(sample.is_crowd[kept], kind="stable")]  # crowds last


def _image_hw(sample: Sample) -> tuple[int, int]:
    return sample.image.shape[0], sample.image.shape[1]
