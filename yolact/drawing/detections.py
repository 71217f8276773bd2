"""Objects drawn over an image: masks, boxes, labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import cv2
import torch
from torch import Tensor

from data.images import Image, Picture
from data.problems import printable
from layers.instances import Instances
from layers.structures import fetch

Draw = Callable[[Picture, Instances], Image]
ColorBy = Literal["class", "instance"]
Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

# The first seven are Okabe and Ito's, which people with any colour blindness can tell apart; each
# later one is as different as possible from all before it, also for these people.
_HEX = (
    "d55e00 0072b2 009e73 e69f00 56b4e9 cc79a7 f0e442 "
    "781e00 2dffe1 1e3c87 a569ff a53c2d 7800f0 a5d287"
)
PALETTE: tuple[Color, ...] = tuple((c[0], c[1], c[2]) for c in map(bytes.fromhex, _HEX.split()))
WHITE: Color = (255, 255, 255)
DARK: Color = (30, 30, 30)
FONT = cv2.FONT_HERSHEY_DUPLEX
_LINE_HEIGHT = 34  # of a label, in pixels at font scale 1


def draw_detections(
    image: Picture,
    detections: Instances,
    *,
    masks: bool = True,
    boxes: bool = True,
    text: bool = True,
    scores: bool = True,
    color_by: ColorBy = "instance",
    colors: Sequence[Color] | None = None,
    alpha: float = 0.45,
) -> Image:
    """Draw masks, boxes and labels over a copy of an image, the best detection on top.

    Args:
        image: (H, W, 3) uint8 RGB, the image of the detections. A tensor is tinted with tensor
            operators on its device, before it is copied to the CPU.
        detections: N detections; with none, the result is a plain copy.
        masks: tint each object.
        boxes: draw each object's box.
        text: write each object's class.
        scores: write the score after the class.
        color_by: one colour for each class (stable in a video) or for each object, which keeps its
            colour if it is tracked.
        colors: N colours, instead of those of `color_by`.
        alpha: weight of the colour in the tint, 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    given, detections = detections, detections.to("cpu")
    colors = object_colors(detections, color_by) if colors is None else colors
    worst_first = range(len(detections) - 1, -1, -1)
    if isinstance(image, Tensor):
        there = given.to(image.device)
        image = there.tinted(image, colors, alpha) if masks else image.clone()
        canvas = fetch(image)[0].numpy()
    else:
        canvas = image.copy()
        for index in worst_first if masks else ():
            detections.tint(canvas, index, colors[index], alpha)
    corners, line_width = _whole_boxes(detections), _line_width(detections.image_hw)
    for index in worst_first if boxes else ():
        x1, y1, x2, y2 = corners[index]
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colors[index], line_width)
    if text:
        captions = [
            _caption(detections, name, index, scores)
            for index, name in enumerate(detections.names())
        ]
        labels = place_labels(captions, corners, _image_hw(canvas))
        for index in worst_first:
            _write(canvas, captions[index], labels[index], colors[index])
    return canvas


def palette_color(number: int) -> Color:
    """Return a colour of the palette, which repeats."""
    return PALETTE[number % len(PALETTE)]


def text_color_on(color: Color) -> Color:
    """Return white or near-black, whichever is easier to read on a colour."""
    red, green, blue = ((channel / 255) ** 2.2 for channel in color)
    return WHITE if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.25 else DARK


def object_colors(detections: Instances, color_by: ColorBy) -> list[Color]:
    """Return a colour for each detection: by its class, or by its track or index."""
    keys: Sequence[int] = range(len(detections))
    if color_by == "class":
        keys = detections.labels.tolist()
    elif detections.track_ids is not None:
        keys = detections.track_ids.tolist()
    return [palette_color(key) for key in keys]


def draw_fps(image: Image, text: str) -> Image:
    """Write a short text into the top left corner of a copy of an image, white on dark.

    Args:
        image: (H, W, 3) uint8 RGB.
        text: for example `31.4 fps`.
    """
    canvas = image.copy()
    width, height = _label_size(text, _font_scale(text, _image_hw(canvas)))
    _write(canvas, text, (0, 0, width, height), DARK)
    return canvas


def place_labels(
    captions: list[str], boxes: list[Rectangle], image_hw: tuple[int, int]
) -> list[Rectangle]:
    """Find a place for each caption inside the image, away from better detections' captions.

    Above the box is preferred, then inside at its top, below it, and inside at its bottom.

    Args:
        captions: N texts, best detection first.
        boxes: N boxes x1, y1, x2, y2 in whole pixels.
        image_hw: height and width of the image.

    Returns:
        N rectangles x1, y1, x2, y2.
    """
    height, width = image_hw
    taken: list[Rectangle] = []
    for caption, (x1, y1, _, y2) in zip(captions, boxes, strict=True):
        w, h = _label_size(caption, _font_scale(caption, image_hw))
        w, h = min(w, width), min(h, height)  # rounding may exceed a tiny image by a pixel
        x = min(max(x1, 0), width - w)
        tops = [top for top in (y1 - h, y1, y2, y2 - h) if 0 <= top <= height - h]
        tops = tops or [min(max(y1, 0), height - h)]
        places = [(x, top, x + w, top + h) for top in tops]
        free = (place for place in places if not any(_overlap(place, other) for other in taken))
        taken.append(next(free, places[0]))
    return taken


def _image_hw(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _whole_boxes(detections: Instances) -> list[Rectangle]:
    """Round boxes to pixels inside the image."""
    height, width = detections.image_hw
    limit = torch.tensor((width - 1, height - 1, width - 1, height - 1))
    boxes = detections.boxes.round().long().clamp(min=0).minimum(limit)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist()]


def _caption(detections: Instances, name: str, index: int, scores: bool) -> str:
    if detections.track_ids is not None:
        name = f"{name} #{int(detections.track_ids[index])}"
    return f"{name}: {float(detections.scores[index]):.2f}" if scores else name


def _line_width(image_hw: tuple[int, int]) -> int:
    return max(1, round(math.sqrt(image_hw[0] * image_hw[1]) / 400))


def _font_scale(text: str, image_hw: tuple[int, int]) -> float:
    """Choose a font scale that grows with the image, and shrinks if the text would not fit."""
    scale = max(0.4, math.sqrt(image_hw[0] * image_hw[1]) / 1100)
    width, height = _label_size(text, scale)
    return scale * min(1.0, image_hw[1] / width, image_hw[0] / height)


@lru_cache(maxsize=1024)  # asked for several times, and again in the next frame of a video
def _label_size(text: str, scale: float) -> tuple[int, int]:
    """Measure a text with its margin: width and height in pixels."""
    (width, _), _ = cv2.getTextSize(printable(text), FONT, scale, _font_weight(scale))
    return width + 2 * round(5 * scale), round(_LINE_HEIGHT * scale)


def _font_weight(scale: float) -> int:
    return max(1, round(scale))


def _write(canvas: Image, text: str, place: Rectangle, color: Color) -> None:
    """Write text on a filled rectangle."""
    x1, y1, x2, y2 = place
    scale = _font_scale(text, _image_hw(canvas))
    cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), color, cv2.FILLED)
    origin = (x1 + round(5 * scale), y2 - round(9 * scale))
    ink, weight = text_color_on(color), _font_weight(scale)
    # OpenCV crashes at half of a character, which names from JSON and of files can hold.
    cv2.putText(canvas, printable(text), origin, FONT, scale, ink, weight, cv2.LINE_AA)


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
