"""Masks from prototypes, and full-size masks from small soft ones (YOLACT sec. 3.1 and 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

Window = tuple[int, int, int, int]


def assemble_masks(
    prototypes: Tensor, coefficients: Tensor, boxes: Tensor, crop: bool = True
) -> Tensor:
    """Combine prototypes linearly, squash, and crop by box (YOLACT eq. 1).

    Args:
        prototypes: (K, h, w) after ReLU.
        coefficients: (N, K).
        boxes: (N, 4) xyxy relative to the image.
        crop: zero what lies outside the boxes.

    Returns:
        (N, h, w) soft masks in [0, 1].
    """
    logits = torch.einsum("nk,khw->nhw", coefficients.float(), prototypes.float())
    soft_masks = logits.sigmoid()
    return soft_masks * box_windows(boxes, logits.shape[-2:]) if crop else soft_masks


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
    x = torch.arange(width, device=boxes.device, dtype=boxes.dtype)
    y = torch.arange(height, device=boxes.device, dtype=boxes.dtype)
    x1, y1, x2, y2 = boxes.unbind(1)
    x1, x2 = torch.minimum(x1, x2) * width - padding, torch.maximum(x1, x2) * width + padding
    y1, y2 = torch.minimum(y1, y2) * height - padding, torch.maximum(y1, y2) * height + padding
    inside_x = (x >= x1[:, None]) & (x < x2[:, None])
    inside_y = (y >= y1[:, None]) & (y < y2[:, None])
    return inside_y[:, :, None] & inside_x[:, None, :]


def paste_masks(soft_masks: Tensor, frames: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Resize soft masks to the image bilinearly and threshold them at 0.5, one window at a time.

    Equal to resizing every mask to the whole image, without ever holding an N x H x W float array.

    Args:
        soft_masks: (N, h, w) in [0, 1].
        frames: (N, 4) xyxy in image pixels: the region that each soft mask covers.
        image_hw: height and width of the image.

    Returns:
        (N, H, W) bool.
    """
    full = torch.zeros((len(soft_masks), *image_hw), dtype=torch.bool, device=soft_masks.device)
    for index, window in enumerate(mask_windows(soft_masks, frames, image_hw)):
        x1, y1, x2, y2 = window
        full[index, y1:y2, x1:x2] = sample_window(soft_masks[index], frames[index], window) > 0.5
    return full


def mask_windows(soft_masks: Tensor, frames: Tensor, image_hw: tuple[int, int]) -> list[Window]:
    """Bound each mask after upsampling: a pixel exceeds 0.5 only next to a cell that does.

    Args:
        soft_masks: (N, h, w) in [0, 1].
        frames: (N, 4) xyxy in image pixels: the region that each soft mask covers.
        image_hw: height and width of the image.

    Returns:
        For each mask a window (x1, y1, x2, y2) in whole pixels; (0, 0, 0, 0) for an empty mask.
    """
    if not len(soft_masks):
        return []
    above = soft_masks > 0.5
    frames = frames.float()
    sides = []
    for axis, size in ((0, image_hw[1]), (1, image_hw[0])):
        occupied = above.any(dim=1 + axis)  # (N, cells along the axis)
        cells = occupied.shape[1]
        first = occupied.int().argmax(dim=1)
        last = cells - 1 - occupied.flip(1).int().argmax(dim=1)
        start, end = frames[:, axis], frames[:, axis + 2]
        per_cell = (end - start) / cells
        low = torch.where(first > 0, start + (first - 0.5) * per_cell, start).floor()
        high = torch.where(last < cells - 1, start + (last + 1.5) * per_cell, end).ceil()
        low = low.clamp(0, size)
        sides.append((low, high.clamp(0, size).maximum(low)))
    (x1, x2), (y1, y2) = sides
    exists = above.flatten(1).any(dim=1) & (frames[:, 2:] > frames[:, :2]).all(dim=1)
    windows = torch.stack((x1, y1, x2, y2), dim=1) * exists[:, None]
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in windows.tolist()]


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
    top, bottom, fraction_y = _taps(y1, y2, frame[1], frame[3], soft_mask.shape[0])
    left, right, fraction_x = _taps(x1, x2, frame[0], frame[2], soft_mask.shape[1])
    soft_mask = soft_mask.float()
    rows = torch.lerp(soft_mask[top], soft_mask[bottom], fraction_y[:, None])
    return torch.lerp(rows[:, left], rows[:, right], fraction_x)


def _taps(
    first: int, last: int, start: Tensor, end: Tensor, cells: int
) -> tuple[Tensor, Tensor, Tensor]:
    pixels = torch.arange(first, last, device=start.device, dtype=torch.float32) + 0.5
    extent = (end - start).clamp(min=1e-6)  # of a frame without area, too
    source = ((pixels - start) * (cells / extent) - 0.5).clamp(0, cells - 1)
    low = source.floor().long()
    return low, (low + 1).clamp(max=cells - 1), source - low
