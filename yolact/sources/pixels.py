"""Pictures in memory, turned into (H, W, 3) uint8 RGB."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.bit_depth import to_8_bits
from data.images import Image, Picture

_CHANNELS = (1, 3, 4)


class Pixels(Protocol):
    """An (H, W, 3) uint8 RGB image that is read in parts: an array, a memmap, an array of zarr."""

    @property
    def shape(self) -> tuple[int, ...]:
        """H, W, 3."""

    def __getitem__(self, rows_and_columns: tuple[slice, slice], /) -> Any:
        """Return a part."""


def is_pixels(given: object) -> TypeGuard[Pixels]:
    """Tell whether something is an image whose parts can be read as they are."""
    shape: tuple[int, ...] = getattr(given, "shape", ())
    is_image = len(shape) == 3 and shape[2] == 3 and 0 not in shape
    return is_image and getattr(given, "dtype", None) == np.dtype(np.uint8)


def view_tensor(picture: Picture) -> Tensor:
    """View an (H, W, 3) picture as a (3, H, W) uint8 tensor; copy it where that is needed."""
    if isinstance(picture, Tensor):
        return picture.permute(2, 0, 1)
    usable = picture.flags.writeable and picture.flags.c_contiguous
    return torch.from_numpy(picture if usable else picture.copy()).permute(2, 0, 1)


def from_array(array: NDArray[Any]) -> Image:
    """Convert an array; one that is (H, W, 3) uint8 already is not copied.

    Args:
        array: (H, W, 3) RGB, (H, W) or (H, W, 1) gray, or (H, W, 4) RGBA, whose alpha is dropped.
            uint8; or uint16, which is scaled by the bits that it uses; or float in [0, 1].

    Raises:
        ValueError: another shape or type, a float outside [0, 1], or no pixels.
    """
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)
    if not (is_image and array.size):
        raise ValueError(_misshapen(array.shape))
    values = array if array.ndim == 3 else array[:, :, None]
    values = _to_uint8(values[:, :, :3])  # without alpha
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return np.ascontiguousarray(values)


def from_tensor(tensor: Tensor) -> Image:
    """Convert a tensor on any device.

    Channels come first wherever the first dimension is 1, 3 or 4, so (3, H, W) as PyTorch has it;
    any other tensor is read as an array is.

    Raises:
        ValueError: as `from_array`.
    """
    if tensor.ndim == 3 and tensor.shape[0] in _CHANNELS:
        tensor = tensor.permute(1, 2, 0)
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    return from_array(tensor.numpy(force=True))


def _to_uint8(values: NDArray[Any]) -> Image:
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "u" and size == 1:
        return values
    if kind == "u" and size == 2:
        return to_8_bits(values)  # as a file of such values
    if kind != "f":
        raise ValueError(
            f"image of type {values.dtype}: expected uint8, uint16, or float from 0 to 1"
        )
    if not ((values >= 0) & (values <= 1)).all():  # NaN included
        raise ValueError(
            f"image of type {values.dtype} with values from {values.min():g} to {values.max():g}: "
            "floats are taken as 0 to 1; divide by the largest value that there can be"
        )
    return np.round(values.astype(np.float32) * 255).astype(np.uint8)


def _misshapen(shape: tuple[int, ...]) -> str:
    """Say what is wrong with a shape, and the mend for what are probably several images."""
    mend = "; for several images pass a list of them" if len(shape) == 4 else ""
    if len(shape) == 3 and shape[0] in _CHANNELS:
        mend = "; turn (3, H, W) by .transpose(1, 2, 0)"
    return (
        f"image of shape {shape}: expected (H, W, 3) RGB, (H, W, 4) RGBA, or (H, W) or (H, W, 1) "
        f"gray, with at least one pixel{mend}"
    )
