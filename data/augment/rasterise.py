"""Object outlines rasterised as masks of the network input's size."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data.annotations.run_lengths import decode
from data.sample import Outline, Polygons, has_mask

from .placement import Placement

_REACH = 8  # clip polygon points to this many canvas sides: bounds memory


def rasterise(
    outline: Outline, image_hw: tuple[int, int], placement: Placement, out: NDArray[np.bool_]
) -> None:
    """Draw one object into a cleared canvas.

    Polygons are first moved, then drawn once at the final size, by COCO's own rules, so their edges
    are those of the outline and not of a resized bitmap. Bitmaps are cut and resized bilinearly.

    Args:
        outline: outline of the object.
        image_hw: height and width of the image that the outline refers to.
        placement: where the image lies on the canvas.
        out: (S, S) bool, all False; changed in place.

    Raises:
        ValueError: the run lengths do not describe a bitmap.
    """
    if placement.is_empty or not has_mask(outline):
        return
    if isinstance(outline, list):
        _draw_polygons(outline, placement, out)
        return
    columns = decode(outline, image_hw).T  # (W, H), the order in memory
    if columns.shape != image_hw[::-1]:  # annotated on a copy of another size
        columns = _resized_columns(columns, image_hw)
    x1, y1, x2, y2 = placement.source
    left, top, right, bottom = placement.window
    piece = cv2.resize(columns[x1:x2, y1:y2] * np.uint8(255), (bottom - top, right - left))
    placement.unoriented(out)[top:bottom, left:right] = piece.T > 127


def _resized_columns(columns: NDArray[np.uint8], image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    resized = cv2.resize(columns, image_hw, interpolation=cv2.INTER_NEAREST)
    return resized.astype(np.uint8, copy=False)


def _draw_polygons(polygons: Polygons, placement: Placement, out: NDArray[np.bool_]) -> None:
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
    # Draw from the canvas' corner: if moved to (left, top), coordinates would round differently.
    drawn = decode([points.ravel().tolist() for points in moved], (bottom, right))
    out[top:bottom, left:right] = drawn[top:, left:]
