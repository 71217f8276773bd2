"""Generated images far larger than a network's input, with many objects of very different sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from data.annotations.as_coco import annotation_of
from data.annotations.run_lengths import encode
from data.classes import SHAPE_CLASSES
from data.images import Image
from data.sample import Annotation

from .drawing import expose, paint_background, paint_shape, random_colors, random_light
from .objects import RasterizedShape, Shape
from .scenes import place_behind, random_shape

_CLUTTER = 512  # side of a piece of background
_ROOM = 300  # side of a square with one object


def large_scene(side: int, sizes: tuple[float, float], seed: int) -> tuple[Image, list[Annotation]]:
    """Generate an image and its annotations, with an object for each 300 x 300 pixels at most.

    Args:
        side: of the image in pixels.
        sizes: least and most diameter of an object, whose logarithm is evenly spread.
        seed: another gives another image; also its id.
    """
    count = max(side // _ROOM, 1) ** 2
    rng, image_hw = np.random.default_rng(seed), (side, side)
    palette, light = random_colors(rng), random_light(rng, image_hw)
    canvas = np.empty((side, side, 3), np.float32)
    for y, x in product(range(0, side, _CLUTTER), repeat=2):
        part = canvas[y : y + _CLUTTER, x : x + _CLUTTER]
        part[:] = paint_background(rng, (part.shape[0], part.shape[1]), palette)
    owner = np.full(image_hw, -1, np.int32)
    placed: list[tuple[Shape, RasterizedShape]] = []
    for _ in range(count):
        name = str(rng.choice(SHAPE_CLASSES.names))
        radius = math.exp(rng.uniform(*np.log(sizes))) / 2
        shape = replace(random_shape(rng, name, image_hw, palette), radius=radius)
        place_behind(shape, placed, owner)
    for shape, raster in reversed(placed):  # the first lies on top
        paint_shape(canvas, shape, raster, light)
    return expose(rng, canvas, light), _entries_of(placed, owner, seed)


def _entries_of(
    placed: Sequence[tuple[Shape, RasterizedShape]], owner: NDArray[np.int32], image_id: int
) -> list[Annotation]:
    """Return COCO's entries of the visible parts; `owner` (H, W) is the object of each pixel."""
    entries: list[Annotation] = []
    image_hw = owner.shape[0], owner.shape[1]
    for number, (shape, raster) in enumerate(placed):
        rows, columns = raster.overlap(image_hw)[0]
        corner = (columns.start, rows.start)
        run_lengths = encode(owner[rows, columns] == number, image_hw, corner)
        category_id = SHAPE_CLASSES.id_of[shape.outline]
        entries.append(annotation_of(run_lengths, 0, image_id, category_id))
    return entries
