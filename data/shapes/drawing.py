"""The painting of a generated scene: textures, shading, shadows, backgrounds and light.

Images are (H, W, 3) float32 RGB in [0, 1] until `expose` makes bytes of them.

OpenCV's `transform` (colours from one plane) and `cvtColor` (one plane, three times) stand where
NumPy would broadcast over the three channels: several times faster.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from data.images import Image, as_uint8

from .objects import FULL_TURN, Floats, RasterizedShape, Shape, polar

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class Light:
    """Light and sensor of a scene.

    Attributes:
        direction: unit vector x, y in which the light travels and shadows fall.
        shadow: darkness of the shadows in [0, 1].
        field: (H, W) brightness about 1, falling off across the image.
        tint: (3, 1) factor on the channels: exposure and colour temperature.
        grain: amplitude of the noise, as a share of the brightness.
    """

    direction: tuple[float, float]
    shadow: float
    field: Floats
    tint: Floats
    grain: float


def _plain(u: Floats, v: Floats, shape: Shape) -> Floats:
    return np.zeros_like(u)


def _stripes(u: Floats, v: Floats, shape: Shape) -> Floats:
    return _step(np.sin(u * np.float32(math.pi * shape.frequency)), shape)


def _checks(u: Floats, v: Floats, shape: Shape) -> Floats:
    scale = np.float32(math.pi * shape.frequency)
    return _step(np.sin(u * scale) * np.sin(v * scale), shape)


def _dots(u: Floats, v: Floats, shape: Shape) -> Floats:
    scale = np.float32(shape.frequency)
    u, v = u * scale, v * scale
    u, v = u - np.rint(u), v - np.rint(v)
    depth = 1 - (u * u + v * v) / np.float32(0.09)  # dots of 0.3 cells radius
    return _step(np.asarray(depth, dtype=np.float32), shape)


def _gradient(u: Floats, v: Floats, shape: Shape) -> Floats:
    return np.asarray(np.clip(u * 0.5 + 0.5, 0, 1), dtype=np.float32)


def _noise(u: Floats, v: Floats, shape: Shape) -> Floats:
    scale, middle = np.float32(shape.frequency), np.float32(len(shape.grain) / 2)
    at = u * scale + middle, v * scale + middle
    found = cv2.remap(shape.grain, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(found, dtype=np.float32)


def _step(wave: Floats, shape: Shape) -> Floats:
    """Turn a wave into two flat colours, with an edge about one pixel wide."""
    sharpness = np.float32(max(shape.radius / (4 * shape.frequency), 0.5))
    return np.asarray(np.clip(wave * sharpness + 0.5, 0, 1), dtype=np.float32)


TEXTURES: dict[str, Callable[[Floats, Floats, Shape], Floats]] = {
    "plain": _plain,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "gradient": _gradient,
    "noise": _noise,
}
"""Functions of object coordinates u, v, in radii and turned with the object, to [0, 1]."""


def texture_blend(shape: Shape, x: int, y: int, hw: tuple[int, int]) -> Floats:
    """Evaluate the texture of a shape on the (h, w) window whose top left pixel is (x, y)."""
    dx = (np.arange(hw[1], dtype=np.float32) + (x + 0.5 - shape.center[0])) / shape.radius
    dy = (np.arange(hw[0], dtype=np.float32) + (y + 0.5 - shape.center[1])) / shape.radius
    dx, dy = dx.astype(np.float32)[None, :], dy.astype(np.float32)[:, None]
    cos, sin = np.float32(math.cos(shape.angle)), np.float32(math.sin(shape.angle))
    return TEXTURES[shape.texture](cos * dx + sin * dy, cos * dy - sin * dx, shape)


def _relief(raster: RasterizedShape, light: Light) -> tuple[Floats, Floats]:
    """Return the brightness of the rounded edges, about 1, and the shadow in [0, 1]; both (h, w).

    Both are smooth, so they are computed on a grid of about 36 cells a side.
    """
    h, w = raster.coverage.shape
    cell = max(h, w) / 36
    small_wh = max(round(w / cell), 1), max(round(h / cell), 1)
    small = cv2.resize(raster.coverage, small_wh, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small.astype(np.float32) / 255, (0, 0), 1.1)
    dx, dy = light.direction
    slope = dx * cv2.Sobel(soft, cv2.CV_32F, 1, 0) + dy * cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    shift = np.array([(1, 0, 2.4 * dx), (0, 1, 2.4 * dy)], dtype=np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(soft, shift, small_wh), (0, 0), 1.0)
    relief, cast = (
        np.asarray(cv2.resize(part, (w, h), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
        for part in (1 + 0.16 * slope, light.shadow * shadow)
    )
    return relief, cast


def paint_shape(image: Floats, shape: Shape, raster: RasterizedShape, light: Light) -> None:
    """Paint a shape and its shadow on an image, in place, inside the raster's window."""
    outer, inner = raster.overlap((image.shape[0], image.shape[1]))
    canvas = image[outer]
    if canvas.size == 0:
        return
    relief, shadow = (part[inner] for part in _relief(raster, light))
    x, y = raster.x + inner[1].start, raster.y + inner[0].start
    blend = texture_blend(shape, x, y, (canvas.shape[0], canvas.shape[1]))
    first, second = shape.colors
    color = _tinted(blend, np.stack([second - first, first], axis=1)) * _tinted(relief)
    canvas *= _tinted(1 - shadow)
    color -= canvas
    color *= _tinted(raster.coverage[inner] * np.float32(1 / 255))
    canvas += color


