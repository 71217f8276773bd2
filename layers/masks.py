"""Masks from prototypes, cropped by box (YOLACT sec. 3.1 and 3.3)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .native import as_floats, kernels_for

_REACH = 0.15  # how far a mask may reach beyond its box, as a share of the box's sides
_FEW = 2  # masks at once on a CPU: for more, PyTorch would wake all threads at each operator
_INSET = 0.05  # how far inside its box a mask is certain, as a share of the box's sides
_LARGER = 1.15  # largest ratio of a mask's area to its area inside the box
_SURE = 0.8  # least confidence with which a mask moves its box
_PART = 0.5  # least area of a part, as a share of the mask's largest part
_ROUNDS = 8  # of `_parts`: enough for each of 6,683 masks of persons; a long spiral takes more


def assemble_masks(
    prototypes: Tensor,
    coefficients: Tensor,
    boxes: Tensor,
    crop: bool = True,
    padding: float = 1,
) -> Tensor:
    """Combine prototypes linearly, apply the sigmoid, and crop by box (YOLACT eq. 1).

    Args:
        prototypes: (K, h, w) after ReLU.
        coefficients: (N, K).
        boxes: (N, 4) xyxy relative to the image.
        crop: set cells outside the boxes to zero.
        padding: margin of the crop in cells, see `box_windows`.

    Returns:
        (N, h, w) soft masks in [0, 1].
    """
    kernels = kernels_for(prototypes, coefficients, boxes)
    if crop and kernels is not None:
        # NumPy gets zeroed memory from the system, so cells outside the boxes cost nothing.
        soft = np.zeros((len(coefficients), *prototypes.shape[1:]), np.float32)
        arrays = as_floats(prototypes), as_floats(coefficients), as_floats(boxes)
        kernels.assemble_masks(*arrays, padding, soft)
        return torch.from_numpy(soft)
    with torch.autocast(prototypes.device.type, enabled=False):
        logits = torch.einsum("nk,khw->nhw", coefficients.float(), prototypes.float())
    soft_masks = logits.sigmoid()
    return soft_masks * box_windows(boxes, logits.shape[-2:], padding) if crop else soft_masks


def box_windows(boxes: Tensor, grid_hw: tuple[int, int] | torch.Size, padding: float = 1) -> Tensor:
    """Mark the cells of a grid inside each box, widened by a margin.

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
    """Fit masks and boxes to each other where a box cuts off a little of its mask.

    If a mask reaches a little beyond its box (a hat, a hand), that part is kept, and the sides of
    the box move half way to the ends of the mask, if the mask is clear. A part that would make the
    mask much larger is taken for another object and cropped. Separate parts smaller than half of
    the largest are dropped.

    Args:
        soft_masks: (N, h, w) in [0, 1], cropped by `widened` boxes.
        boxes: (N, 4) xyxy relative to the image.

    Returns:
        The masks, cropped again, and the boxes.
    """
    at_once = _FEW if soft_masks.device.type == "cpu" else max(len(boxes), 1)
    parts = zip(torch.split(soft_masks, at_once), torch.split(boxes, at_once), strict=True)
    masks, fitted = zip(*(_refit(*part) for part in parts), strict=True)
    return torch.cat(masks), torch.cat(fitted)


def _refit(soft_masks: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    grid = soft_masks.shape[-2:]
    own = box_windows(boxes, grid)
    # A cell beyond a side belongs to the mask if the nearest cell well inside the box does.
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
    """Clear the parts of (N, h, w) bool masks that are smaller than half of the largest part.

    A part is a 4-connected component.
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
    """Label connected components: (N, h * w) int64, one cell index for all cells of a part.

    Every cell points to a cell of its part with the same or a higher index. In each round the cell
    pointed to takes over a neighbour's higher index, and pointers are followed: O(log) rounds,
    without waiting for a GPU.
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
    """Return the confidence of masks, (N,): the mean of their cells above 0.5, 0 without any.

    As a factor of the score, it ranks blurred or torn masks below clear ones: "maskness" (Wang et
    al., SOLO, TPAMI 2021), which needs no network, unlike YOLACT++'s re-scoring.

    Args:
        soft_masks: (N, h, w) in [0, 1].
    """
    inside = soft_masks > 0.5
    return (soft_masks * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def widened(boxes: Tensor) -> Tensor:
    """Widen (N, 4) xyxy boxes on each side, as far as a mask may reach beyond its box."""
    return _grown(boxes, _REACH)


def _grown(boxes: Tensor, share: float) -> Tensor:
    low, high = torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])
    more = share * (high - low)
    return torch.cat((low - more, high + more), dim=1)


def mask_boxes(filled: Tensor) -> Tensor:
    """Return the tight boxes of (N, h, w) bool masks, (N, 4) xyxy; undefined for empty masks."""
    ends = []
    for axis in (1, 2):
        line = filled.any(dim=axis).byte()  # (N, w), (N, h)
        ends.append((line.argmax(dim=1), line.shape[1] - line.flip(1).argmax(dim=1)))
    (x1, x2), (y1, y2) = ends
    return torch.stack((x1, y1, x2, y2), dim=1)


def _nearest_inside(filled: Tensor, windows: Tensor) -> Tensor:
    """Give every cell the value of the nearest cell in a rectangle.

    Args:
        filled: (N, h, w).
        windows: (N, h, w) bool: N rectangles; the result is undefined for empty ones.
    """
    count, height, width = filled.shape
    x1, y1, x2, y2 = mask_boxes(windows)[:, :, None].unbind(1)  # (N, 1)
    rows, columns = (torch.arange(size, device=filled.device) for size in (height, width))
    rows = rows.expand(count, -1).clamp(y1, y2 - 1)[:, :, None].expand(-1, -1, width)
    columns = columns.expand(count, -1).clamp(x1, x2 - 1)[:, None, :].expand(-1, height, -1)
    return filled.gather(1, rows).gather(2, columns)


def _scale(grid_hw: tuple[int, int] | torch.Size, like: Tensor) -> Tensor:
    """Return the number of cells of a grid along x, y, x, y, (4,)."""
    height, width = grid_hw
    cells = torch.arange(4, device=like.device) % 2
    return (width + cells * (height - width)).to(like.dtype)
