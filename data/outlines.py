"""Object outlines (polygons, run lengths, bitmaps) drawn at the size of the network input."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from .augment import Placement

_REACH = 8  # polygon points farther away than this many canvas sides are pulled in: a memory bound


def rasterise(
    segmentation: Any, image_hw: tuple[int, int], placement: Placement, out: NDArray[np.bool_]
) -> None:
    """Draw one object into a cleared canvas.

    Polygons are moved first and drawn once at the final size, by COCO's own rules, so their edges
    are those of the outline and not of a resized bitmap. Bitmaps are cut and resized bilinearly.

    Args:
        segmentation: polygons (list of flat x, y lists), COCO run lengths, or an (H, W) bitmap.
        image_hw: height and width of the image that the outline refers to.
        placement: where the image lies on the canvas.
        out: (S, S) bool, all False, which is written to.

    Raises:
        ValueError: the run lengths do not describe a bitmap.
    """
    if placement.is_empty:
        return
    if isinstance(segmentation, list):
        _draw_polygons(segmentation, placement, out)
        return
    columns = _bitmap_columns(segmentation)
    if columns.shape != image_hw[::-1]:  # annotated on a copy of another size
        columns = _resized_columns(columns, image_hw)
    x1, y1, x2, y2 = placement.source
    left, top, right, bottom = placement.window
    piece = cv2.resize(columns[x1:x2, y1:y2] * np.uint8(255), (bottom - top, right - left))
    placement.unoriented(out)[top:bottom, left:right] = piece.T > 127


def parse_counts(text: str) -> list[int]:
    """Read COCO's compressed run lengths, whose C decoder trusts them blindly.

    Each number is written in 5-bit digits, lowest first, as the difference to the last but one.

    Returns:
        The lengths of the runs; a text that is no such thing gives [-1].
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode():
        digit = code - 48
        if not 0 <= digit < 64 or shift > 30:
            return [-1]
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:  # more to come
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return [-1] if shift else counts


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


def _bitmap_columns(segmentation: Any) -> NDArray[np.uint8]:
    """Return a bitmap transposed, (W, H): the order in which COCO's decoder lays it out."""
    if isinstance(segmentation, np.ndarray):
        return np.ascontiguousarray(segmentation.T, dtype=np.uint8)
    columns: NDArray[np.uint8] = mask_utils.decode(run_lengths(segmentation, (0, 0))).T
    return columns


def _resized_columns(columns: NDArray[np.uint8], image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    resized = cv2.resize(columns, image_hw, interpolation=cv2.INTER_NEAREST)
    return resized.astype(np.uint8, copy=False)


def _draw_polygons(
    polygons: list[list[float]], placement: Placement, out: NDArray[np.bool_]
) -> None:
    reach = _REACH * placement.image_size
    moved = [
        placement.points(np.asarray(polygon, np.float64).reshape(-1, 2)).clip(-reach, reach)
        for polygon in polygons
    ]
    corners = np.concatenate(moved)
    visible = placement.visible
    left, top = np.maximum(np.floor(corners.min(axis=0)), visible[:2]).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)), visible[2:]).astype(int).tolist()
    if right <= left or bottom <= top:
        return
    # Drawn from the canvas' corner on: moved to (left, top), coordinates would round differently.
    rle = _encode_polygons([points.ravel().tolist() for points in moved], (bottom, right))
    out[top:bottom, left:right] = mask_utils.decode(rle)[top:, left:]


def _encode_polygons(polygons: list[list[float]], image_hw: tuple[int, int]) -> dict[str, Any]:
    parts = mask_utils.frPyObjects(polygons, *image_hw)
    rle: dict[str, Any] = parts[0] if len(parts) == 1 else mask_utils.merge(parts)
    return rle
