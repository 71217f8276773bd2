"""Annotations of other formats on their way into COCO's, and the problems met on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from data.images import read_image_hw
from data.problems import Problem, Unusable, summarize

_CORNERS = 64  # of a circle: its polygon covers 99.8 % of it
_REACH = 10  # image sides; outlines that go farther are mistakes, and cost memory to draw


class Converted(NamedTuple):
    """What a reader of another format returns.

    Attributes:
        content: `images`, `annotations` and `categories`, as in a COCO file.
        problems: what was left out.
    """

    content: dict[str, Any]
    problems: list[Problem]


Objects = list[tuple[Any, Any]]
"""The class (a number or a name) and the outline (COCO polygons or run lengths) of each object."""


@dataclass
class Annotations:
    """Images and objects, while they are gathered."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, file_name: str, image_hw: tuple[int, int], objects: Objects, listed: int) -> None:
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
        number, (height, width) = len(self.images) + 1, image_hw
        self.images.append({"id": number, "file_name": file_name, "height": height, "width": width})
        for category, outline in objects:
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "segmentation": outline,
                    "iscrowd": 0,
                }
            )

    @contextmanager
    def leaving_out(self, where: str) -> Iterator[None]:
        """Note what cannot be used, and go on."""
        try:
            yield
        except Unusable as error:
            self.problems.append(Problem(error.what, where, error.mend))

    def finish(self, source: Path, names: Mapping[int, str] | None = None) -> Converted:
        """Return everything in COCO's form.

        Args:
            source: what was read, for the message.
            names: of the class numbers; by default the classes are the names that occur, in the
                order of the alphabet.

        Raises:
            ValueError: there is not one object that can be used.
        """
        if not self.annotations:
            raise ValueError(f"{source}: nothing can be used: {summarize(self.problems)}")
        if names is None:
            found = sorted({entry["category_id"] for entry in self.annotations})
            number_of = {name: number for number, name in enumerate(found, start=1)}
            for entry in self.annotations:
                entry["category_id"] = number_of[entry["category_id"]]
            names = dict(enumerate(found, start=1))
        categories = [{"id": number, "name": name} for number, name in sorted(names.items())]
        content = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        return Converted(content, self.problems)


def header_hw(image: Path) -> tuple[int, int]:
    """Read height and width of an image.

    Raises:
        Unusable: it cannot be read.
    """
    try:
        return read_image_hw(image)
    except (ValueError, OSError):
        raise Unusable("an image that cannot be read", "replace the file, or delete it") from None


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a JSON value is a number that a float can hold, so not NaN."""
    return type(value) in (int, float) and -1e300 < value < 1e300


def polygon(xs: Any, ys: Any, image_hw: tuple[int, int]) -> list[float]:
    """Join coordinates to COCO's flat polygon.

    Args:
        xs: whatever a file gives as the x of three or more points, in pixels.
        ys: the same for y.
        image_hw: height and width of the image.

    Raises:
        Unusable: they are not that.
    """
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        raise Unusable("an outline without points", "draw it again")
    values: Iterable[Any] = [value for point in zip(xs, ys, strict=True) for value in point]
    numbers = [float(value) for value in values if is_number(value)]
    if len(numbers) < 2 * len(xs):
        raise Unusable("a coordinate that is no number", "draw the object again")
    if len(xs) < 3:
        raise Unusable("an outline of fewer than three points", "draw it again, or delete it")
    if max(map(abs, numbers)) > _REACH * max(image_hw):
        raise Unusable("an outline far outside the image", "draw it on this image, or delete it")
    return numbers


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
