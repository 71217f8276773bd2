"""What flows between the parts of a model: predictions, targets, candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Index = int | slice | Tensor | NDArray[Any] | Sequence[int]
Group = TypeVar("Group", bound="TensorGroup")


class TensorGroup:
    """Base of frozen dataclasses whose tensors all have the same first dimension.

    Raises:
        ValueError: the tensors differ in length.
    """

    def __post_init__(self) -> None:
        lengths = {name: len(value) for name, value in self._tensors().items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__}: parts of different lengths: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self._tensors().values())))

    def __getitem__(self: Group, index: Index) -> Group:
        """Select by position, slice, list of positions, or boolean mask; the result is a group."""
        if not isinstance(index, Tensor):  # NumPy reads every other kind of index
            if not isinstance(index, slice):
                index = np.asarray(index)
                index = index if index.size or index.dtype == bool else index.astype(np.intp)
            positions = np.atleast_1d(np.arange(len(self))[index])
            index = torch.from_numpy(positions.copy()).to(self._device)
        index = index.reshape(-1)
        return self._changed({name: value[index] for name, value in self._tensors().items()})

    def to(self: Group, device: torch.device | str) -> Group:
        """Move every tensor to a device."""
        # Towards the CPU an asynchronous copy could be read before it has arrived.
        wait = torch.device(device).type == "cpu"
        tensors = self._tensors().items()
        return self._changed({n: value.to(device, non_blocking=not wait) for n, value in tensors})

    def pin_memory(self: Group) -> Group:
        """Pin every tensor, for the loader's asynchronous copies."""
        return self._changed({n: value.pin_memory() for n, value in self._tensors().items()})

    @property
    def _device(self) -> torch.device:
        return next(iter(self._tensors().values())).device

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def _changed(self: Group, tensors: dict[str, Tensor]) -> Group:
        changed: Group = replace(self, **tensors)  # type: ignore[type-var]
        return changed


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
class Target(TensorGroup):
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


@dataclass(frozen=True)
class Candidates(TensorGroup):
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
