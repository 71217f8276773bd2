"""What the writers of whole datasets share: where a split goes, and what a format cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from data.annotations.polygons import Polygon, Ring, one_ring, trace
from data.annotations.run_lengths import decode, from_outline, measure
from data.classes import Categories
from data.problems import Problem
from data.sample import Annotation, Polygons, RunLengths

from .polygon_object import PolygonObject

_CROWD = "a crowd, which this format cannot tell", "coco, panoptic and voc keep crowds"
_BOX = "a box without an outline", "draw the outline; coco and yolo keep boxes"
_EMPTY = "an outline without a pixel", "draw it larger"


class Picture(NamedTuple):
    """An image to write, with its objects.

    Attributes:
        name: of its file, relative to the image folder, with slashes.
        file: that the image was read from.
        image_hw: height and width, as its objects are drawn.
        annotations: those that the format can hold, with the category ids of the output.
    """

    name: str
    file: Path
    image_hw: tuple[int, int]
    annotations: Sequence[Annotation]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return str(PurePosixPath(self.name).with_suffix(""))


@dataclass
class Output:
    """One split of a dataset that is written.

    Attributes:
        folder: of the whole dataset.
        split: "train" or "val"; "" if the dataset is not split.
        splits: all that are written.
        categories: the classes of all splits.
        holds_crowds: whether the format can tell crowds.
        holds_boxes: whether it has a way for objects with a box alone.
        problems: what was left out.
    """

    folder: Path
    split: str
    splits: Sequence[str]
    categories: Categories
    holds_crowds: bool
    holds_boxes: bool
    problems: list[Problem] = field(default_factory=list)

    def leave_out(self, what: str, name: str, mend: str) -> None:
        """Note something in an image that the format cannot hold."""
        self.problems.append(Problem(what, name, mend))

    def name_of(self, annotation: Annotation) -> str:
        """Return the class of an object."""
        return self.categories.name_of[annotation["category_id"]]

    def usable(
        self, name: str, image_hw: tuple[int, int], annotations: Iterable[Annotation]
    ) -> Iterator[Annotation]:
        """Yield the objects of an image that the format can hold, and note the others."""
        for found in annotations:
            outline = found["segmentation"]
            if found["iscrowd"] and not self.holds_crowds:
                problem = _CROWD
            elif not outline and not self.holds_boxes:
                problem = _BOX
            elif outline and not measure(from_outline(outline, image_hw))[1]:
                problem = _EMPTY
            else:
                yield found
                continue
            self.leave_out(problem[0], name, problem[1])

    def named(self, picture: Picture) -> Iterator[tuple[str, Polygons | RunLengths]]:
        """Yield class and outline of each object."""
        for annotation in picture.annotations:
            yield self.name_of(annotation), annotation["segmentation"]

    def polygon_objects(
        self,
        picture: Picture,
        is_joined: bool,
        written: Callable[[Ring], Ring] | None = None,
    ) -> Iterator[PolygonObject]:
        """Yield the objects that have outlines as polygons, see `polygons`."""
        for annotation in picture.annotations:
            if outline := annotation["segmentation"]:
                yield PolygonObject(
                    self.name_of(annotation),
                    self.categories.label_of[annotation["category_id"]],
                    self.polygons(outline, picture.image_hw, is_joined, written),
                )

    def polygons(
        self,
        outline: Polygons | RunLengths,
        image_hw: tuple[int, int],
        is_joined: bool = False,
        written: Callable[[Ring], Ring] | None = None,
    ) -> list[Polygon]:
        """Return polygons that give the same mask when they are read again.

        They are those of the object, unless the format would change its mask: then they are traced
        along the edges of its pixels.

        Args:
            outline: of the object, with at least one pixel.
            image_hw: height and width of the image.
            is_joined: whether the format has one ring for each object.
            written: what comes back of a ring that was written.
        """
        mask = from_outline(outline, image_hw)
        if isinstance(outline, list):
            parts = [Polygon(np.reshape(np.array(part, float), (-1, 2))) for part in outline]
            rings = [one_ring(parts)] if is_joined else [part.outline for part in parts]
            seen = rings if written is None else list(map(written, rings))
            if from_outline([ring.reshape(-1).tolist() for ring in seen], image_hw) == mask:
                return parts
        x, y, width, height = map(int, measure(mask)[0])
        window = decode(mask, image_hw)[y : y + height, x : x + width]
        return trace(window, (x, y))


def write(file: Path, text: str | Iterable[str]) -> None:
    """Write a text, whole or in pieces, and the folders above its file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines([text] if isinstance(text, str) else text)
