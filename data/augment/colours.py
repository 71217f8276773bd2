"""Random changes of colour in training: those of SSD, as in the original YOLACT."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import Image, as_uint8

_BRIGHTNESS = 32.0
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE_DEGREES = 18.0


def distort_colours(image: Image, rng: np.random.Generator) -> Image:
    """Vary brightness, contrast, saturation and hue, each half the time."""
    chosen = rng.random(4) < 0.5
    return adjust_colours(
        image,
        brightness=chosen[0] * rng.uniform(-_BRIGHTNESS, _BRIGHTNESS),
        contrast=rng.uniform(*_CONTRAST) if chosen[1] else 1.0,
        saturation=rng.uniform(*_SATURATION) if chosen[2] else 1.0,
        hue_degrees=chosen[3] * rng.uniform(-_HUE_DEGREES, _HUE_DEGREES),
    )


def adjust_colours(
    image: Image,
    brightness: float = 0.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue_degrees: float = 0.0,
) -> Image:
    """Apply contrast * (image + brightness), then change saturation and hue.

    Saturation and hue commute with scaling, so the original's random choice of contrast first or
    last matters only for values outside 0..255, which are clipped.

    Args:
        image: (H, W, 3) uint8 RGB.
        brightness: added to every value.
        contrast: factor for every value.
        saturation: factor for the HSV saturation.
        hue_degrees: added to the HSV hue.

    Returns:
        (H, W, 3) uint8 RGB; the argument is not changed.
    """
    levels = np.arange(256, dtype=np.float64)
    if not image.size:
        return image
    if brightness or contrast != 1:
        image = _look_up(image, (levels + brightness) * contrast)
    if saturation != 1:
        # HSV's value is the largest channel; saturation scales the other channels' distance to it.
        red, green, blue = cv2.split(image)
        value = cv2.max(cv2.max(red, green), blue)
        value = cv2.merge((value, value, value))
        image = as_uint8(cv2.addWeighted(image, saturation, value, 1 - saturation, 0))
    if hue_degrees:
        hue = np.round(levels + hue_degrees * 256 / 360) % 256  # a full turn is 256 steps
        tables = np.stack((hue, levels, levels), axis=1)[None]
        hsv = as_uint8(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL))
        image = as_uint8(cv2.cvtColor(_look_up(hsv, tables), cv2.COLOR_HSV2RGB_FULL))
    return image


def _look_up(image: Image, table: NDArray[np.float64]) -> Image:
    """Map each value through a table of 256 entries, (256,) or (1, 256, 3) by channel."""
    return as_uint8(cv2.LUT(image, np.round(table).clip(0, 255).astype(np.uint8)))
