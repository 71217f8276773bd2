"""Conversion of bitmaps to compact masks: each in its own window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Piece = tuple[NDArray[np.bool_], tuple[int, int]]
"""A bitmap, and the x and y of its corner in the image."""


CELLS = 2**27
"""Maximum number of cells of all masks together, of four bytes each: 512 MB."""


def compact_masks(pieces: Sequence[Piece], most_cells: int = CELLS) -> tuple[Tensor, Tensor]:
    """Crop the masks out of N bitmaps, which are full-size or parts of the image.

    All N masks get as many cells as the largest object needs. If these are too many, large objects
    are shrunk by area averaging: to 1,158 cells a side with 100 objects. Others lose nothing.

    Args:
        pieces: the bitmaps.
        most_cells: maximum number of cells of all masks together.

    Returns:
        Soft masks (N, h, w) and their frames (N, 4), as `Instances` keeps them; masks that are not
        shrunk reproduce every pixel when pasted.
    """
    windows = [cv2.boundingRect(bitmap.astype(np.uint8)) for bitmap, _ in pieces]
    width, height = (max((window[i] for window in windows), default=1) or 1 for i in (2, 3))
    if len(pieces) * height * width > most_cells:
        side = max(math.isqrt(most_cells // len(pieces)), 1)
        width, height = min(width, side), min(height, side)
    soft_masks = torch.zeros((len(pieces), height, width))
    frames = torch.zeros((len(pieces), 4))
    for i, ((bitmap, (left, top)), (x, y, w, h)) in enumerate(zip(pieces, windows, strict=True)):
        inside = bitmap[y : y + h, x : x + w].astype(np.float32)
        columns, rows = min(w, width), min(h, height)
        if (columns, rows) != (w, h):
            small = cv2.resize(inside, (columns, rows), interpolation=cv2.INTER_AREA)
            inside = np.asarray(small, np.float32)
        soft_masks[i, :rows, :columns] = torch.from_numpy(inside)
        x1, y1 = left + x, top + y
        reach = (w * width / columns, h * height / rows) if inside.size else (width, height)
        frames[i] = torch.tensor((x1, y1, x1 + reach[0], y1 + reach[1]))
    return soft_masks, frames
