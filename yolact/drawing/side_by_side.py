"""Pictures that show the ground truth beside the detections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.images import Image
from data.problems import printable
from layers.instances import Instances
from yolact.files import whole_file

from .detections import Color, draw_detections, object_colors, place_labels

Bitmap = NDArray[np.uint8] | NDArray[np.bool_]

_MASK_GRID = 112  # side of the grid on which a mask is kept to be drawn
_MAX_ENLARGED = 2.0
GAP, TITLE_HEIGHT = 8, 24
_PAPER, _INK = 255, (40, 40, 40)
_FONT = cv2.FONT_HERSHEY_DUPLEX


class Panel(NamedTuple):
    """One view of an image.

    Attributes:
        title: text above the view.
        objects: objects to draw, in pixels of the image.
        scores: whether to write their scores.
        colors: one colour for each object; None for the colours of the classes.
    """

    title: str
    objects: Instances
    scores: bool
    colors: Sequence[Color] | None = None


def objects_to_draw(
    bitmaps: Iterable[Bitmap],
    boxes: NDArray[np.float32],
    labels: Sequence[int],
    image_hw: tuple[int, int],
    class_names: Sequence[str],
    scores: Sequence[float] | None = None,
) -> Instances:
    """Return objects with coarse masks, sufficient for a small picture.

    Args:
        bitmaps: N full-size masks, (H, W), processed one after the other.
        boxes: (N, 4) xyxy in pixels.
        labels: N labels.
        image_hw: height and width of the image in pixels.
        class_names: label -> class name.
        scores: N scores; all 1 if absent.
    """
    parts = [_shrunk(bitmap) for bitmap in bitmaps]
    grids = np.array([grid for grid, _ in parts], np.float32)
    frames = np.array([frame for _, frame in parts], np.float32)
    rank = torch.tensor([1.0] * len(labels) if scores is None else scores, dtype=torch.float32)
    return Instances(
        boxes=torch.from_numpy(boxes.reshape(-1, 4)),
        scores=rank,
        labels=torch.tensor(labels, dtype=torch.int64),
        soft_masks=torch.from_numpy(grids.reshape(-1, _MASK_GRID, _MASK_GRID)),
        mask_frames=torch.from_numpy(frames.reshape(-1, 4)),
        box_scores=rank,
        image_hw=image_hw,
        class_names=tuple(class_names),
    )


def side_by_side(image: Image, panels: Sequence[Panel], side: int) -> Image:
    """Draw several views of one image beside each other, each under its title.

    Args:
        image: (H, W, 3) uint8 RGB.
        panels: each with objects in pixels of the image.
        side: side in pixels of the square that the image is scaled to fit into.
    """
    scale = min(side / max(image.shape[:2]), _MAX_ENLARGED)
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
    columns = []
    for title, objects, scores, colors in panels:
        objects = _scaled(objects, (height, width))
        colors = object_colors(objects, "class") if colors is None else colors
        named, drawn = labels_that_fit(objects, scores), small
        for shown, text in ((~named, False), (named, True)):
            chosen = [color for color, is_shown in zip(colors, shown, strict=True) if is_shown]
            drawn = draw_detections(drawn, objects[shown], text=text, scores=scores, colors=chosen)
        columns.append(titled(title, drawn))
    return join_pictures(columns, 1, GAP)


def jpeg_of(image: Image, quality: int = 85) -> bytes:
    """Encode a picture as JPEG."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def write_jpeg(path: Path, picture: Image) -> Path:
    """Write a picture as JPEG, atomically."""
    with whole_file(path) as part:
        part.write_bytes(jpeg_of(picture))
    return path


def grid(tiles: Sequence[Image], columns: int, gap: int) -> Image:
    """Arrange tiles in columns of one width, with a gap between the rows."""
    width = max(tile.shape[1] for tile in tiles)
    rows = []
    for start in range(0, len(tiles), columns):
        row = tiles[start : start + columns]
        height = max(tile.shape[0] for tile in row)
        rows.append(join_pictures([pad_picture(tile, height, width) for tile in row], 1, 3 * GAP))
    widest = max(row.shape[1] for row in rows)
    return join_pictures([pad_picture(row, row.shape[0], widest) for row in rows], 0, gap)


def _shrunk(bitmap: Bitmap) -> tuple[NDArray[np.float32], tuple[int, int, int, int]]:
    """Return a mask on a small grid, and the region x1, y1, x2, y2 that it covers."""
    x, y, width, height = cv2.boundingRect(bitmap.astype(np.uint8))
    if not width:
        return np.zeros((_MASK_GRID, _MASK_GRID), np.float32), (0, 0, 0, 0)
    inside = bitmap[y : y + height, x : x + width].astype(np.float32)
    grid = cv2.resize(inside, (_MASK_GRID, _MASK_GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(grid, np.float32), (x, y, x + width, y + height)


def _scaled(objects: Instances, image_hw: tuple[int, int]) -> Instances:
    """Move objects to a copy of their image in another size."""
    scale = torch.tensor([new / old for new, old in zip(image_hw, objects.image_hw, strict=True)])
    factor = scale.flip(0).repeat(2)  # x, y, x, y
    boxes, frames = objects.boxes * factor, objects.mask_frames * factor
    return replace(objects, boxes=boxes, mask_frames=frames, image_hw=image_hw)


def join_pictures(pictures: Sequence[Image], axis: int, gap: int) -> Image:
    """Join pictures along an axis, with a gap; they must have the same size in the other axis."""
    padding = [(0, 0)] * 3
    padding[axis] = (0, gap)
    spaced = [np.pad(picture, padding, constant_values=_PAPER) for picture in pictures[:-1]]
    return np.concatenate((*spaced, pictures[-1]), axis=axis)


def labels_that_fit(objects: Instances, scores: bool) -> NDArray[np.bool_]:
    """Tell which objects can be labelled without overlapping labels; earlier ones come first."""
    captions = [f"{name}: 0.00" if scores else name for name in objects.names()]
    boxes = [(x1, y1, x2, y2) for x1, y1, x2, y2 in objects.boxes.round().int().tolist()]
    taken = np.zeros(objects.image_hw, np.bool_)
    named = np.zeros(len(objects), np.bool_)
    for index, (x1, y1, x2, y2) in enumerate(place_labels(captions, boxes, objects.image_hw)):
        named[index] = not taken[y1:y2, x1:x2].any()
        taken[y1:y2, x1:x2] |= named[index]
    return named


def titled(text: str, picture: Image) -> Image:
    """Write a line above a picture, widening the picture to fit it."""
    text = printable(text)  # for OpenCV, see `data.problems.printable`
    width, _ = cv2.getTextSize(text, _FONT, 0.45, 1)[0]
    width = max(picture.shape[1], width + 8)
    line = np.full((TITLE_HEIGHT, width, 3), _PAPER, np.uint8)
    cv2.putText(line, text, (2, 17), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
    return np.concatenate((line, pad_picture(picture, picture.shape[0], width)))


def pad_picture(picture: Image, height: int, width: int) -> Image:
    """Pad a picture below and to the right with the background colour, up to a size."""
    rest = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
    return np.pad(picture, rest, constant_values=_PAPER)
