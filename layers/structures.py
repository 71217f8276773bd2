"""Predictions, targets and candidates: the tensors that a model's parts exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Index = int | slice | Tensor | NDArray[np.generic] | Sequence[int]
Group = TypeVar("Group", bound="TensorGroup")

_MOST_PINNED = 2**25  # bytes of a picture; PyTorch never frees memory that it pinned


@dataclass(frozen=True, eq=False)
class TensorGroup:
    """Base of frozen dataclasses whose tensors all have the same first dimension.

    A group is equal only to itself, as comparing tensors gives no single answer.

    Raises:
        ValueError: the tensors differ in length.
    """

    def __post_init__(self) -> None:
        lengths = {name: len(value) for name, value in self._tensors().items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__}: parts of different lengths: {lengths}")

    def __len__(self) -> int:
        return len(self._first())

    def __getitem__(self: Group, index: Index) -> Group:
        """Select by position, slice, positions or boolean mask on any device; return a group.

        Raises:
            IndexError: a position out of range, or a mask of another length.
        """
        if not isinstance(index, Tensor):
            index = _as_tensor(index, len(self))
        index = index.reshape(-1)
        if index.dtype == torch.bool:  # once for all tensors, on the mask's device
            index = torch.arange(len(self), device=index.device)[index]  # sync: a GPU's
        index = upload(index, self._first().device)
        index = torch.where(index < 0, index + len(self), index)
        # tensor[index] wakes all threads for a few kilobytes, which costs milliseconds.
        return self._map(lambda tensor: tensor.index_select(0, index))

    def to(self: Group, device: torch.device | str) -> Group:
        """Move every tensor to a device; see `fetch` and `upload`."""
        device = torch.device(device)
        if device.type == "cpu":
            return self if self._first().device == device else fetch_groups([self])[0]
        return self._map(lambda tensor: upload(tensor, device))

    def pin_memory(self: Group) -> Group:
        """Pin every tensor, for asynchronous copies to a GPU; the loader calls this by its name."""
        return self._map(Tensor.pin_memory)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def _first(self) -> Tensor:
        return next(iter(self._tensors().values()))

    def _map(self: Group, change: Callable[[Tensor], Tensor]) -> Group:
        return replace(self, **{name: change(value) for name, value in self._tensors().items()})


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting for it.

    Ordinary memory has been read when this returns. Pinned memory is read later: it may be let go,
    since PyTorch reuses it only when the copy has ended, but not be written to. An Apple GPU is
    waited for: it would read ordinary memory later, too (pytorch#189690).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def upload_picture(picture: Tensor, device: torch.device) -> Tensor:
    """Copy a picture to a device as `upload` does, through pinned memory unless it is very large.

    From ordinary memory, CUDA copies a picture only after the GPU's current work has ended.
    """
    ordinary = picture.device.type == "cpu" and not picture.is_pinned()
    if device.type == "cuda" and ordinary and picture.nbytes <= _MOST_PINNED:
        picture = picture.pin_memory()
    return upload(picture, device)


def tensor_like(other: Tensor, values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    """Return a few values as a tensor of another's type and device, without waiting for it."""
    return upload(torch.tensor(values, dtype=other.dtype, device="cpu"), other.device)


def fetch(*tensors: Tensor) -> list[Tensor]:
    """Copy tensors of one device to the CPU, waiting for a GPU only once."""
    device = tensors[0].device
    if device.type != "cuda":
        return [tensor.cpu() for tensor in tensors]  # sync: but on the CPU
    pinned = [
        torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
            tensor, non_blocking=True
        )
        for tensor in tensors
    ]
    torch.cuda.current_stream(device).synchronize()  # sync: nothing is read before it has arrived
    # Into ordinary memory: the system cannot reclaim pinned memory while a caller keeps results.
    return [tensor.clone() for tensor in pinned]


def fetch_groups(groups: Sequence[Group]) -> list[Group]:
    """Copy groups of one device to the CPU, waiting for a GPU only once."""
    tensors = [tensor for group in groups for tensor in group._tensors().values()]
    arrived = iter(fetch(*tensors) if tensors else ())
    return [group._map(lambda _: next(arrived)) for group in groups]


def concatenate_groups(groups: Sequence[Group]) -> Group:
    """Join groups of one kind, at least one; what is no tensor is the first one's."""
    names = groups[0]._tensors()
    joined = {name: torch.cat([getattr(group, name) for group in groups]) for name in names}
    return replace(groups[0], **joined)


def positions(mask: Tensor, count: int) -> Tensor:
    """Return the indices of true values in a mask's flat view, (count,) int64, ascending.

    Args:
        mask: bool of any shape.
        count: number of true values. As it is known, there is no wait for a GPU.
    """
    if mask.device.type == "cpu":
        return mask.flatten().nonzero()[:, 0]  # sync: not on the CPU
    return mask.flatten().byte().argsort(descending=True, stable=True)[:count]


def _as_tensor(index: int | slice | NDArray[np.generic] | Sequence[int], count: int) -> Tensor:
    """Convert an index of any kind to a mask, or to the positions below `count` that it selects."""
    if not isinstance(index, slice):
        array = np.asarray(index)
        if array.dtype == bool:
            return torch.from_numpy(np.ascontiguousarray(array))
        index = array if array.size else array.astype(np.intp)  # an empty list gives floats
    return torch.from_numpy(np.ascontiguousarray(np.arange(count)[index]))


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


@dataclass(frozen=True, eq=False)
class Target(TensorGroup):
    """The ground truth of one S x S training image with M objects.

    Attributes:
        boxes: (M, 4) xyxy in pixels of the network input.
        labels: (M,) int64, 0-based foreground classes.
        masks: (M, S, S) bool.
        is_crowd: (M,) bool; crowds are ignored regions, never objects to learn.
        has_mask: (M,) bool, by default all True; where False, only the box is known and the mask is
            empty.

    Raises:
        ValueError: the parts disagree about M.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    is_crowd: Tensor
    has_mask: Tensor = cast(Tensor, None)

    def __post_init__(self) -> None:
        if self.has_mask is None:
            object.__setattr__(self, "has_mask", torch.ones_like(self.is_crowd))
        super().__post_init__()


@dataclass(frozen=True, eq=False)
class Candidates(TensorGroup):
    """N detections of one image after non-maximum suppression, masks not assembled yet.

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
