"""Random colours of the original YOLACT's training, which are those of SSD."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .placement import _as_8bit

_BRIGHTNESS = 32.0
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE_DEGREES = 18.0


def distort_colours(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
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
    image: NDArray[np.uint8],
    brightness: float = 0.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue_degrees: float = 0.0,
) -> NDArray[np.uint8]:
    """Apply contrast * (image + brightness), then change saturation and hue.

    Saturation and hue commute with scaling, so the original's coin toss between contrast first and
    contrast last matters only where colours leave 0..255. There they are cut off.

    Args:
        image: (H, W, 3) uint8 RGB.
        brightness: added to every value.
        contrast: factor for every value.
        saturation: factor for the HSV saturation.
        hue_degrees: added to the HSV hue.

    Returns:
        (H, W, 3) uint8 RGB; the argument is left as it was.
    """
    levels = np.arange(256, dtype=np.float64)
    if not image.size:
        return image
    if brightness or contrast != 1:
        image = _looked_up(image, (levels + brightness) * contrast)
    if saturation != 1:
        # HSV's value is the largest channel, and scaling saturation moves the others towards it.
        red, green, blue = cv2.split(image)
        value = cv2.max(cv2.max(red, green), blue)
        value = cv2.merge((value, value, value))
        image = _as_8bit(cv2.addWeighted(image, saturation, value, 1 - saturation, 0))
    if hue_degrees:
        hue = np.round(levels + hue_degrees * 256 / 360) % 256  # a full turn is 256 steps
        tables = np.stack((hue, levels, levels), axis=1)[None]
        hsv = _as_8bit(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL))
        image = _as_8bit(cv2.cvtColor(_looked_up(hsv, tables), cv2.COLOR_HSV2RGB_FULL))
    return image


def _looked_up(image: NDArray[np.uint8], table: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Replace every value by the table's entry for it, rounded and cut off at 0..255."""
    return _as_8bit(cv2.LUT(image, np.round(table).clip(0, 255).astype(np.uint8)))
