"""Shared by the readers of other formats: outlines, and a builder of COCO's content."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.annotations.outlines import is_too_long
from data.annotations.reader import MAX_REACH
from data.annotations.run_lengths import from_outline, merge
from data.classes import Categories
from data.files import is_number
from data.images import read_head
from data.problems import Problem, Unusable, printable, summarize, unreadable
from data.sample import ImageInfo, Polygons, RunLengths

Part = list[float] | RunLengths
"""Of an object: a flat polygon, or a mask."""

DRAW_AGAIN = "draw the object again, or delete it"
"""The mend of what is no outline."""

UNNAMED = "object"
"""The class of what has none."""

_CORNERS = 64  # of a circle: its polygon covers 99.8 % of it


MISSING_IMAGES = ("a missing image", "labels without an image")
"""What is said of images that annotations tell of, and that are not there."""


class ConversionResult(NamedTuple):
    """Annotations of another format in COCO's form.

    Attributes:
        content: `images`, `annotations` and `categories`, as in a COCO file.
        problems: what was left out, or should be mended.
    """

    content: dict[str, object]
    problems: list[Problem]


class Object(NamedTuple):
    """An annotated object.

    Attributes:
        category: the name of its class, or the number where the format lists the classes.
        outline: in pixels; [] if only its box is known.
        box: x, y, width, height in pixels; None for that of the outline.
        is_crowd: whether it is a region of many, where nothing is learned.
    """

    category: str | int
    outline: Polygons | RunLengths
    box: list[float] | None = None
    is_crowd: bool = False


class CocoBuilder:
    """Gathers the images and objects of another format.

    Attributes:
        problems: what was left out.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._images: list[ImageInfo] = []
        self._objects: list[tuple[int, Object]] = []  # each with the id of its image

    def add(
        self, file_name: str, image_hw: tuple[int, int], objects: Sequence[Object], listed: int
    ) -> None:
        """Add an image with its objects.

        If objects are listed but not one can be used, the image is left out: as a negative it
        would teach the opposite.

        Args:
            file_name: relative to the image folder.
            image_hw: height and width.
            objects: those that can be used.
            listed: how many there are in the file.
        """
        if listed and not objects:
            return
        number, (height, width) = len(self._images) + 1, image_hw
        image: ImageInfo = {"id": number, "file_name": file_name, "height": height, "width": width}
        self._images.append(image)
        self._objects += [(number, found) for found in objects]

    @contextmanager
    def leaving_out(self, where: str) -> Iterator[None]:
        """Turn an `Unusable` into a problem, and go on."""
        try:
            yield
        except Unusable as error:
            self.problems.append(Problem(error.what, where, error.mend))

    def note(self, what: str, where: Path | str, mend: str) -> None:
        """Tell of what was taken as it is meant, but should be mended."""
        self.problems.append(Problem(what, str(where), mend, is_used=True))

    def notice(self, what: str, where: str, mend: str) -> None:
        """Tell of what is no mistake for certain, but deserves a look."""
        self.problems.append(Problem(what, where, mend, is_notice=True))

    def finish(
        self, source: Path, categories: Categories | None = None, listed: Iterable[str] = ()
    ) -> ConversionResult:
        """Return everything in COCO's form.

        Args:
            source: what was read, for the message.
            categories: the classes, where objects have their numbers; by default the names that
                are listed, then others that occur, in the order of the alphabet.
            listed: the names that the format lists as classes.

        Raises:
            ValueError: there is not one object that can be used, or more than half of the images
                are missing.
        """
        if not self._objects:
            raise ValueError(f"{source}: nothing can be used: {self._told()}")
        missing = sum(problem.what in MISSING_IMAGES for problem in self.problems)
        if missing > len(self._images):
            total = missing + len(self._images)
            raise ValueError(f"{source}: {missing} of {total} images are missing: {self._told()}")
        if categories is None:
            names = sorted({str(found.category) for _, found in self._objects})
            categories = Categories.from_names(list(dict.fromkeys([*listed, *names])))
        pairs = zip(categories.names, categories.category_ids, strict=True)
        number_of: dict[str | int, int] = dict(pairs)
        annotations = [
            {
                "id": number,
                "image_id": image_id,
                "category_id": number_of.get(category, category),
                "segmentation": outline,
                "iscrowd": int(is_crowd),
                **({"bbox": box} if box else {}),
            }
            for number, (image_id, found) in enumerate(self._objects, start=1)
            for category, outline, box, is_crowd in [found]
        ]
        content: dict[str, object] = {
            "images": self._images,
            "annotations": annotations,
            "categories": categories.to_coco_json(),
        }
        return ConversionResult(content, self.problems)

    def _told(self) -> str:
        """Return what is wrong, with an example and what to do about that."""
        wrong = [problem for problem in self.problems if not problem.is_notice]
        mend = f"; {wrong[0].mend:.300}" if wrong else ""
        return summarize(wrong) + printable(mend)


