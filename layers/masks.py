"""Masks from prototypes, cropped by box (YOLACT sec. 3.1 and 3.3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .native import as_floats, kernels_for


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
