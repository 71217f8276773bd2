"""Pictures of more than 8 bits a channel, scaled to 8 by the range that they use.

Cameras of 10, 12 and 14 bits write files of 16, and programs write floats from 0 to 1, to 255 or to
whatever they measured. A file does not say which. So the values of each picture decide, by one rule
for training and for prediction: the top of the scale is the lowest usual one that nothing exceeds
but single hot pixels. Pictures of one camera thus get one scale, unless they are very dark, and
nothing is stretched but what has no usual scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BAND = 1 << 20  # values that are scaled at a time: all at once take gigabytes of a large picture
_BITS = (8, 10, 12, 14, 16, 18, 20, 24, 32)
_TOPS = (1.0, *(2.0**bits - 1 for bits in _BITS))
_LEAST_TOP = 255  # of whole numbers, above which a pixel can be hot: smaller ones are counts
_OVERSHOOT = 1.25  # times the top: what resampled floats come to
_TWELVE_OF_SIXTEEN = 4095 / 65535  # 12 bits in a file of 16, as a program makes floats of them
_HOT_OF = 10_000  # pixels, of which one may be hot: above the scale, and none beside it
_FEWEST = 1000  # pixels of a picture that has hot ones: in smaller ones every pixel counts
_MOST_NEGATIVE = 0.25  # share of the pixels, up to which values below 0 are noise


def to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale a picture to 0..255.

    Args:
        values: (H, W), (H, W, C) or of another shape, whole numbers or floats. What is not a
            number becomes black.

    Returns:
        The same shape, scaled by `scale_of`.
    """
    bottom, top = scale_of(values)
    precise = np.float32 if values.dtype.itemsize <= 2 else np.float64
    flat, scaled = values.reshape(-1), np.empty(values.size, np.uint8)
    for start in range(0, values.size, _BAND):
        band = slice(start, start + _BAND)
        numbers = np.nan_to_num(flat[band], nan=bottom, posinf=top, neginf=bottom)
        shares = (numbers.astype(precise) - bottom) / (top - bottom)
        scaled[band] = np.round(shares.clip(0, 1) * 255)
    return scaled.reshape(values.shape)


def scale_of(values: NDArray[Any]) -> tuple[float, float]:
    """Return which values of a picture become 0 and 255.

    Of values from 0 to 1, to 255, to 1023, and so on to 32 bits, 255 becomes this top; larger ones,
    and those of which many are below 0, are stretched from the lowest to the highest.

    Args:
        values: as in `to_8_bits`.
    """
    is_float = values.dtype.kind == "f"
    known = values[np.isfinite(values)] if is_float else values
    if not known.size:
        return 0.0, 1.0
    lowest, highest = float(known.min()), float(known.max())
    limits = [(t * _OVERSHOOT if is_float else t, t) for t in _TOPS]
    if is_float and highest <= _TWELVE_OF_SIXTEEN * 1.001:  # rounded
        limits.insert(0, (highest, _TWELVE_OF_SIXTEEN))
    top = next((top for limit, top in limits if _holds(limit, highest, values)), None)
    if top is None or (lowest < 0 and (known < 0).mean() > _MOST_NEGATIVE):
        is_normalised = lowest >= -1 and highest <= 1
        return (-1.0, 1.0) if is_normalised else (lowest, max(highest, lowest + 1))
    return 0.0, top


def _holds(limit: float, highest: float, values: NDArray[Any]) -> bool:
    """Tell whether nothing exceeds a limit but hot pixels, which are few and have no neighbours."""
    if highest <= limit:
        return True
    pixels = values.size // values.shape[-1] if values.ndim > 2 else values.size
    counts_all = values.ndim < 2 or pixels < _FEWEST
    if counts_all or (values.dtype.kind != "f" and limit < _LEAST_TOP):
        return False
    flat, channels = values.reshape(-1), values.size // pixels
    hot, most = np.empty(0, np.int64), -(-pixels // _HOT_OF)
    for start in range(0, values.size, _BAND):
        is_above = flat[start : start + _BAND] > limit
        if np.count_nonzero(is_above) > most * channels:
            return False
        hot = np.union1d(hot, (start + np.flatnonzero(is_above)) // channels)
        if len(hot) > most:
            return False
    steps = (1, *(values.shape[1] + side for side in (-1, 0, 1)))  # to the neighbours that follow
    return not any(np.isin(hot + step, hot).any() for step in steps)
