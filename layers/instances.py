"""Segmented objects with compact masks: what a model finds, or what an annotator drew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .native import Window
from .paste import bitmap, has_pixels, mask_window, paste_masks, pasted_parts, tint, tint_all
from .structures import TensorGroup

InstancesT = TypeVar("InstancesT", bound="Instances")


@dataclass(frozen=True, repr=False, eq=False)
class Instances(TensorGroup):
    """N segmented objects of one image, highest score first.

    The masks are kept compactly: one small soft mask per object and the image region ("frame") that
    it covers. Full-size masks are made only by `.masks`; `.crop` and `.tint` compute only the
    window around one mask.

    Attributes:
        boxes: (N, 4) float xyxy in image pixels.
        scores: (N,) in [0, 1]; for presets with mask re-scoring, class probability x predicted IoU.
        labels: (N,) int64, 0-based.
        soft_masks: (N, h, w) in [0, 1]; YOLACT keeps its prototype grid.
        mask_frames: (N, 4) xyxy in image pixels: the region that each soft mask covers.
        box_scores: (N,) class probabilities before mask re-scoring.
        image_hw: height and width of the image in pixels.
        class_names: one name for each label value.
        crop_to_boxes: crop each mask, after upsampling, to its box rounded to whole pixels.
        track_ids: (N,) int64, the same for an object in all frames of a tracked video; else None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    soft_masks: Tensor
    mask_frames: Tensor
    box_scores: Tensor
    image_hw: tuple[int, int]
    class_names: tuple[str, ...] = ()
    crop_to_boxes: bool = False
    track_ids: Tensor | None = None

    def __iter__(self: InstancesT) -> Iterator[InstancesT]:
        """Yield the objects one at a time, each a group of length one."""
        return (self[i] for i in range(len(self)))

    @property
    def masks(self) -> Tensor:
        """Full-size masks, (N, H, W) bool, made on each access."""
        return paste_masks(self.soft_masks, self.mask_frames, self.image_hw, self._bounds)

    @property
    def _bounds(self) -> Tensor | None:
        return self.boxes if self.crop_to_boxes else None

    @property
    def areas(self) -> Tensor:
        """Number of pixels of each mask, (N,) int64."""
        if self.soft_masks.device.type != "cpu":
            counts = torch.zeros_like(self.labels)
            masks = self.soft_masks, self.mask_frames, self.image_hw, self._bounds
            for objects, _, inside in pasted_parts(*masks):
                counts[objects] += inside.sum(dim=(1, 2))
            return counts
        pixels = [int(self.crop(i)[1].sum()) for i in range(len(self))]  # sync: on the CPU
        return torch.tensor(pixels, dtype=torch.int64, device="cpu")

    def window(self, index: int) -> Window:
        """Return a window x1, y1, x2, y2 in whole image pixels that contains one mask.

        It is hardly larger than the mask, and (0, 0, 0, 0) for an empty mask.
        """
        bounds = self.boxes[index] if self.crop_to_boxes else None
        return mask_window(self.soft_masks[index], self.mask_frames[index], self.image_hw, bounds)

    def crop(self, index: int) -> tuple[Window, Tensor]:
        """Return the window of one mask, and the (y2 - y1, x2 - x1) bool mask in it."""
        window = self.window(index)
        return window, bitmap(self.soft_masks[index], self.mask_frames[index], window)

    def has_pixels(self) -> Tensor:
        """Tell which objects have a mask with at least one pixel, (N,) bool."""
        if self.soft_masks.device.type != "cpu":
            return self.areas > 0
        bounds = self.boxes if self.crop_to_boxes else [None] * len(self)
        masks = zip(self.soft_masks, self.mask_frames, bounds, strict=True)
        filled = [has_pixels(mask, frame, self.image_hw, bound) for mask, frame, bound in masks]
        return torch.tensor(filled, dtype=torch.bool, device="cpu")

    def tint(
        self, canvas: NDArray[np.uint8], index: int, color: tuple[int, int, int], alpha: float
    ) -> None:
        """Blend a colour into a canvas where one mask is.

        Args:
            canvas: (H, W, 3) uint8 of the image's size, changed in place.
            index: index of the object.
            color: values for the canvas's three channels.
            alpha: weight of the colour, 0 to 1.

        Raises:
            ValueError: the mask leaves the canvas, because the canvas is not of the image's size.
        """
        soft_mask, frame = self.soft_masks[index], self.mask_frames[index]
        tint(canvas, soft_mask, frame, self.window(index), color, alpha)

    def tinted(
        self, picture: Tensor, colors: Sequence[tuple[int, int, int]], alpha: float
    ) -> Tensor:
        """Blend colours into a copy of a picture where the masks are, the first object's on top.

        Uses tensor operators, for pictures that stay on a GPU.

        Args:
            picture: (H, W, 3) uint8 of the image's size, on the masks' device.
            colors: N colours, each with values for the picture's three channels.
            alpha: weight of the colour, 0 to 1.
        """
        bounds = None if self._bounds is None else self._bounds.flip(0)
        worst_first = self.soft_masks.flip(0), self.mask_frames.flip(0), colors[::-1], alpha
        return tint_all(picture, *worst_first, bounds)

    def names(self) -> list[str]:
        """Return the class name of every object, such as "class 3" for a label without a name."""
        known = dict(enumerate(self.class_names))
        return [known.get(label, f"class {label}") for label in self.labels.tolist()]  # sync: texts
