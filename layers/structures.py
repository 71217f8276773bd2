"""What flows between the parts: predictions, targets, candidates and detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .masks import Window
from .paste import bitmap, encode_bitmap, mask_window, paste_masks, tint

Index = int | slice | Tensor | NDArray[Any] | Sequence[int]
Part = TypeVar("Part", "Target", "Candidates", "Detections")


class Predictions(NamedTuple):
    """Raw outputs of a network for B images, P anchors, C foreground classes and K prototypes.

    Attributes:
        class_logits: (B, P, C+1) before softmax; index 0 is background.
        box_deltas: (B, P, 4) encoded offsets from the anchors.
        coefficients: (B, P, K) mask coefficients after tanh, in [-1, 1].
        prototypes: (B, K, Hp, Wp) prototype masks after ReLU.
        anchors: (P, 4) cxcywh, relative to the image side.
        semantic_logits: (B, C, h, w) in training mode, else None.
    """

    class_logits: Tensor
    box_deltas: Tensor
    coefficients: Tensor
    prototypes: Tensor
    anchors: Tensor
    semantic_logits: Tensor | None = None


@dataclass(frozen=True)
class Target:
    """The ground truth of one S x S training image with M objects.

    Attributes:
        boxes: (M, 4) xyxy in pixels of the network input.
        labels: (M,) int64, 0-based foreground classes.
        masks: (M, S, S) bool.
        is_crowd: (M,) bool; crowds are ignored regions, never objects to learn.

    Raises:
        ValueError: the parts disagree about M.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    is_crowd: Tensor

    def __post_init__(self) -> None:
        """Check lengths at birth."""
        _check_lengths(self)

    def __len__(self) -> int:
        """Count the objects, crowds included."""
        return len(self.labels)

    def __getitem__(self, index: Index) -> Target:
        """Select objects by index, slice, or boolean mask."""
        return _select(self, index)

    def to(self, device: torch.device | str) -> Target:
        """Move every tensor to a device."""
        return _move(self, device)

    def pin_memory(self) -> Target:
        """Pin every tensor, for the loader's asynchronous copies."""
        return Target(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


@dataclass(frozen=True)
class Candidates:
    """The N detections of one image that survived non-maximum suppression, masks not assembled yet.

    Attributes:
        boxes: (N, 4) xyxy relative to the image, unclipped.
        scores: (N,) class probabilities.
        labels: (N,) int64, 0-based.
        coefficients: (N, K) mask coefficients.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    coefficients: Tensor

    def __post_init__(self) -> None:
        """Check lengths at birth."""
        _check_lengths(self)

    def __len__(self) -> int:
        """Count the candidates."""
        return len(self.scores)

    def __getitem__(self, index: Index) -> Candidates:
        """Select candidates by index, slice, or boolean mask."""
        return _select(self, index)


@dataclass(frozen=True)
class Detections:
    """N segmented objects of one image, highest score first.

    The masks are kept compactly: one small soft mask per object and the image region ("frame") that
    it covers. Full-size masks are made only when `.masks` asks for them; `.crop`, `.tint` and
    `.run_lengths` look at one mask's own window.

    Attributes:
        boxes: (N, 4) float xyxy in image pixels.
        scores: (N,) in [0, 1]; for presets with mask re-scoring, class probability x predicted IoU.
        labels: (N,) int64, 0-based.
        soft_masks: (N, h, w) in [0, 1]; YOLACT keeps its prototype grid.
        mask_frames: (N, 4) xyxy in image pixels: the region that each soft mask covers.
        box_scores: (N,) class probabilities before mask re-scoring.
        image_hw: height and width of the image in pixels.
        class_names: one name for each label value.
        crop_to_boxes: cut each mask, after upsampling, where its box ends, rounded to whole pixels.
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

    def __post_init__(self) -> None:
        """Check lengths at birth."""
        _check_lengths(self)

    def __len__(self) -> int:
        """Count the detections."""
        return len(self.scores)

    def __getitem__(self, index: Index) -> Detections:
        """Select detections by index, slice, or boolean mask."""
        return _select(self, index)

    def __iter__(self) -> Iterator[Detections]:
        """Yield the detections one at a time, each a `Detections` of length one."""
        return (self[i] for i in range(len(self)))

    @property
    def masks(self) -> Tensor:
        """Full-size masks, (N, H, W) bool, made on each access."""
        bounds = self.boxes if self.crop_to_boxes else None
        return paste_masks(self.soft_masks, self.mask_frames, self.image_hw, bounds)

    def window(self, index: int) -> Window:
        """Return a window x1, y1, x2, y2 in whole image pixels that holds one mask.

        It is little larger than the mask, and (0, 0, 0, 0) for an empty one.
        """
        bounds = self.boxes[index] if self.crop_to_boxes else None
        return mask_window(self.soft_masks[index], self.mask_frames[index], self.image_hw, bounds)

    def crop(self, index: int) -> tuple[Window, Tensor]:
        """Return the window of one mask, and the (y2 - y1, x2 - x1) bool mask in it."""
        window = self.window(index)
        return window, bitmap(self.soft_masks[index], self.mask_frames[index], window)

    def tint(
        self, canvas: NDArray[np.uint8], index: int, color: tuple[int, int, int], alpha: float
    ) -> None:
        """Blend a colour into a canvas where one mask is.

        Args:
            canvas: (H, W, 3) uint8 of the image's size, changed in place.
            index: of the detection.
            color: of the canvas's three channels.
            alpha: share of the colour.

        Raises:
            ValueError: the mask lies outside the canvas, which is of another size than the image.
        """
        soft_mask, frame = self.soft_masks[index], self.mask_frames[index]
        tint(canvas, soft_mask, frame, self.window(index), color, alpha)

    def run_lengths(self, index: int) -> str:
        """Return COCO's compressed run lengths of one full-size mask, as pycocotools does."""
        window, inside = self.crop(index)
        return encode_bitmap(inside, window, self.image_hw)

    def names(self) -> list[str]:
        """Return the class name of every detection, "class 3" where there is none."""
        known = dict(enumerate(self.class_names))
        return [known.get(label, f"class {label}") for label in self.labels.tolist()]

    def to(self, device: torch.device | str) -> Detections:
        """Move every tensor to a device."""
        return _move(self, device)


def _tensors(part: Any) -> dict[str, Tensor]:
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _check_lengths(part: Any) -> None:
    lengths = {name: len(value) for name, value in _tensors(part).items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{type(part).__name__}: parts of different lengths: {lengths}")


def _select(part: Part, index: Index) -> Part:
    if not isinstance(index, Tensor):  # NumPy reads every other kind of index
        if not isinstance(index, slice):
            index = np.asarray(index)
            index = index if index.size or index.dtype == bool else index.astype(np.intp)
        positions = np.atleast_1d(np.arange(len(part))[index])
        index = torch.from_numpy(positions.copy()).to(part.labels.device)
    index = index.reshape(-1)
    chosen: dict[str, Any] = {name: value[index] for name, value in _tensors(part).items()}
    return replace(part, **chosen)


def _move(part: Part, device: torch.device | str) -> Part:
    # Towards the CPU an asynchronous copy could be read before it has arrived.
    non_blocking = torch.device(device).type != "cpu"
    moved: dict[str, Any] = {
        name: value.to(device, non_blocking=non_blocking) for name, value in _tensors(part).items()
    }
    return replace(part, **moved)
