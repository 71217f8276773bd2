"""How much masks overlap, and which of two sets belong together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]
Overlaps = NDArray[np.float64]


def pairs(overlaps: Overlaps) -> list[tuple[int, int]]:
    """Pair rows with columns, one to one, for the largest sum; pairs that do not touch are left."""
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
