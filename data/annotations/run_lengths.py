"""COCO's compressed run lengths: the only place that makes, reads, checks and compares them.

Column by column, the lengths of the runs of pixels outside, inside, outside, ... of a mask are
written as text. pycocotools' C decoder trusts such a text blindly, so none reaches it unchecked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.sample import Outline, Polygons, RunLengths
from layers.native import kernels_for

from .table import Ints, Ragged

_CHUNK = 2**16  # bytes of run lengths that are read at once: what fits into the cache
_MOST_RUNS = 2**24  # of a picture of numbers: memory for each
_MAX_DIGITS = 7  # 35 bits with the sign: more than the pixels of any image


def encode(
    bitmap: NDArray[np.bool_] | NDArray[np.uint8],
    image_hw: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> RunLengths:
    """Encode a mask, with the compiled kernel where there is one.

    Args:
        bitmap: (h, w) bool, or uint8 of 0 and 1.
        image_hw: height and width of the image, by default those of the bitmap.
        corner: x and y of the bitmap in the image; the mask is empty elsewhere.

    Raises:
        ValueError: the bitmap leaves the image.
    """
    height, width = image_hw or bitmap.shape
    (rows, columns), (x, y) = bitmap.shape, corner
    if not (0 <= x <= width - columns and 0 <= y <= height - rows):
        raise ValueError(
            f"a window of {columns} x {rows} pixels at {corner} leaves the image of "
            f"{width} x {height}"
        )
    kernels = kernels_for()
    pixels = np.ascontiguousarray(bitmap).view(np.uint8)
    if kernels is None:
        return _encode_columns(pixels, (height, width), corner)
    text = kernels.encode_mask(pixels, x, y, height, width)
    return {"size": [height, width], "counts": text.decode("ascii")}


def encode_regions(ids: NDArray[np.integer]) -> dict[int, RunLengths]:
    """Encode the pixels of each number of a picture, all in one pass.

    Args:
        ids: (H, W).

    Returns:
        The mask of each number that occurs, in rising order.

    Raises:
        ValueError: the picture is noise: the runs of its numbers are too many.
    """
    if not ids.size:
        return {}
    pixels = np.ascontiguousarray(ids.T).ravel()  # column by column
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    if len(starts) >= _MOST_RUNS:
        raise ValueError(f"{len(starts) + 1} runs of pixels, more than {_MOST_RUNS}")
    starts = np.concatenate(([0], starts))
    ends = np.append(starts[1:], len(pixels))
    order = np.argsort(pixels[starts], kind="stable")
    values, firsts = np.unique(pixels[starts][order], return_index=True)
    found = {}
    for number, runs in zip(values.tolist(), np.split(order, firsts[1:]), strict=True):
        bounds = np.stack((starts[runs], ends[runs]), axis=1).ravel()
        found[number] = _between(bounds, ids.shape)
    return found


def decode(outline: Outline, image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw an outline, by COCO's rules.

    Args:
        outline: polygons, run lengths or a bitmap.
        image_hw: height and width for polygons; the others have their own.

    Returns:
        (H, W) of 0 and 1, column by column in memory.

    Raises:
        ValueError: the run lengths do not cover their bitmap exactly.
    """
    if isinstance(outline, np.ndarray):
        return np.asfortranarray(outline, dtype=np.uint8)
    return decode_checked(from_outline(outline, image_hw))


def decode_checked(run_lengths: RunLengths) -> NDArray[np.uint8]:
    """Draw a mask that was checked: (H, W) of 0 and 1, column by column in memory."""
    bitmap: NDArray[np.uint8] = _codec().decode(run_lengths)
    return bitmap


def from_outline(outline: Outline, image_hw: tuple[int, int]) -> RunLengths:
    """Convert an outline to run lengths.

    Args:
        outline: polygons, run lengths or a bitmap.
        image_hw: height and width for polygons; the others have their own.

    Raises:
        ValueError: the run lengths do not cover their bitmap exactly.
    """
    if isinstance(outline, np.ndarray):
        return encode(outline)
    if isinstance(outline, list):
        return _from_polygons(outline, image_hw)
    height, width = outline["size"]
    check_counts(outline["counts"], height * width)
    return outline


