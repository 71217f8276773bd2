"""A COCO annotation file that is written as results arrive, in constant memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypedDict

from data.annotations.paths import relative_name
from data.annotations.run_lengths import from_outline, measure
from data.classes import Categories
from data.files import is_file, is_url
from data.sample import ImageInfo
from layers.instances import Instances
from yolact.files import whole_file

from .exports import CocoObject, coco_ids, coco_objects


class CocoEntry(TypedDict):
    """An image with its objects, which have no ids yet."""

    file_name: str
    height: int
    width: int
    objects: list[CocoObject]


class CocoFile:
    """Collects detections as annotations, to train on, to correct by hand, to score.

    When it is closed, also by an error or Ctrl-C, the file contains everything added so far.

    Args:
        path: path of the file.
        image_folder: folder that image names are relative to; by default that of the file.
        tolerance: write outlines as polygons, simplified by this many pixels, which every tool can
            read; None for run lengths, which are exact.

    Example:
        >>> with CocoFile("people.json", "photos") as file:
        ...     for detections in predictor.stream("photos"):
        ...         file.add(detections)
    """

    def __init__(
        self,
        path: str | Path,
        image_folder: str | Path | None = None,
        tolerance: float | None = 1.0,
    ) -> None:
        self.path = Path(path)
        self.image_folder = Path(image_folder or self.path.parent)
        self.tolerance = tolerance
        self._images: list[ImageInfo] = []
        self._categories: Categories | None = None
        self._count = 0
        self._open = ExitStack()
        self._file: TextIO | None = None

    def __enter__(self) -> CocoFile:
        part = self._open.enter_context(whole_file(self.path))
        self._file = self._open.enter_context(part.open("w", encoding="utf-8"))
        self._images, self._categories, self._count = [], None, 0
        self._file.write('{"annotations": [')
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, detections: Instances, source: str = "") -> None:
        """Add an image with its objects.

        Args:
            detections: detections of one image; the classes must be the same for all images.
            source: the image, named relative to `image_folder`, or by its last part if there is no
                such file; by default the source of the detections.

        Raises:
            ValueError: the file is not open, there is no source, or the classes differ from those
                of earlier images.
        """
        self.put(detections.class_names, self.entry(detections, source))

    def entry(self, detections: Instances, source: str = "") -> CocoEntry:
        """Return the plain values that `add` writes for an image."""
        source = source or str(getattr(detections, "source", ""))
        if not source:
            raise ValueError(f"{self.path}: detections without a source: name it by source=")
        ids = coco_ids(detections.class_names)
        height, width = detections.image_hw
        return {
            "file_name": self._name_of(source),
            "height": height,
            "width": width,
            "objects": [
                _with_own_box(entry, detections.image_hw)
                for entry in coco_objects(detections, 0, ids, self.tolerance)
            ],
        }

    def put(self, class_names: Sequence[str], entry: CocoEntry) -> None:
        """Write the result of `entry`; errors as for `add`."""
        if self._file is None:
            raise ValueError(f"{self.path} is not open: use it in a `with` statement")
        categories = Categories(tuple(class_names), tuple(coco_ids(class_names)))
        if self._categories not in (None, categories):
            raise ValueError(f"{self.path} holds other classes than {class_names}")
        self._categories = categories
        number = len(self._images) + 1
        name, height, width = entry["file_name"], entry["height"], entry["width"]
        self._images.append({"id": number, "file_name": name, "height": height, "width": width})
        for each in entry["objects"]:
            self._count += 1
            comma = "," if self._count > 1 else ""
            annotation = {"id": self._count, **each, "image_id": number}
            self._file.write(f"{comma}\n{json.dumps(annotation)}")

    def close(self) -> None:
        """Finish the file."""
        if self._file is None:
            return
        categories = self._categories or Categories((), ())
        rest: dict[str, Any] = {
            "images": self._images,
            "categories": categories.to_coco_json(),
            "info": {"description": "detections by YOLACT"},
        }
        self._file.write(f"],\n{json.dumps(rest)[1:]}\n")
        self._file = None
        self._open.close()

    def _name_of(self, source: str) -> str:
        path, folder = Path(source).absolute(), self.image_folder.absolute()
        if is_url(source):
            return path.name
        if not (path.is_relative_to(folder) or is_file(path)):
            is_known = Path(source).is_absolute() or is_file(folder / path.name)
            return path.name if is_known else Path(source).as_posix()
        return relative_name(path, folder)


def _with_own_box(entry: CocoObject, image_hw: tuple[int, int]) -> CocoObject:
    """Return an object with the box of its outline, as in annotations, if it has an outline."""
    box, area = measure(from_outline(entry["segmentation"], image_hw))
    return {**entry, "bbox": box} if area else entry
