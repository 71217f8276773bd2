"""The placement of an image on the network input: fixed, or random as in SSD's training.

All geometry of an image (expand, crop, mirror, resize) is one axis-aligned map between two
rectangles of whole pixels, so pixels are sampled once and outlines are moved, not resampled. The
rectangles are rounded to whole pixels first, and then define the map: image and outlines agree
exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import Image, as_uint8
from data.options import Switches

Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels."""

_EXPAND_LIMIT = 4.0
_CROP_SIDES = (0.3, 1.0)
_CROP_ASPECTS = (0.5, 2.0)
_CROP_TRIALS = 50
# The original chooses between "no crop" and five minimum overlaps (.1, .3, .7, .9, none), but its
# check can never reject a crop. Its author kept this, as a fix halved the mAP. So five of six
# images are cropped, whatever the overlap.
_CROP_PROBABILITY = 5 / 6


@dataclass(frozen=True)
class Placement:
    """A map from a piece of an image to the S x S canvas.

    The piece is resized to its window, then the canvas is mirrored, flipped and turned, in this
    order.

    Attributes:
        source: the piece of the image that is seen, xyxy.
        window: the piece on the canvas before turning, xyxy.
        image_size: S.
        mirror: swap left and right of the canvas.
        flip: swap top and bottom.
        quarter_turns: counter-clockwise.
    """

    source: Rectangle
    window: Rectangle
    image_size: int
    mirror: bool = False
    flip: bool = False
    quarter_turns: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether no part of the image is visible."""
        return 0 in _size(self.source) or 0 in _size(self.window)

    @property
    def visible(self) -> NDArray[np.float64]:
        """The piece on the turned canvas, (4,) xyxy in whole pixels."""
        corners = np.asarray(self.window, np.float64).reshape(2, 2)
        visible: NDArray[np.float64] = _boxes_of(self._turned(corners)[None])[0]
        return visible

    def points(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (..., 2) points from the image to the canvas; the piece must not be empty."""
        source, window = np.asarray(self.source), np.asarray(self.window)
        scale = (window[2:] - window[:2]) / (source[2:] - source[:2])
        return self._turned((xy - source[:2]) * scale + window[:2])

    def boxes(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (M, 4) xyxy boxes to the canvas, clipped to the visible piece."""
        if self.is_empty:
            return np.zeros_like(boxes)
        x1, y1, x2, y2 = self.source
        corners = boxes.reshape(-1, 2, 2).astype(np.float64).clip((x1, y1), (x2, y2))
        return _boxes_of(self.points(corners)).astype(np.float32)

    def holds_centres(self, boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tell which of (M, 4) boxes in the image have their centre in the piece, (M,) bool."""
        return _inside(box_centres(boxes), np.asarray(self.source))

    def piece(self, image: Image) -> Image:
        """Cut the piece from an (H, W, 3) image and resize it bilinearly to its window."""
        x1, y1, x2, y2 = self.source
        width, height = _size(self.window)
        if self.is_empty:
            return np.zeros((height, width, 3), np.uint8)
        return as_uint8(cv2.resize(image[y1:y2, x1:x2], (width, height)))

    def canvas(self, piece: Image, fill: tuple[float, float, float]) -> Image:
        """Put the resized piece on an (S, S, 3) canvas of the fill colour, and turn it."""
        side = self.image_size
        canvas = piece
        if piece.shape[:2] != (side, side):
            canvas = np.empty((side, side, 3), np.uint8)
            canvas[:] = np.round(fill).astype(np.uint8)
            left, top, right, bottom = self.window
            canvas[top:bottom, left:right] = piece
        if self.mirror:
            canvas = as_uint8(cv2.flip(canvas, 1))
        if self.flip:
            canvas = as_uint8(cv2.flip(canvas, 0))
        return np.ascontiguousarray(np.rot90(canvas, self.quarter_turns))

    def unoriented(self, canvas: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a view of a turned (S, S) canvas before turning, which `window` refers to."""
        view = np.rot90(canvas, -self.quarter_turns)
        view = view[::-1] if self.flip else view
        return view[:, ::-1] if self.mirror else view

    def _turned(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = xy[..., 0], xy[..., 1]
        x = self.image_size - x if self.mirror else x
        y = self.image_size - y if self.flip else y
        for _ in range(self.quarter_turns):
            x, y = y, self.image_size - x
        return np.stack((x, y), axis=-1)


def box_centres(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (M, 2) centres of (M, 4) xyxy boxes."""
    return ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.float32, copy=False)


def place_whole(image_hw: tuple[int, int], image_size: int) -> Placement:
    """Stretch the whole image to the canvas; its aspect ratio is lost."""
    height, width = image_hw
    return Placement((0, 0, width, height), (0, 0, image_size, image_size), image_size)


def draw_placement(
    boxes: NDArray[np.float32],
    image_hw: tuple[int, int],
    image_size: int,
    switches: Switches,
    rng: np.random.Generator,
) -> Placement:
    """Draw a random placement, with the augmentations that are switched on.

    Of a scaled image that is smaller than the canvas, the place is random; of a larger one, the
    part that fills it.

    Args:
        boxes: (M, 4) xyxy in pixels; a crop keeps the centre of at least one.
        image_hw: height and width of the image.
        image_size: S.
        switches: which augmentations.
        rng: source of every random number.
    """
    # The view is the part of the image plane, xyxy, that fills the canvas.
    view = np.array((0, 0, image_hw[1], image_hw[0]))
    if switches.scale_jitter:
        view = _jittered(view, switches.scale_jitter, rng)
    else:
        if switches.expand and rng.random() < 0.5:
            view = _expanded(view, rng)
        if switches.crop:
            view = _cropped(view, box_centres(boxes), rng)
    source = np.clip(view, 0, (image_hw[1], image_hw[0]) * 2)
    origin, size = np.tile(view[:2], 2), np.tile(view[2:] - view[:2], 2)
    window = np.round((source - origin) * (image_size / size)).astype(int)
    return Placement(
        source=_rectangle(source),
        window=_rectangle(window),
        image_size=image_size,
        mirror=switches.mirror and rng.random() < 0.5,
        flip=switches.flip and rng.random() < 0.5,
        quarter_turns=int(rng.integers(4)) if switches.rotate else 0,
    )


def _jittered(
    view: NDArray[np.int_], scales: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int_]:
    """Scale the view by a log-uniform ratio, and place it at random in, or around, the image."""
    size = view[2:] - view[:2]
    scale = np.exp(rng.uniform(*np.log(scales)))
    seen = np.maximum(np.round(size / scale), 1).astype(int)
    corner = np.round(rng.random(2) * (size - seen)).astype(int)
    return np.concatenate((corner, corner + seen))


def _expanded(view: NDArray[np.int_], rng: np.random.Generator) -> NDArray[np.int_]:
    """Widen the view around the image by a random ratio, the image at a random place in it."""
    size = view[2:] - view[:2]
    canvas = (size * rng.uniform(1, _EXPAND_LIMIT)).astype(int)
    corner = -(rng.random(2) * (canvas - size)).astype(int)
    return np.concatenate((corner, corner + canvas))


def _cropped(
    view: NDArray[np.int_], centres: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.int_]:
    """Cut a random rectangle that contains at least one of the (M, 2) centres, if any exist."""
    size = view[2:] - view[:2]
    while rng.random() < _CROP_PROBABILITY:
        sides = rng.uniform(*_CROP_SIDES, (_CROP_TRIALS, 2)) * size
        corners = view[:2] + rng.random((_CROP_TRIALS, 2)) * (size - sides)
        crops = np.hstack((np.floor(corners), np.ceil(corners + sides))).astype(int)
        aspects = sides[:, 1] / sides[:, 0]
        valid = (aspects >= _CROP_ASPECTS[0]) & (aspects <= _CROP_ASPECTS[1])
        if len(centres):
            valid &= _inside(centres, crops[:, None]).any(axis=1)
        if valid.any():
            crop: NDArray[np.int_] = crops[valid.argmax()]
            return crop
    return view


def _inside(points: NDArray[np.float32], rectangles: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Tell which (..., 2) points lie inside (..., 4) rectangles."""
    inside = (points > rectangles[..., :2]) & (points < rectangles[..., 2:])
    return np.asarray(inside.all(axis=-1))


def _boxes_of(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn (M, 2, 2) opposite corners into (M, 4) xyxy."""
    return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)


def _size(rectangle: Rectangle) -> tuple[int, int]:
    return rectangle[2] - rectangle[0], rectangle[3] - rectangle[1]


def _rectangle(values: NDArray[np.int_]) -> Rectangle:
    x1, y1, x2, y2 = values.tolist()
    return x1, y1, x2, y2
