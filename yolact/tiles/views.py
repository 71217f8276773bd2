"""The parts of an image that the network runs on one at a time."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np

from data.images import Image
from layers.native import Window
from yolact.sources.pixels import Pixels


def tile_windows(image_hw: tuple[int, int], side: int, overlap: float) -> list[Window]:
    """Cover an image with evenly spread tiles, none of which crosses its border.

    Args:
        image_hw: height and width of the image.
        side: side of a tile in pixels; tiles are smaller if the image is narrower.
        overlap: minimum overlap of neighbouring tiles, as a share of a side, below 1.
    """
    columns, rows = (_spread(size, side, overlap) for size in reversed(image_hw))
    return [(x1, y1, x2, y2) for (y1, y2), (x1, x2) in itertools.product(rows, columns)]


def read_view(image: Pixels, view: Window, side: int) -> Image:
    """Read a part of an image; if larger than `side` pixels, shrink it to that by area averaging.

    At most `side` x `side` pixels are read at a time, however large the part.
    """
    x1, y1, x2, y2 = view
    scale = min(side / max(x2 - x1, y2 - y1), 1)
    width, height = (max(round(length * scale), 1) for length in (x2 - x1, y2 - y1))
    small = np.empty((height, width, 3), np.uint8)
    blocks = itertools.product(_blocks(y1, y2, height, side), _blocks(x1, x2, width, side))
    for (rows, to_rows), (columns, to_columns) in blocks:
        block, target = np.asarray(image[rows, columns]), small[to_rows, to_columns]
        target[:] = cv2.resize(block, target.shape[1::-1], interpolation=cv2.INTER_AREA)
    return small


def _spread(size: int, side: int, overlap: float) -> list[tuple[int, int]]:
    room = max(size - side, 0)
    steps = math.ceil(room / max(side * (1 - overlap), 1))
    return [(start, min(start + side, size)) for start in _edges(room, steps)]


def _blocks(start: int, end: int, pixels: int, most: int) -> list[tuple[slice, slice]]:
    """Pair slices of an axis with the slices of `pixels` output pixels that they shrink to."""
    count = min(math.ceil((end - start) / most), pixels)
    to = _edges(pixels, count)
    of = [start + round((end - start) * edge / pixels) for edge in to]
    return [
        (slice(*source), slice(*target))
        for source, target in zip(itertools.pairwise(of), itertools.pairwise(to), strict=True)
    ]


def _edges(end: int, steps: int) -> list[int]:
    """Return `steps` + 1 whole numbers from 0 to the end, evenly spread."""
    return [round(end * step / max(steps, 1)) for step in range(steps + 1)]
