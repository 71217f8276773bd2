"""Masks of pixels made compact: each in a window of its own, without loss."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Piece = tuple[NDArray[np.bool_], tuple[int, int]]
"""A bitmap, and the x and y of its corner in the image."""


def compact_masks(pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
    """Cut the masks out of N bitmaps, full-size ones or parts of the image.

    Returns:
        Soft masks (N, h, w), as large as the largest object, and their frames (N, 4), as
        `Instances` keeps them; pasted, they give every pixel again.
    """
    windows = [cv2.boundingRect(bitmap.astype(np.uint8)) for bitmap, _ in pieces]
    width, height = (max((window[i] for window in windows), default=1) or 1 for i in (2, 3))
    soft_masks = torch.zeros((len(pieces), height, width))
    frames = torch.zeros((len(pieces), 4))
    for i, ((bitmap, (left, top)), (x, y, w, h)) in enumerate(zip(pieces, windows, strict=True)):
        inside = bitmap[y : y + h, x : x + w].astype(np.float32)
        soft_masks[i, :h, :w] = torch.from_numpy(inside)
        corner = (left + x, top + y)
        frames[i] = torch.tensor((*corner, corner[0] + width, corner[1] + height))
    return soft_masks, frames
