"""A video of the objects of the generated scenes in motion."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.classes import SHAPE_CLASSES
from data.images import Image
from data.video.writer import VideoWriter

from .drawing import expose, paint_background, paint_shape, random_colors, random_light
from .objects import rasterize
from .scenes import random_shape


def shape_clip(
    frames: int, image_hw: tuple[int, int] = (360, 640), seed: int = 0
) -> Iterator[Image]:
    """Generate frames: one object of each class, moving and turning over a still background.

    Args:
        frames: number of frames.
        image_hw: size in pixels.
        seed: not negative; another seed gives another video.

    Yields:
        (H, W, 3) uint8 RGB.
    """
    rng = np.random.default_rng((seed, 0))
    palette = random_colors(rng)
    light = replace(
        random_light(rng, image_hw), grain=0.015
    )  # more noise would cost the video its bits
    background = paint_background(rng, image_hw, palette)
    shapes = [
        random_shape(rng, name, image_hw, palette) for name in rng.permutation(SHAPE_CLASSES.names)
    ]
    velocities = rng.uniform(-0.012, 0.012, (len(shapes), 2)) * min(image_hw)
    spins = rng.uniform(-0.05, 0.05, len(shapes))
    for frame in range(frames):
        image = background.copy()
        for shape, velocity, spin in zip(shapes, velocities, spins, strict=True):
            x, y = (
                _bounce(start + frame * float(step), side)
                for start, step, side in zip(shape.center, velocity, image_hw[::-1], strict=True)
            )
            moved = replace(shape, center=(x, y), angle=shape.angle + frame * float(spin))
            paint_shape(image, moved, rasterize(moved), light)
        yield expose(rng, image, light)


def export_clip(path: Path, frames: Iterable[Image], fps: float = 25.0) -> None:
    """Write frames to a video file.

    Args:
        path: see `VideoWriter`.
        frames: (H, W, 3) uint8 RGB, all of one size.
        fps: frames per second.

    Raises:
        ValueError: there is no frame, or the file cannot be written.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"no frames to write to {path}")
    with VideoWriter(path, fps, (first.shape[0], first.shape[1])) as writer:
        for frame in itertools.chain([first], frames):
            writer.write(frame)


def _bounce(position: float, limit: float) -> float:
    """Reflect a coordinate at 0 and at `limit`, as often as needed."""
    folded = position % (2 * limit)
    return min(folded, 2 * limit - folded)