def _tinted(plane: Floats, colors: Floats | None = None) -> Floats:
    """Colour a plane of brightness: (h, w) -> (h, w, 3).

    Args:
        plane: brightness.
        colors: (3, 1) factor, or (3, 2) factor and offset, of the channels; None for grey.
    """
    if colors is None:
        return np.asarray(cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB), dtype=np.float32)
    return np.asarray(cv2.transform(plane, colors), dtype=np.float32)


def random_colors(
    rng: Rng, saturation: tuple[float, float] = (0.35, 0.95), value: tuple[float, float] = (0.5, 1)
) -> Floats:
    """Draw six RGB colours in [0, 1] of any hue, (6, 3); by default those of objects."""
    drawn = zip(rng.random(6), rng.uniform(*saturation, 6), rng.uniform(*value, 6), strict=True)
    return np.array([colorsys.hsv_to_rgb(*hsv) for hsv in drawn], dtype=np.float32)


def random_light(rng: Rng, image_hw: tuple[int, int]) -> Light:
    """Draw the lighting of a scene."""
    angle = rng.uniform(0, FULL_TURN)
    direction = math.cos(angle), math.sin(angle)
    y, x = (np.linspace(-0.5, 0.5, side, dtype=np.float32) for side in image_hw)
    fall_off = np.float32(rng.uniform(0.0, 0.5))
    field = 1 - fall_off * (x[None, :] * direction[0] + y[:, None] * direction[1])
    field -= np.float32(rng.uniform(0.0, 0.5)) * (x[None, :] ** 2 + y[:, None] ** 2)
    warmth = rng.uniform(-0.08, 0.08)
    tint = np.array(((1 + warmth,), (1.0,), (1 - warmth,)), dtype=np.float32)
    tint *= np.float32(rng.uniform(0.85, 1.2))
    return Light(direction, rng.uniform(0.3, 0.65), field, tint, rng.uniform(0.0, 0.1))


def paint_background(rng: Rng, image_hw: tuple[int, int], palette: Floats) -> Floats:
    """Paint clutter without objects: a colour wash, irregular blobs, strokes and blotches.

    Args:
        rng: source of every choice.
        image_hw: size in pixels.
        palette: (N, 3) colours of the objects, RGB in [0, 1]; the clutter has them too.

    Returns:
        (H, W, 3) RGB in [0, 1].
    """
    h, w = image_hw
    wash = random_colors(rng, (0.05, 0.6), (0.35, 1.0)).reshape(2, 3, 3)
    wash += np.float32(0.6) * (wash.mean(axis=(0, 1)) - wash)
    corners = (wash.clip(0, 1) * 255).astype(np.uint8)  # (2, 3, 3)
    canvas = as_uint8(cv2.resize(corners, (w, h), interpolation=cv2.INTER_CUBIC))  # (H, W, 3)
    faded = palette + np.float32(0.35) * (wash.mean(axis=(0, 1)) - palette)
    for _ in range(rng.integers(3, 11)):
        _paint_clutter(rng, canvas, tuple(255 * float(c) for c in rng.choice(faded)))
    if rng.random() < 0.7:  # out of focus, as backgrounds are
        cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.003, 0.01) * min(h, w), dst=canvas)
    cells = int(rng.integers(6, 48))
    contrast = rng.uniform(0.0, 0.3)
    blotches = 1 + np.float32(contrast) * (rng.random((cells, cells), dtype=np.float32) - 0.5)
    factors = cv2.resize(blotches / 255, (w, h), interpolation=cv2.INTER_CUBIC)
    image = _tinted(np.asarray(factors, dtype=np.float32))
    image *= canvas
    return image


def _paint_clutter(rng: Rng, canvas: Image, color: tuple[float, ...]) -> None:
    """Draw one irregular polygon or one open stroke, in place."""
    h, w = canvas.shape[:2]
    center = rng.uniform((0, 0), (w, h))
    count = int(rng.integers(6, 11))
    if rng.random() < 0.6:
        # One corner in each sector, or the blob could look like a triangle.
        angles = (np.arange(count) + rng.uniform(-0.4, 0.4, count)) * (FULL_TURN / count)
        reach = rng.uniform(0.06, 0.3) * min(h, w) * rng.uniform(0.5, 1.0, count)
        points = center + polar(angles, reach)
        cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], color, cv2.LINE_AA)
    else:
        points = center + np.cumsum(rng.normal(0, 0.16 * min(h, w), (count, 2)), axis=0)
        thickness = max(1, round(rng.uniform(0.003, 0.025) * min(h, w)))
        fixed = [np.rint(points).astype(np.int32)]
        cv2.polylines(canvas, fixed, False, color, thickness, cv2.LINE_AA)


def expose(rng: Rng, image: Floats, light: Light) -> Image:
    """Light a painted scene, and add the noise of a sensor: (H, W, 3) uint8."""
    noise = rng.integers(0, 256, image.shape[:2], dtype=np.uint8).astype(np.float32)
    noise = (noise - np.float32(127.5)) * np.float32(light.grain / 127.5)
    exposed = _tinted(light.field + noise, light.tint)
    exposed *= image
    return as_uint8(cv2.convertScaleAbs(exposed, alpha=255))  # cuts off at 255
