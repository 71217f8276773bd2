"""Masks from prototypes, cropped by box (YOLACT sec. 3.1 and 3.3)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .native import as_floats, kernels_for

_REACH = 0.15  # of a box's sides, how far a mask may reach beyond them
_FEW = 2  # masks at once on a CPU: for more, PyTorch would wake all threads at each operator
_INSET = 0.05  # of a box's sides, how far inside of it a mask is certain
_LARGER = 1.15  # times as large as what is inside of the box
_SURE = 0.8  # of a mask's confidence, from which on it moves its box
_PART = 0.5  # of a mask's largest part, below which another is taken for something else
_ROUNDS = 8  # of `_parts`: enough for each of 6,683 masks of persons; a long spiral takes more


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


def refit(soft_masks: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Fit masks and boxes to each other, where a box cuts a little off its mask.

    Where a mask reaches a little beyond its box (a hat, a hand), that is kept, and the box of a
    clear mask moves half the way to where it ends. What would make it much larger is another object
    and is cropped. Separate parts smaller than half of the largest are dropped.

    Args:
        soft_masks: (N, h, w) in [0, 1], cropped by `widened` boxes.
        boxes: (N, 4) xyxy relative to the image.

    Returns:
        The masks, cropped anew, and the boxes.
    """
    at_once = _FEW if soft_masks.device.type == "cpu" else max(len(boxes), 1)
    parts = zip(torch.split(soft_masks, at_once), torch.split(boxes, at_once), strict=True)
    masks, fitted = zip(*(_refit(*part) for part in parts), strict=True)
    return torch.cat(masks), torch.cat(fitted)


def _refit(soft_masks: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    grid = soft_masks.shape[-2:]
    own = box_windows(boxes, grid)
    # What lies beyond a side belongs to the mask if the nearest cell well inside of the box does.
    reached = _nearest_inside(soft_masks > 0.5, box_windows(_grown(boxes, -_INSET), grid, 0))
    filled = keep_large_parts((soft_masks > 0.5) & (own | reached))
    inside = (filled & own).sum(dim=(1, 2))
    is_close = (inside > 0) & (filled.sum(dim=(1, 2)) <= _LARGER * inside)
    kept = (own | (reached & is_close[:, None, None])) & (filled | (soft_masks <= 0.5))
    masks = soft_masks * kept
    is_sure = is_close & (mask_confidence(masks) >= _SURE)
    fitted = torch.where(is_sure[:, None], mask_boxes(filled) / _scale(grid, boxes), boxes)
    return masks, (boxes + fitted) / 2


def keep_large_parts(masks: Tensor) -> Tensor:
    """Clear the parts of (N, h, w) bool masks that are smaller than half of the mask's largest.

    A part is what is connected by the sides of its cells.
    """
    if (kernels := kernels_for(masks)) is not None:
        cleared = masks.numpy().astype(np.uint8)  # sync: not on the CPU
        kernels.keep_large_parts(cleared, _PART)
        return torch.from_numpy(cleared.view(np.bool_))
    parts = _parts(masks)
    sizes = torch.zeros_like(parts).scatter_add_(1, parts, masks.flatten(1).long())
    largest = sizes.amax(dim=1, keepdim=True)
    return masks & (sizes.gather(1, parts) >= _PART * largest).view_as(masks)


def _parts(masks: Tensor) -> Tensor:
    """Return (N, h * w) int64, the same index of a cell for each cell of a part.

    Every cell points at one of its part with a higher index. In each round the one pointed at
    learns of a higher neighbour, and pointers are followed: O(log) rounds, and a GPU is not waited
    for.
    """
    filled = masks.flatten(1)
    cells = torch.arange(filled.shape[1], device=masks.device)
    parts = cells * filled
    for _ in range(_ROUNDS):
        grid = parts.view_as(masks)[:, None].float()  # exact to 2^24
        beside = F.max_pool2d(grid, (1, 3), stride=1, padding=(0, 1))
        above = F.max_pool2d(grid, (3, 1), stride=1, padding=(1, 0))
        highest = torch.maximum(beside, above).flatten(1).long() * filled
        parts = parts.scatter_reduce(1, parts, highest, "amax")
        parts = parts.gather(1, parts).gather(1, parts) * filled
    return parts


def mask_confidence(soft_masks: Tensor) -> Tensor:
    """Return how sure masks are, (N,): the mean of their cells above a half, 0 without any.

    As a factor of the score it ranks masks that are blurred or torn below clear ones: "maskness"
    (Wang et al., SOLO, TPAMI 2021), which takes no network, unlike YOLACT++'s re-scoring.

    Args:
        soft_masks: (N, h, w) in [0, 1].
    """
    inside = soft_masks > 0.5
    return (soft_masks * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def widened(boxes: Tensor) -> Tensor:
    """Widen (N, 4) xyxy boxes on each side, by as much as a mask may reach beyond its own."""
    return _grown(boxes, _REACH)


def _grown(boxes: Tensor, share: float) -> Tensor:
    low, high = torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])
    more = share * (high - low)
    return torch.cat((low - more, high + more), dim=1)


def mask_boxes(filled: Tensor) -> Tensor:
    """Return the tight boxes of (N, h, w) bool masks, (N, 4) xyxy; of empty ones anything."""
    ends = []
    for axis in (1, 2):
        line = filled.any(dim=axis).byte()  # (N, w), (N, h)
        ends.append((line.argmax(dim=1), line.shape[1] - line.flip(1).argmax(dim=1)))
    (x1, x2), (y1, y2) = ends
    return torch.stack((x1, y1, x2, y2), dim=1)


def _nearest_inside(filled: Tensor, windows: Tensor) -> Tensor:
    """Give every cell the value of the one nearest to it in a rectangle.

    Args:
        filled: (N, h, w).
        windows: (N, h, w) bool: N rectangles; of empty ones the result is anything.
    """
    count, height, width = filled.shape
    x1, y1, x2, y2 = mask_boxes(windows)[:, :, None].unbind(1)  # (N, 1)
    rows, columns = (torch.arange(size, device=filled.device) for size in (height, width))
    rows = rows.expand(count, -1).clamp(y1, y2 - 1)[:, :, None].expand(-1, -1, width)
    columns = columns.expand(count, -1).clamp(x1, x2 - 1)[:, None, :].expand(-1, height, -1)
    return filled.gather(1, rows).gather(2, columns)


def _scale(grid_hw: tuple[int, int] | torch.Size, like: Tensor) -> Tensor:
    """Return the cells of a grid along x, y, x, y."""
    height, width = grid_hw
    cells = torch.arange(4, device=like.device) % 2
    return (width + cells * (height - width)).to(like.dtype)
