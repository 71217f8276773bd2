"""COCO's run lengths: the only place that encodes and decodes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from .table import Ints, Ragged

_CHUNK = 2**16  # bytes of run lengths that are read at once: what fits into the cache
_MAX_DIGITS = 6  # 30 bits with the sign: more than the pixels of any image


def parse_counts(text: str) -> list[int]:
    """Read COCO's compressed run lengths, whose C decoder trusts them blindly.

    Returns:
        The lengths of the runs; a text that is no such thing gives [-1].
    """
    counts, is_broken = _parse_counts(Ragged.of_texts([text]))
    return [-1] if is_broken[0] else counts[0].tolist()


def cover_exactly(texts: Ragged, pixels: Ints) -> NDArray[np.bool_]:
    """Tell which compressed run lengths describe a bitmap of the expected size.

    Args:
        texts: N of them.
        pixels: (N,) how many pixels each is expected to have.

    Returns:
        (N,) bool; False for a text that is no run lengths, too.
    """
    found = [np.zeros(0, np.bool_)]
    first = 0
    while first < len(texts):
        end = int(np.searchsorted(texts.starts, texts.starts[first] + _CHUNK, "right")) - 1
        end = max(end, first + 1)
        found.append(_cover_exactly(texts.part(first, end), pixels[first:end]))
        first = end
    return np.concatenate(found)


def _cover_exactly(texts: Ragged, pixels: Ints) -> NDArray[np.bool_]:
    counts, is_broken = _parse_counts(texts)
    limits = np.repeat(pixels, counts.lengths)
    is_outside = Ragged((counts.values < 0) | (counts.values > limits), counts.starts).sums() > 0
    is_sound: NDArray[np.bool_] = ~is_broken & ~is_outside & (counts.sums() == pixels)
    return is_sound


def _parse_counts(texts: Ragged) -> tuple[Ragged, NDArray[np.bool_]]:
    """Read the run lengths of N texts, and tell which of these are broken.

    A number is written in 5-bit digits, lowest first, each with a bit that tells of more digits,
    the sign in the last. From the fourth on it is the difference to the last number but one.
    """
    digits = texts.values.astype(np.int64) - 48
    is_last = digits & 32 == 0
    ends = texts.starts[1:][texts.lengths > 0] - 1
    is_bad = (digits < 0) | (digits > 63)
    is_bad[ends] |= ~is_last[ends]
    is_last[ends] = True
    lasts = np.flatnonzero(is_last)
    lengths = np.diff(lasts, prepend=-1)
    places = np.arange(len(digits)) - np.repeat(lasts - lengths + 1, lengths)
    is_bad |= places >= _MAX_DIGITS
    bits = 5 * np.minimum(places, _MAX_DIGITS)
    numbers = Ragged.of_lengths((digits & 31) << bits, lengths).sums()
    numbers -= (digits[lasts] & 16) << bits[lasts] + 1
    starts = np.searchsorted(lasts, texts.starts)
    is_broken = Ragged(is_bad, texts.starts).sums() > 0
    return Ragged(_undo_differences(numbers, starts), starts), is_broken


def _undo_differences(numbers: Ints, starts: Ints) -> Ints:
    """Add up every other number of each row, from the second and from the third on."""
    sums = np.concatenate((np.zeros(2, np.int64), numbers))  # sums[i] += sums[i - 2], ...
    for parity in (0, 1):
        np.cumsum(sums[parity::2], out=sums[parity::2])
    lengths = np.diff(starts)
    firsts, lengths = starts[:-1][lengths > 0], lengths[lengths > 0]
    is_odd = (np.arange(len(numbers)) - np.repeat(firsts, lengths)) & 1 == 1
    # What the rows before have put into these sums, and the first number, which counts for itself.
    before = np.where(is_odd, *(np.repeat(sums[firsts + i], lengths) for i in (1, 2)))
    counts = sums[2:] - before
    counts[firsts] = numbers[firsts]
    return counts


def run_lengths(segmentation: Any, image_hw: tuple[int, int]) -> dict[str, Any]:
    """Convert polygons or uncompressed run lengths to COCO's compressed run lengths.

    Raises:
        ValueError: the run lengths do not cover their bitmap exactly.
    """
    if isinstance(segmentation, list):
        return _encode_polygons(segmentation, image_hw)
    if isinstance(segmentation["counts"], list):
        height, width = segmentation["size"]
        if sum(segmentation["counts"]) != height * width:
            raise ValueError(f"run lengths do not add up to {height} x {width} pixels")
        rle: dict[str, Any] = mask_utils.frPyObjects(segmentation, height, width)
        return rle
    return dict(segmentation)


def _encode_polygons(polygons: list[list[float]], image_hw: tuple[int, int]) -> dict[str, Any]:
    parts = mask_utils.frPyObjects(polygons, *image_hw)
    rle: dict[str, Any] = parts[0] if len(parts) == 1 else mask_utils.merge(parts)
    return rle
