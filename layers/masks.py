"""Masks from prototypes, cropped by box and sampled in the image (YOLACT sec. 3.1 and 3.3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .native import as_floats, kernels_for

Window = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels; x2 and y2 are the first outside."""


def assemble_masks(
    prototypes: Tensor,
    coefficients: Tensor,
    boxes: Tensor,
    crop: bool = True,
    padding: float = 1,
) -> Tensor:
    """Combine prototypes linearly, squash, and crop by box (YOLACT eq. 1).

    Args:
        prototypes: (K, h, w) after ReLU.
        coefficients: (N, K).
        boxes: (N, 4) xyxy relative to the image.
        crop: zero what lies outside the boxes.
        padding: margin of the crop in cells, see `box_windows`.

    Returns:
        (N, h, w) soft masks in [0, 1].
    """
    kernels = kernels_for(prototypes, coefficients, boxes)
    if crop and kernels is not None:
        # NumPy asks the system for zeros, and gets those outside the boxes for nothing.
        soft = np.zeros((len(coefficients), *prototypes.shape[1:]), np.float32)
        arrays = as_floats(prototypes), as_floats(coefficients), as_floats(boxes)
        kernels.assemble_masks(*arrays, padding, soft)
        return torch.from_numpy(soft)
    with torch.autocast(prototypes.device.type, enabled=False):
        logits = torch.einsum("nk,khw->nhw", coefficients.float(), prototypes.float())
    soft_masks = logits.sigmoid()
    return soft_masks * box_windows(boxes, logits.shape[-2:], padding) if crop else soft_masks


def box_windows(boxes: Tensor, grid_hw: tuple[int, int] | torch.Size, padding: float = 1) -> Tensor:
    """Mark the cells of a grid that lie inside each box, widened by a margin.

    Args:
        boxes: (N, 4) xyxy relative; corners may be swapped or outside the image.
        grid_hw: height and width of the grid.
        padding: margin in cells. The released weights are trained with 1.

    Returns:
        (N, h, w) bool.
    """
    height, width = grid_hw
    x = torch.arange(width, device=boxes.device, dtype=torch.float32)
    y = torch.arange(height, device=boxes.device, dtype=torch.float32)
    x1, y1, x2, y2 = boxes.float().unbind(1)
    x1, x2 = torch.minimum(x1, x2) * width - padding, torch.maximum(x1, x2) * width + padding
    y1, y2 = torch.minimum(y1, y2) * height - padding, torch.maximum(y1, y2) * height + padding
    inside_x = (x >= x1[:, None]) & (x < x2[:, None])  # (N, w)
    inside_y = (y >= y1[:, None]) & (y < y2[:, None])  # (N, h)
    return inside_y[:, :, None] & inside_x[:, None, :]


def mask_window(soft_mask: Tensor, frame: Tensor, image_hw: tuple[int, int]) -> Window:
    """Bound a mask after upsampling: a pixel exceeds 0.5 only next to a cell that does.

    Args:
        soft_mask: (h, w) in [0, 1].
        frame: (4,) xyxy in image pixels: the region that the mask covers. Without area, or with
            numbers that are not finite, it holds nothing.
        image_hw: height and width of the image.

    Returns:
        A window inside the image; (0, 0, 0, 0) for an empty mask.
    """
    frame = frame.float()
    extent = frame[2:] - frame[:2]
    above = soft_mask > 0.5
    if not (above.any() and ((extent > 0) & extent.isfinite()).all()):
        return 0, 0, 0, 0
    x1, x2 = _span(above.any(dim=0), frame[0], frame[2], image_hw[1])
    y1, y2 = _span(above.any(dim=1), frame[1], frame[3], image_hw[0])
    return x1, y1, x2, y2


def _span(occupied: Tensor, start: Tensor, end: Tensor, size: int) -> tuple[int, int]:
    """Bound the pixels of one axis, of `size` in all, that the occupied cells have a part in."""
    cells = len(occupied)
    first, last = (int(i) for i in occupied.nonzero().flatten()[[0, -1]])
    per_cell = (end - start) / cells
    low = start + (first - 0.5) * per_cell if first > 0 else start
    high = start + (last + 1.5) * per_cell if last < cells - 1 else end
    low = low.floor().clamp(0, size)
    return int(low), int(high.ceil().clamp(0, size).maximum(low))


def sample_window(soft_mask: Tensor, frame: Tensor, window: Window) -> Tensor:
    """Sample one soft mask bilinearly at the pixel centres of a window (edges are held).

    Args:
        soft_mask: (h, w).
        frame: (4,) xyxy in image pixels: the region that the mask covers.
        window: x1, y1, x2, y2 in whole pixels.

    Returns:
        (y2 - y1, x2 - x1) float32.
    """
    x1, y1, x2, y2 = window
    soft_mask, frame = soft_mask.float(), frame.float()
    top, bottom, fraction_y = _taps(y1, y2, frame[1], frame[3], soft_mask.shape[0])
    left, right, fraction_x = _taps(x1, x2, frame[0], frame[2], soft_mask.shape[1])
    rows = _between(soft_mask[top], soft_mask[bottom], fraction_y[:, None])  # (y2 - y1, w)
    return _between(rows[:, left], rows[:, right], fraction_x)


def _taps(
    first: int, last: int, start: Tensor, end: Tensor, cells: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cell before each pixel centre, the cell after it, and that one's weight."""
    pixels = torch.arange(first, last, device=start.device, dtype=torch.float32) + 0.5
    extent = (end - start).clamp(min=1e-6)  # of a frame without area, too
    source = ((pixels - start) * (cells / extent) - 0.5).clamp(0, cells - 1)
    low = source.floor().long()
    return low, (low + 1).clamp(max=cells - 1), source - low


def _between(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    # torch.lerp may fuse the product and the sum, and round another way on another machine.
    return (b - a).mul_(weight).add_(a)