def header_hw(image: Path) -> tuple[int, int]:
    """Read height and width of an image.

    Raises:
        Unusable: it cannot be read.
    """
    try:
        return read_head(image).image_hw
    except (ValueError, OSError):
        raise unreadable() from None


def numbers_of(entry: dict[str, object], *names: str) -> list[float]:
    """Return these numbers of an entry.

    Raises:
        Unusable: one is missing, or is no number.
    """
    numbers = [value for value in map(entry.get, names) if is_number(value)]
    if len(numbers) < len(names):
        raise Unusable("a coordinate that is no number", DRAW_AGAIN)
    return numbers


def joined(parts: Sequence[Part], image_hw: tuple[int, int]) -> Polygons | RunLengths:
    """Join the parts of an object: to polygons if all are."""
    polygons = [part for part in parts if isinstance(part, list)]
    masks = [part for part in parts if not isinstance(part, list)]
    if not masks:
        return polygons
    return merge([*masks, *(from_outline([polygon], image_hw) for polygon in polygons)])


def polygon(xs: object, ys: object, image_hw: tuple[int, int]) -> list[float]:
    """Join coordinates to COCO's flat polygon.

    Args:
        xs: whatever a file gives as the x of three or more points, in pixels.
        ys: the same for y.
        image_hw: height and width of the image.

    Raises:
        Unusable: they are not that.
    """
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        raise Unusable("an outline without points", DRAW_AGAIN)
    values: Iterable[object] = [value for point in zip(xs, ys, strict=True) for value in point]
    numbers = [float(value) for value in values if is_number(value)]
    if len(numbers) < 2 * len(xs):
        raise Unusable("a coordinate that is no number", DRAW_AGAIN)
    if len(xs) < 3:
        raise Unusable("an outline of fewer than three points", DRAW_AGAIN)
    if max(map(abs, numbers)) > MAX_REACH * max(image_hw):
        raise Unusable("an outline far outside the image", "draw it on this image, or delete it")
    if is_too_long(np.reshape(numbers, (-1, 2)), np.array(image_hw)):
        raise Unusable("an outline far too long, which goes to and fro", DRAW_AGAIN)
    return numbers


def rectangle(
    corner: tuple[float, float],
    size: tuple[float, float],
    image_hw: tuple[int, int],
    angle: float = 0.0,
    pivot: tuple[float, float] | None = None,
) -> list[float]:
    """Return the polygon of a rectangle.

    Args:
        corner: x and y of the top left one, in pixels.
        size: width and height, in pixels.
        image_hw: height and width of the image.
        angle: by which it is turned, in radians from x towards y.
        pivot: x and y around which it is turned, by default the corner.

    Raises:
        Unusable: it goes far outside the image.
    """
    (x, y), (width, height), (pivot_x, pivot_y) = corner, size, pivot or corner
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    cos, sin = math.cos(angle), math.sin(angle)
    from_pivot = [(x - pivot_x, y - pivot_y) for x, y in corners]
    xs = [pivot_x + a * cos - b * sin for a, b in from_pivot]
    ys = [pivot_y + a * sin + b * cos for a, b in from_pivot]
    return polygon(xs, ys, image_hw)


def ellipse(
    centre: tuple[float, float],
    radii: tuple[float, float],
    image_hw: tuple[int, int],
    angle: float = 0.0,
) -> list[float]:
    """Approximate an ellipse by a polygon.

    Args:
        centre: x and y in pixels.
        radii: along the first axis and the second, in pixels.
        image_hw: height and width of the image.
        angle: of the first axis, in radians from x towards y.

    Raises:
        Unusable: it goes far outside the image.
    """
    turns = [2 * math.pi * k / _CORNERS for k in range(_CORNERS)]
    along = [(radii[0] * math.cos(turn), radii[1] * math.sin(turn)) for turn in turns]
    cos, sin = math.cos(angle), math.sin(angle)
    xs = [centre[0] + a * cos - b * sin for a, b in along]
    ys = [centre[1] + a * sin + b * cos for a, b in along]
    return polygon(xs, ys, image_hw)
