"""Overlaps of masks, and one-to-one matching of two sets by overlap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from yolact.results.detections import Detections

Masks = NDArray[np.bool_]
Overlaps = NDArray[np.float64]

_SIDE = 160  # longer side of the grid on which masks of videos are compared


def match_pairs(overlaps: Overlaps) -> list[tuple[int, int]]:
    """Pair rows with columns one to one, for the largest sum of overlaps; omit pairs with none."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    found = zip(rows.tolist(), columns.tolist(), strict=True)
    return [pair for pair in found if overlaps[pair] > 0]


def mask_overlaps(first: Masks, second: Masks) -> Overlaps:
    """Return the intersection over union of masks, (M, H, W) with (N, H, W) -> (M, N)."""
    a, b = (
        masks.reshape(len(masks), int(np.prod(masks.shape[1:]))).astype(np.float32)
        for masks in (first, second)
    )
    both = (a @ b.T).astype(np.float64)
    either = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - both
    return np.asarray(both / np.maximum(either, 1))


def small_masks(found: Detections) -> Masks:
    """Return masks on a small grid, (N, h, w); for an empty mask, its box."""
    height, width = found.image_hw
    scale = min(1.0, _SIDE / max(height, width))
    image_hw = max(round(height * scale), 1), max(round(width * scale), 1)
    factors = torch.tensor((image_hw[1] / width, image_hw[0] / height) * 2)
    boxes = found.boxes * factors
    small = replace(found, boxes=boxes, mask_frames=found.mask_frames * factors, image_hw=image_hw)
    masks: Masks = small.masks.numpy()
    for row in np.flatnonzero(~masks.any(axis=(1, 2))):
        x1, y1, x2, y2 = boxes[row].tolist()
        masks[row, int(max(y1, 0)) : int(y2) + 1, int(max(x1, 0)) : int(x2) + 1] = True
    return masks
