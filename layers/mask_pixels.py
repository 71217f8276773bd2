"""Pixels of one mask at image scale in NumPy: the fallback for mask_pixels.pxi if not compiled.

Arguments and results equal the kernels', to the last bit: every step is rounded to float32, except
for windows, as float32 counts pixels only up to 2^24.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .native import Bytes, Floats, Window

_BAND = 2**16  # pixels sampled at a time, with a few floats each: as many as fit into the cache


@np.errstate(over="ignore", invalid="ignore")
def mask_window(soft_mask: Floats, frame: Sequence[float], height: int, width: int) -> Window:
    """Bound the pixels of a mask in an image: a pixel exceeds 0.5 only next to a cell that does."""
    sides = np.array(frame, np.float64)
    extent = sides[2:] - sides[:2]
    above = soft_mask > 0.5
    columns, rows = np.flatnonzero(above.any(axis=0)), np.flatnonzero(above.any(axis=1))
    if not (len(rows) and (extent > 0).all() and np.isfinite(extent).all()):
        return 0, 0, 0, 0
    x1, x2 = _pixels_near(columns, soft_mask.shape[1], sides[0], sides[2], width)
    y1, y2 = _pixels_near(rows, soft_mask.shape[0], sides[1], sides[3], height)
    return x1, y1, x2, y2


def _pixels_near(
    occupied: NDArray[np.intp], cells: int, low: np.float64, high: np.float64, size: int
) -> tuple[int, int]:
    """Bound the pixels of an axis of `size` pixels that the occupied cells influence."""
    start, per_cell = low, (high - low) / cells
    if occupied[0] > 0:
        low = start + (occupied[0] - 0.5) * per_cell
    if occupied[-1] < cells - 1:
        high = start + (occupied[-1] + 1.5) * per_cell
    first = min(max(math.floor(low), 0), size)
    return first, max(min(max(math.ceil(high), 0), size), first)


@np.errstate(over="ignore", invalid="ignore")
def sample_mask(
    soft_mask: Floats, frame: Sequence[float], window: Sequence[int], out: Bytes
) -> None:
    """Make the bitmap of a mask: interpolate down the columns of cells, then along the rows."""
    x1, y1, x2, y2 = window
    if x1 == x2 or y1 == y2:
        return
    left, top, right, bottom = np.array(frame, np.float32)
    rows, weights = _locate(y1, y2, top, bottom, soft_mask.shape[0])
    cells, shares = _locate(x1, x2, left, right, soft_mask.shape[1])
    touched = soft_mask[:, cells[0] : cells[-1] + 2]
    cells -= cells[0]
    lower = touched[np.minimum(rows + 1, len(soft_mask) - 1)]
    upper = touched[rows]
    # One line per column of cells: whole lines are copied faster than single numbers.
    columns = np.ascontiguousarray(((lower - upper) * weights[:, None] + upper).T)
    steps = np.diff(columns, axis=0, append=columns[-1:])  # the edge is repeated
    pixels = out.view(np.bool_)
    at_once = max(_BAND // (y2 - y1), 1)
    for start in range(0, x2 - x1, at_once):
        band = slice(start, start + at_once)
        values = steps.take(cells[band], axis=0)
        values *= shares[band, None]
        values += columns.take(cells[band], axis=0)
        pixels[:, band] = (values > 0.5).T


def _locate(
    first: int, end: int, low: np.float32, high: np.float32, cells: int
) -> tuple[NDArray[np.intp], Floats]:
    """Find the last cell with its centre not after each pixel's, and the next cell's weight."""
    scale = np.float32(1) / np.fmax(high - low, np.float32(1e-6)) * np.float32(cells)
    source = np.arange(first, end, dtype=np.float32) + np.float32(0.5)
    source = (source - low) * scale - np.float32(0.5)
    source = np.fmin(np.fmax(source, np.float32(0)), np.float32(cells - 1))  # NaN counts as 0
    cell = source.astype(np.intp)
    return cell, source - cell.astype(np.float32)


def blend_mask(
    soft_mask: Floats, frame: Sequence[float], window: Sequence[int], canvas: Bytes, table: Bytes
) -> None:
    """Recolour the pixels of a mask.

    Raises:
        ValueError: the window leaves the canvas.
    """
    x1, y1, x2, y2 = window
    height, width = canvas.shape[:2]
    if not (0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height):
        raise ValueError(f"the window {tuple(window)} on {width} x {height} pixels")
    inside = np.empty((y2 - y1, x2 - x1), np.uint8)
    sample_mask(soft_mask, frame, window, inside)
    for channel in range(3):
        plane = canvas[y1:y2, x1:x2, channel]
        np.copyto(plane, table[plane, channel], where=inside.view(np.bool_))
