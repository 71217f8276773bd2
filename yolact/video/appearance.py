"""The appearance of objects: colour histograms, for recognising an object again."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import Image, as_uint8
from layers.native import Floats

from .overlaps import Masks

_BITS = 3  # per channel: eight shades
_BINS = 2 ** (3 * _BITS)


def color_histograms(image: Image, masks: Masks) -> Floats:
    """Return the share of each colour in each mask.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (N, h, w), each covering the whole image.

    Returns:
        (N, 512); each row sums to 1, or to 0 for an empty mask.
    """
    small = cv2.resize(image, masks.shape[:0:-1], interpolation=cv2.INTER_AREA)
    shades = as_uint8(small) >> (8 - _BITS)
    red, green, blue = shades.astype(np.int64).transpose(2, 0, 1)
    colours = (red << (2 * _BITS)) + (green << _BITS) + blue
    counts = [np.bincount(colours[mask], minlength=_BINS) for mask in masks]
    table = np.array(counts, np.float32).reshape(len(masks), _BINS)
    return np.asarray(table / table.sum(axis=1, keepdims=True).clip(1), np.float32)


def histogram_similarity(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Compare histograms, (M, 512) with (N, 512) -> (M, N): Bhattacharyya's coefficient."""
    return np.asarray(np.sqrt(first) @ np.sqrt(second).T, np.float64)