def merge(parts: Iterable[RunLengths]) -> RunLengths:
    """Unite masks of one size, which were checked."""
    return _as_text(_codec().merge(list(parts)))


def measure(run_lengths: RunLengths) -> tuple[list[float], float]:
    """Return the x, y, width, height box and the area, in pixels, of a mask that was checked."""
    box: list[float] = _codec().toBbox(run_lengths).tolist()
    return box, float(_codec().area(run_lengths))


def overlaps(
    found: Sequence[RunLengths | list[float]],
    actual: Sequence[RunLengths | list[float]],
    is_crowd: Sequence[bool] = (),
) -> NDArray[np.float64]:
    """Compute overlaps as COCO does, of masks that were checked or of x, y, width, height boxes.

    Args:
        found: D of them.
        actual: G of them, in the same image and of the same kind.
        is_crowd: G; what lies in a crowd overlaps it fully. By default there are none.

    Returns:
        (D, G) in [0, 1].
    """
    crowds = [int(crowd) for crowd in is_crowd] or [0] * len(actual)
    result = np.asarray(_codec().iou(list(found), list(actual), crowds), np.float64)
    return result.reshape(len(found), len(actual))  # of nothing it is a list


def compress(counts: object, image_hw: tuple[int, int]) -> RunLengths:
    """Compress the lengths of runs, of unknown origin.

    Raises:
        ValueError: they are not a list of them, or do not cover the image exactly.
    """
    height, width = image_hw
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError(f"run lengths need a list of whole numbers, not {counts!r:.80}")
    if sum(counts) != height * width:
        raise ValueError(f"run lengths do not add up to {height} x {width} pixels")
    return _as_text(_codec().frPyObjects({"size": [height, width], "counts": counts}, *image_hw))


def check_counts(text: object, pixels: int) -> None:
    """Check compressed run lengths of unknown origin.

    Raises:
        ValueError: they are not a text, or not of a mask of so many pixels.
    """
    if not isinstance(text, str):
        raise ValueError(f"run lengths need a text as 'counts', not {text!r:.80}")
    if not cover_exactly(Ragged.of_texts([text]), np.array([pixels]))[0]:
        raise ValueError(f"run lengths {text!r:.80} do not cover {pixels} pixels exactly")


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
    """Decompress the run lengths of N texts, and tell which of these are broken.

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


def _from_polygons(polygons: Polygons, image_hw: tuple[int, int]) -> RunLengths:
    if not polygons:
        return encode(np.zeros(image_hw, np.bool_))
    parts = _codec().frPyObjects(polygons, *image_hw)
    return _as_text(parts[0] if len(parts) == 1 else _codec().merge(parts))


@cache
def _codec() -> Any:
    from pycocotools import mask  # what needs no run lengths works without it

    return mask


def _as_text(encoded: dict[str, Any]) -> RunLengths:
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def _encode_columns(
    bitmap: NDArray[np.uint8], image_hw: tuple[int, int], corner: tuple[int, int]
) -> RunLengths:
    rows = bitmap.shape[0]
    pixels = np.pad(bitmap, ((0, 1), (1, 0))).ravel("F")  # every run begins and ends in its column
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) - rows
    column, row = np.divmod(edges, rows + 1)
    places = (corner[0] + column) * image_hw[0] + corner[1] + row
    bounds, times = np.unique(places, return_counts=True)
    return _between(bounds[times == 1], image_hw)  # at the others a run goes on in the next column


def _between(bounds: NDArray[np.intp], image_hw: tuple[int, int]) -> RunLengths:
    """Write a mask as the places, column by column, where its runs begin, end, begin, ..."""
    counts = np.diff(bounds, prepend=0, append=image_hw[0] * image_hw[1])
    counts = counts[:-1] if len(bounds) and counts[-1] == 0 else counts
    return _as_text(_codec().frPyObjects({"size": [*image_hw], "counts": counts}, *image_hw))
