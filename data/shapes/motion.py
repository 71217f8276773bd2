"""Videos of generated objects with exact masks and identities, the truth for tracks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from data.classes import SHAPE_CLASSES
from data.images import Image

from .drawing import Rng, expose, paint_background, paint_shape, random_colors, random_light
from .objects import FULL_TURN, Floats, Shape, rasterize
from .scenes import MIN_VISIBLE_PIXELS, random_shape

Kind = Literal["moving", "scaling", "crossing", "passing", "hidden", "pan", "cut"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""On ellipses; also growing and shrinking; two of a class across each other; in and out of the
picture; behind a wall; under a camera that pans; another scene halfway."""

MIN_VISIBLE_SHARE = 0.25
_GRAIN = 0.015  # more noise would cost a video its bits
_CELLS = 2, 3  # rows and columns of objects that keep apart


class GroundTruthFrame(NamedTuple):
    """A frame and the N objects of which at least a quarter is visible.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool, the visible parts.
        labels: (N,) int64, 0-based, see `SHAPE_CLASSES`.
        ids: (N,) int64; an object keeps its own for the whole video.
    """

    image: Image
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MovingObject:
    """An object and its way, in pixels and frames.

    Attributes:
        shape: the object, about its middle position.
        velocity: x and y for each frame.
        sway: half axes of an ellipse about the middle position.
        period: frames for one way around it.
        phase: where on it the way begins, in radians.
        swell: share of the radius by which it grows and shrinks in a period.
        spin: radians for each frame.
    """

    shape: Shape
    velocity: tuple[float, float] = (0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.0)
    period: float = 1.0
    phase: float = 0.0
    swell: float = 0.0
    spin: float = 0.0

    def at(self, frame: int, offset: int = 0) -> Shape:
        """Return the object in a frame, seen by a camera that is so many pixels to the right."""
        turn = FULL_TURN * frame / self.period + self.phase
        x = self.shape.center[0] + frame * self.velocity[0] + self.sway[0] * math.cos(turn)
        y = self.shape.center[1] + frame * self.velocity[1] + self.sway[1] * math.sin(turn)
        return replace(
            self.shape,
            center=(x - offset, y),
            radius=self.shape.radius * (1 + self.swell * math.sin(turn)),
            angle=self.shape.angle + frame * self.spin,
        )


@dataclass(frozen=True, eq=False)
class _Scene:
    """What a video shows.

    Attributes:
        objects: front to back.
        background: (H, at least W, 3).
        wall: columns that hide all objects, and what they show instead; None for no wall.
        offsets: by how many pixels the camera is to the right, in each frame.
    """

    objects: Sequence[MovingObject]
    background: Floats
    wall: tuple[slice, Floats] | None = None
    offsets: Sequence[int] | None = None


