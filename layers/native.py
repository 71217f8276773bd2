"""The compiled kernels of this folder, and the choice between them and torch or NumPy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

Window = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels; x2 and y2 are the first outside."""


class PixelKernels(Protocol):
    """The kernels that also exist in NumPy, in mask_pixels.py; see mask_pixels.pxi."""

    def mask_window(
        self, soft_mask: Floats, frame: Sequence[float], height: int, width: int
    ) -> Window:
        """Bound the pixels of a mask."""

    def sample_mask(
        self, soft_mask: Floats, frame: Sequence[float], window: Sequence[int], out: Bytes
    ) -> None:
        """Make the bitmap of a mask."""

    def blend_mask(
        self,
        soft_mask: Floats,
        frame: Sequence[float],
        window: Sequence[int],
        canvas: Bytes,
        table: Bytes,
    ) -> None:
        """Recolour the pixels of a mask."""


class Kernels(PixelKernels, Protocol):
    """The compiled CPU kernels, see kernels.pyx."""

    def greedy_nms(self, boxes: Floats, groups: NDArray[np.int64], iou_threshold: float) -> object:
        """Mark the boxes to keep."""

    def fast_nms(
        self, boxes: Floats, scores: Floats, iou_threshold: float, most: int, keep: Bytes
    ) -> None:
        """Mark the best boxes that no better one overlaps."""

    def assemble_masks(
        self, prototypes: Floats, coefficients: Floats, boxes: Floats, padding: float, out: Floats
    ) -> None:
        """Write the soft masks inside their boxes."""

    def keep_large_parts(self, masks: Bytes, share: float) -> None:
        """Zero the small parts of masks."""

    def depthwise_weight_gradient(
        self,
        x: NDArray[Any],
        gradient: NDArray[Any],
        stride: int,
        padding: int,
        out: Floats,
    ) -> None:
        """Add the gradient of the weights of a depthwise convolution."""

    def encode_mask(self, bitmap: Bytes, x1: int, y1: int, height: int, width: int) -> bytes:
        """Write COCO's compressed run lengths."""


def kernels_for(*tensors: Tensor) -> Kernels | None:
    """Return the compiled kernels if they apply: tensors on the CPU that need no gradient."""
    if any(tensor.device.type != "cpu" or tensor.requires_grad for tensor in tensors):
        return None
    return load_kernels()


@cache
def load_kernels() -> Kernels | None:
    """Return the compiled kernels; None, with one warning, if they are not built or outdated."""
    try:
        kernels: Kernels = import_module(".kernels", __package__)
    except ImportError:
        logger.warning("the kernels are not compiled; slower operators of PyTorch serve instead")
        return None
    if not hasattr(kernels, "depthwise_weight_gradient"):
        logger.warning("the kernels are out of date: run pip install -e . again")
        return None
    return kernels


def as_floats(tensor: Tensor) -> Floats:
    """Return a CPU tensor as a contiguous float32 array for the kernels; copy if needed."""
    floats: Floats = tensor.float().contiguous().numpy()
    return floats
