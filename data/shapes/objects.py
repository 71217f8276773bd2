"""The objects of a generated scene: their outlines, and the pixels that they cover.

A pixel (x, y) covers the square from (x, y) to (x + 1, y + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import as_uint8

Floats = NDArray[np.float32]

FULL_TURN = 2 * math.pi
_OVERSAMPLING = 4  # per axis: coverage in steps of 1/16
_SHIFT = 4  # fractional bits of the polygon coordinates that OpenCV takes


@dataclass(frozen=True, eq=False)
class Shape:
    """An object of a scene.

    Attributes:
        outline: a key of `OUTLINES`.
        center: x, y in pixels.
        radius: pixels; outlines are drawn about the unit circle.
        angle: radians, clockwise on the screen.
        stretch: height over width, before the rotation.
        texture: a key of `TEXTURES`.
        colors: (2, 3) RGB in [0, 1], blended by the texture.
        frequency: repeats of the texture within one radius.
        grain: (G, G) random numbers in [0, 1] for the noise texture.
    """

    outline: str
    center: tuple[float, float]
    radius: float
    angle: float
    stretch: float
    texture: str
    colors: Floats
    frequency: float
    grain: Floats


@dataclass(frozen=True, eq=False)
class RasterizedShape:
    """The pixels that a shape covers, in a window of its own with room for the shadow.

    Attributes:
        x: left column of the window in the image; may be negative.
        y: top row of the window in the image; may be negative.
        coverage: (h, w) uint8; 255 where the shape covers the whole pixel.
    """

    x: int
    y: int
    coverage: NDArray[np.uint8]

    @property
    def solid(self) -> NDArray[np.bool_]:
        """The pixels that the shape covers by more than half, (h, w)."""
        return self.coverage > 127

    def overlap(self, image_hw: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part inside an image as rows and columns of the image, and of the window."""
        rows, cols = (
            slice(min(max(start, 0), limit), max(min(start + size, limit), 0))
            for start, size, limit in zip(
                (self.y, self.x), self.coverage.shape, image_hw, strict=True
            )
        )
        inner = (
            slice(rows.start - self.y, rows.stop - self.y),
            slice(cols.start - self.x, cols.stop - self.x),
        )
        return (rows, cols), inner


def _arc(start: float, stop: float, radius: float = 1.0, x: float = 0.0) -> Floats:
    angles = np.linspace(start, stop, 72, endpoint=False)
    return polar(angles, radius) + np.array((x, 0.0), dtype=np.float32)


def polar(angles: NDArray[np.float64], radii: NDArray[np.float64] | float) -> Floats:
    """Return the (N, 2) points at N angles in radians."""
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)  # (N, 2)
    return np.asarray(points, dtype=np.float32)


def _polygon(*points: tuple[float, float]) -> Floats:
    return np.array(points, dtype=np.float32)


def _star(tips: int = 5, outer: float = 1.12, inner: float = 0.46) -> Floats:
    angles = np.arange(2 * tips) * math.pi / tips - math.pi / 2
    radii = np.where(np.arange(2 * tips) % 2 == 0, outer, inner)
    return polar(angles, radii)


def _heart() -> Floats:
    t = np.linspace(0.0, FULL_TURN, 96, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.asarray(np.stack([x, -2.5 - y], axis=1) / 15.5, dtype=np.float32)


def _crescent(bite: float = 0.86, shift: float = 0.5) -> Floats:
    """Cut a disc of radius `bite`, `shift` to the right, out of the unit disc."""
    tip_x = (1 - bite**2 + shift**2) / (2 * shift)
    tip_y = math.sqrt(1 - tip_x**2)
    outer, inner = math.atan2(tip_y, tip_x), math.atan2(tip_y, tip_x - shift)
    back = _arc(outer, FULL_TURN - outer)
    front = _arc(FULL_TURN - inner, inner, bite, shift)
    return np.concatenate([back, front]) + np.array((0.2, 0.0), dtype=np.float32)


def _cross(arm: float = 0.33) -> Floats:
    quarter = np.array([(arm, 1.0), (arm, arm), (1.0, arm)])
    turns = [quarter]
    for _ in range(3):
        turns.append(turns[-1] @ np.array([(0, -1), (1, 0)]))
    return np.concatenate(turns).astype(np.float32)


OUTLINES: dict[str, tuple[Floats, ...]] = {
    "circle": (_arc(0, FULL_TURN),),
    "square": (_polygon((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),),
    "triangle": (_polygon((0, -1.15), (0.996, 0.575), (-0.996, 0.575)),),
    "star": (_star(),),
    "ring": (_arc(0, FULL_TURN), _arc(0, FULL_TURN, 0.54)),
    "cross": (_cross(),),
    "heart": (_heart(),),
    "crescent": (_crescent(),),
}
"""Contours (N, 2) about the unit circle, filled by the even-odd rule: a second one is a hole."""


def rasterize(shape: Shape) -> RasterizedShape:
    """Draw the silhouette of a shape with anti-aliased edges."""
    cos, sin = math.cos(shape.angle), math.sin(shape.angle)
    turn = np.array([(cos, sin), (-sin * shape.stretch, cos * shape.stretch)]) * shape.radius
    contours = [contour @ turn + shape.center for contour in OUTLINES[shape.outline]]
    margin = 2 + 0.3 * shape.radius
    x, y = (math.floor(low) for low in contours[0].min(axis=0) - margin)
    right, bottom = (math.ceil(high) for high in contours[0].max(axis=0) + margin)
    fine = np.zeros(((bottom - y) * _OVERSAMPLING, (right - x) * _OVERSAMPLING), dtype=np.uint8)
    # OpenCV counts coordinates from pixel centres, hence the half.
    fixed = [
        np.rint(((c - (x, y)) * _OVERSAMPLING - 0.5) * 2**_SHIFT).astype(np.int32) for c in contours
    ]
    cv2.fillPoly(fine, fixed, 255, shift=_SHIFT)
    coverage = cv2.resize(fine, (right - x, bottom - y), interpolation=cv2.INTER_AREA)
    return RasterizedShape(x, y, as_uint8(coverage))