def moving_shapes(
    kind: Kind, frames: int = 150, image_hw: tuple[int, int] = (384, 512), seed: int = 0
) -> Iterator[GroundTruthFrame]:
    """Generate a video; the same arguments give the same pixels.

    What happens takes all of the frames: in fewer of them objects move faster.

    Args:
        kind: what happens, see `KINDS`.
        frames: number of frames.
        image_hw: size in pixels.
        seed: not negative; another seed gives another video.

    Yields:
        Frame after frame with its truth; `export_clip` writes images to a file.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    if kind != "cut":
        yield from _render_frames(rng, kind, frames, image_hw)
        return
    yield from _render_frames(rng, "moving", frames // 2, image_hw)
    for frame in _render_frames(rng, "scaling", frames - frames // 2, image_hw):
        yield frame._replace(ids=frame.ids + _CELLS[0] * _CELLS[1])


def _render_frames(
    rng: Rng, kind: Kind, frames: int, image_hw: tuple[int, int]
) -> Iterator[GroundTruthFrame]:
    palette = random_colors(rng)
    light = replace(random_light(rng, image_hw), grain=_GRAIN)
    scene = _SCENES[kind](rng, palette, image_hw, max(frames, 1))
    for frame in range(frames):
        offset = scene.offsets[frame] if scene.offsets else 0
        image = scene.background[:, offset : offset + image_hw[1]].copy()
        placed = [
            (shape, rasterize(shape)) for shape in (m.at(frame, offset) for m in scene.objects)
        ]
        owner = np.full(image_hw, -1, np.int64)
        for number, (shape, raster) in reversed(list(enumerate(placed))):
            paint_shape(image, shape, raster, light)
            outer, inner = raster.overlap(image_hw)
            owner[outer][raster.solid[inner]] = number
        if scene.wall is not None:
            columns, pixels = scene.wall
            image[:, columns], owner[:, columns] = pixels, -1
        areas = [int(np.count_nonzero(raster.solid)) for _, raster in placed]
        yield _ground_truth(expose(rng, image, light), scene.objects, owner, areas)


def _ground_truth(
    image: Image, objects: Sequence[MovingObject], owner: NDArray[np.int64], areas: Sequence[int]
) -> GroundTruthFrame:
    """Keep the objects that can be seen; `owner` (H, W) is the object of each pixel, or -1."""
    masks = owner[None] == np.arange(len(objects))[:, None, None]
    least = np.maximum(MIN_VISIBLE_SHARE * np.array(areas), MIN_VISIBLE_PIXELS)
    seen = masks.sum(axis=(1, 2)) >= least
    labels = np.array([SHAPE_CLASSES.names.index(moving.shape.outline) for moving in objects])
    return GroundTruthFrame(image, masks[seen], labels[seen], np.flatnonzero(seen))


def _shapes(
    rng: Rng, palette: Floats, image_hw: tuple[int, int], names: Sequence[str]
) -> list[Shape]:
    """Draw objects of an eighth to a fifth of the smaller side in radius, at (0, 0)."""
    side = min(image_hw)
    return [
        replace(
            random_shape(rng, str(name), image_hw, palette),
            center=(0.0, 0.0),
            radius=side * rng.uniform(0.12, 0.2),
        )
        for name in names
    ]


def _some_names(rng: Rng, count: int) -> list[str]:
    return [str(name) for name in rng.permutation(SHAPE_CLASSES.names)[:count]]


def _moving(
    rng: Rng, palette: Floats, image_hw: tuple[int, int], frames: int, swell: float = 0.0
) -> _Scene:
    """Objects on ellipses that hardly meet."""
    rows, columns = _CELLS
    height, width = image_hw
    shapes = _shapes(rng, palette, image_hw, _some_names(rng, rows * columns))
    objects = [
        MovingObject(
            replace(shape, center=((x + 0.5) * width / columns, (y + 0.5) * height / rows)),
            sway=(width / columns / 4, height / rows / 6),
            period=frames / rng.uniform(1.0, 2.0),
            phase=rng.uniform(0, FULL_TURN),
            swell=swell,
            spin=rng.uniform(-2, 2) / frames,
        )
        for shape, (y, x) in zip(shapes, product(range(rows), range(columns)), strict=True)
    ]
    return _Scene(objects, paint_background(rng, image_hw, palette))


def _scaling(rng: Rng, palette: Floats, image_hw: tuple[int, int], frames: int) -> _Scene:
    """Likewise, and they grow and shrink by a third."""
    return _moving(rng, palette, image_hw, frames, swell=1 / 3)


def _crossing(rng: Rng, palette: Floats, image_hw: tuple[int, int], frames: int) -> _Scene:
    """Two pairs, each of one class, whose members pass before each other twice."""
    height, width = image_hw
    names = [name for name in _some_names(rng, 2) for _ in range(2)]
    objects = [
        MovingObject(
            replace(shape, center=(width / 2, height * (0.27 if number < 2 else 0.73))),
            sway=(width * rng.uniform(0.28, 0.34), 0.0),
            period=frames,
            phase=math.pi * (number % 2) + rng.uniform(-0.4, 0.4),
            spin=rng.uniform(-1, 1) / frames,
        )
        for number, shape in enumerate(_shapes(rng, palette, image_hw, names))
    ]
    return _Scene(objects, paint_background(rng, image_hw, palette))


def _passing(rng: Rng, palette: Floats, image_hw: tuple[int, int], frames: int) -> _Scene:
    """Six objects that come from the left and the right, one after another, and leave."""
    height, width = image_hw
    count = 6
    objects = []
    for number, shape in enumerate(_shapes(rng, palette, image_hw, _some_names(rng, count))):
        way = (1 if number % 2 else -1) * (width + 3 * shape.radius)  # within half of the frames
        middle = frames * (number + 0.5) / count  # the frame in which it is in the middle
        start = width / 2 - 2 * way * middle / frames
        row = height * (0.2 + 0.6 * (number % 3) / 2)
        objects.append(
            MovingObject(replace(shape, center=(start, row)), velocity=(2 * way / frames, 0.0))
        )
    return _Scene(objects, paint_background(rng, image_hw, palette))


def _hidden(rng: Rng, palette: Floats, image_hw: tuple[int, int], frames: int) -> _Scene:
    """Three objects that go behind a wall, for about a third of the time, and come out again."""
    height, width = image_hw
    objects = []
    for number, shape in enumerate(_shapes(rng, palette, image_hw, _some_names(rng, 3))):
        way = (1 if number % 2 else -1) * width * 0.85
        center = ((width - way) / 2, height * (0.2 + 0.3 * number))
        objects.append(MovingObject(replace(shape, center=center), velocity=(way / frames, 0.0)))
    wall = slice(round(0.3 * width), round(0.7 * width))
    pixels = paint_background(rng, (height, wall.stop - wall.start), palette)
    return _Scene(objects, paint_background(rng, image_hw, palette), (wall, pixels))


def _pan(rng: Rng, palette: Floats, image_hw: tuple[int, int], frames: int) -> _Scene:
    """Objects on ellipses, and a camera that goes to the right by half a picture and back."""
    height, width = image_hw
    scene = _moving(rng, palette, image_hw, frames)
    turns = np.arange(frames) * FULL_TURN / frames
    offsets = np.rint(0.25 * width * (1 - np.cos(turns))).astype(int)
    wide = paint_background(rng, (height, width + width // 2), palette)
    return replace(scene, background=wide, offsets=offsets.tolist())


_SCENES: dict[Kind, Callable[[Rng, Floats, tuple[int, int], int], _Scene]] = {
    "moving": _moving,
    "scaling": _scaling,
    "crossing": _crossing,
    "passing": _passing,
    "hidden": _hidden,
    "pan": _pan,
}
