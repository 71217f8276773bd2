"""Pictures of more than 8 bits a channel, scaled to 8 by the range that they use.

Cameras of 10, 12 and 14 bits write files of 16, and programs write floats from 0 to 1, to 255 or to
whatever they measured. A file does not say which. So the values of each picture decide, by one rule
for training and for prediction: the top of the scale is the lowest usual one that is not exceeded.
Pictures of one camera thus get one scale, unless they are very dark, and nothing is stretched but
what has no usual scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BAND = 1 << 20  # values that are scaled at a time: all at once take gigabytes of a large picture
_BITS = (8, 10, 12, 14, 16, 18, 20, 24, 32)
_TOPS = (1.0, *(2.0**bits - 1 for bits in _BITS))
_OVERSHOOT = 1.25  # times the top: what resampled floats come to
_TWELVE_OF_SIXTEEN = 4095 / 65535  # 12 bits in a file of 16, as a program makes floats of them
_MOST_NEGATIVE = 0.25  # share of the pixels, up to which values below 0 are noise


def to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale a picture to 0..255.

    Args:
        values: of any shape, whole numbers or floats. What is not a number becomes black.

    Returns:
        The same shape. Values from 0 to 1, to 255, to 1023, and so on to 32 bits, are divided by
        this top; larger ones, and those of which many are below 0, are stretched from the lowest
        to the highest.
    """
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    bottom, top = _range_of(known) if known.size else (0.0, 1.0)
    precise = np.float32 if values.dtype.itemsize <= 2 else np.float64
    flat, scaled = values.reshape(-1), np.empty(values.size, np.uint8)
    for start in range(0, values.size, _BAND):
        band = slice(start, start + _BAND)
        numbers = np.nan_to_num(flat[band], nan=bottom, posinf=top, neginf=bottom)
        shares = (numbers.astype(precise) - bottom) / (top - bottom)
        scaled[band] = np.round(shares.clip(0, 1) * 255)
    return scaled.reshape(values.shape)


def _range_of(values: NDArray[Any]) -> tuple[float, float]:
    """Return which values become 0 and 255."""
    lowest, highest = float(values.min()), float(values.max())
    is_float = values.dtype.kind == "f"
    top = next((t for t in _TOPS if highest <= t * (_OVERSHOOT if is_float else 1)), None)
    if top is None or (lowest < 0 and (values < 0).mean() > _MOST_NEGATIVE):
        is_normalised = lowest >= -1 and highest <= 1
        return (-1.0, 1.0) if is_normalised else (lowest, max(highest, lowest + 1))
    if is_float and 0 < highest <= _TWELVE_OF_SIXTEEN * 1.001:  # rounded
        return 0.0, _TWELVE_OF_SIXTEEN
    return 0.0, top
