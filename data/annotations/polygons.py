"""Polygons along the edges of a mask's pixels, and the single rings that most formats take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.floating]
"""(P, 2) x, y of a closed line, in pixels; the last point joins the first."""


_LEAST_TOLERANCE = 0.25  # a smaller one would only cut the corners of pixels
_SHORT_BRIDGES = 500  # of a ring: to look for more of them takes the square of their number


class Polygon(NamedTuple):
    """A connected part of a mask.

    Attributes:
        outline: its outer border.
        holes: the borders of what is cut out of it.
    """

    outline: Ring
    holes: tuple[Ring, ...] = ()


def trace(
    bitmap: NDArray[np.bool_] | NDArray[np.uint8],
    corner: tuple[int, int] = (0, 0),
    tolerance: float = 0.0,
) -> list[Polygon]:
    """Outline a mask along the edges of its pixels: pixel (x, y) fills x to x + 1, y to y + 1.

    Without tolerance the polygons are exact: drawn by COCO's rules they give the mask again.

    Args:
        bitmap: (h, w) bool, or uint8 of 0 and 1.
        corner: x and y of the bitmap in the image, added to the points.
        tolerance: leave out points while the line moves by less than this, in pixels; the outline
            of a small part is left as it is.

    Returns:
        One polygon for each part, pixels that touch at a corner being of one part.
    """
    # OpenCV joins the centres of border pixels. With every pixel doubled, these become corners: of
    # a pixel i, the left half 2i is nearest to its left edge i, the right half to i + 1.
    doubled = np.asarray(bitmap, np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return []
    offset = np.array(corner, np.float32)
    rings = [_simplified(_corners(contour), tolerance) + offset for contour in contours]
    holes: dict[int, list[Ring]] = {}
    for ring, (*_, parent) in zip(rings, hierarchy[0], strict=True):
        holes.setdefault(int(parent), []).append(ring)  # -1 collects the outlines
    outer = [i for i, (*_, parent) in enumerate(hierarchy[0]) if parent < 0]
    return [Polygon(rings[i], tuple(holes.get(i, ()))) for i in outer]


def one_ring(polygons: Iterable[Polygon]) -> Ring:
    """Join outlines and holes to one closed line, by bridges that are walked there and back.

    Such a bridge has no area: filled by the even-odd rule, as COCO's tools do, the ring gives the
    same mask, so formats that know one outline for each object keep holes and several parts.

    Args:
        polygons: of one object, at least one.
    """
    rings = [ring for polygon in polygons for ring in (polygon.outline, *polygon.holes)]
    joined = rings[0]
    for ring in rings[1:_SHORT_BRIDGES]:
        nearest = int(np.square(joined - ring[0]).sum(axis=1).argmin())
        joined = np.concatenate((joined[: nearest + 1], ring, ring[:1], joined[nearest:]))
    if not (rest := rings[_SHORT_BRIDGES:]):
        return joined
    starts = np.stack([ring[0] for ring in rest])
    order = _serpentine(starts)
    there = (part for index in order for part in (rest[index], starts[index][None]))
    return np.concatenate((joined, *there, starts[order[-2::-1]], joined[-1:]))


def _serpentine(points: Ring) -> NDArray[np.intp]:
    """Order (P, 2) points on a line that goes to and fro in strips, so that its steps are short."""
    y = points[:, 1] - points[:, 1].min()
    strips = np.sqrt(len(points))
    strip = (y * strips / (y.max() + 1)).astype(int)
    along = np.where(strip % 2, -points[:, 0], points[:, 0])
    return np.lexsort((along, strip))


def flat_rings(polygons: Sequence[Polygon]) -> list[list[float]]:
    """Return COCO's flat x, y, x, y, ... list for each part, holes joined to its outline."""
    rings: list[list[float]] = [one_ring([polygon]).reshape(-1).tolist() for polygon in polygons]
    return rings


def _corners(contour: cv2.typing.MatLike) -> Ring:
    """Return the corners of pixels where a contour of the doubled mask turns."""
    points = (np.asarray(contour, np.int32)[:, 0] + 1) // 2
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    corners: Ring = points[turns].astype(np.float32)
    return corners


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """Drop points by Douglas and Peucker's rule, few enough to keep the area within some 3 %.

    The line first runs through the middles of the pixels' sides, for through their corners it
    would be left with the outer ones.
    """
    sides = np.roll(ring, -1, axis=0) - ring
    lengths = np.abs(sides).sum(axis=1).astype(int)
    tolerance = min(tolerance, 0.1 * cv2.contourArea(ring) / lengths.sum())
    if tolerance < _LEAST_TOLERANCE:
        return ring
    along = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) + 0.5
    steps = (sides / lengths[:, None]).repeat(lengths, axis=0) * along[:, None]
    middles = (ring.repeat(lengths, axis=0) + steps).astype(np.float32)
    fewer = cv2.approxPolyDP(middles[:, None], tolerance, closed=True)[:, 0]
    return np.asarray(fewer, np.float32) if len(fewer) < len(ring) else ring
