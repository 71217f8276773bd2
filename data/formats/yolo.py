"""YOLO segmentation: a text file for each image, a line for each object; read and written."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from data.annotations.paths import relative_name
from data.annotations.polygons import Ring, one_ring
from data.classes import Categories
from data.files import read_text_of
from data.problems import Problem, Unusable

from .builder import CocoBuilder, ConversionResult, Object, header_hw, polygon
from .data_yaml import read_class_names, write_data_yaml
from .output import Output, Picture, write
from .polygon_object import PolygonObject
from .yolo_files import find_places, images_of, label_folder

_LARGEST_SHARE = 2.0  # beyond it, coordinates are pixels
_SUFFIXES = (".txt", ".TXT")
_FEW_BOXES = 0.1  # of the objects: if more are boxes, these are meant
_NO_NAME = "a class number without a name"
_LINE = "write: class x1 y1 x2 y2 x3 y3 ..."

FROM_ONE = "class numbers that seem to begin at 1"
"""What is said of a dataset where they do."""


def read_yolo(image_folder: Path, names_file: Path, part: str = "") -> ConversionResult:
    """Read the objects of the images in a folder and its sub-folders.

    The text files are in `labels` where the images are in `images`, else beside the images. A line
    is a class number and the corners of a polygon, as shares of width and height; or it is a box,
    centre and size, perhaps with a score. An image without a text file has no objects.

    Args:
        image_folder: to which the image names are relative.
        names_file: `data.yaml` or `classes.txt`, see `data.formats.data_yaml.read_class_names`.
        part: "train" or "val", if `names_file` says where its images are; "" for all in the folder.

    Raises:
        ValueError: the names cannot be read, no image has a text file, or nothing can be used.
    """
    categories = read_class_names(names_file)
    places = find_places(names_file)[part] if part else [image_folder]
    found = CocoBuilder()
    files: dict[Path, Path] = {}
    for place in places:
        for image in images_of(names_file, place):
            with found.leaving_out(str(place)):
                if isinstance(image, Unusable):
                    raise image
                files[image] = _text_file(image, place)
    unlabelled = [image for image, file in files.items() if not os.path.lexists(file)]
    if files and len(unlabelled) == len(files):
        raise ValueError(_no_labels(names_file, files))
    read: list[tuple[Object, str]] = []
    for image, file in files.items():
        with found.leaving_out(str(image)):
            image_hw = header_hw(image)
            lines = _lines(file) if os.path.lexists(file) else {}
            objects: list[Object] = []
            for number, line in lines.items():
                with found.leaving_out(f"{file}, line {number}"):
                    parsed = _parsed(line, image_hw)
                    read.append((parsed, f"{file}, line {number}"))
                    if parsed.category not in categories.label_of:
                        raise Unusable(_NO_NAME, f"name it in {names_file}")
                    objects.append(parsed)
            name = relative_name(image, image_folder)
            found.add(name, image_hw, objects, len(lines))
    for file in _stray(filter(Path.is_dir, places), set(files.values())):
        with found.leaving_out(str(file)):
            raise Unusable("labels without an image", f"put the image into {image_folder}")
    _warn_of_numbers(found, names_file, categories, {parsed.category for parsed, _ in read})
    _warn_of_boxes(found, read)
    if unlabelled:
        where = f"{len(unlabelled)} of {len(files)}, such as {unlabelled[0]}"
        found.notice("images without a label file", where, "they are learned as showing nothing")
    return found.finish(names_file if part else label_folder(image_folder), categories)


def _no_labels(names_file: Path, files: Mapping[Path, Path]) -> str:
    """Say that no image has a text file, where one was looked for, and where some lie."""
    image, file = next(iter(files.items()))
    stems = {path.stem for path in files}
    below = (path for path in names_file.parent.rglob("*") if path.suffix in _SUFFIXES)
    astray = next((path for path in below if path.stem in stems), None)
    found = f"; {astray} lies elsewhere: move the label files" if astray else ""
    return f"{names_file}: no image has a label file: {image} has no {file}{found}"


def _warn_of_numbers(
    found: CocoBuilder, names_file: Path, categories: Categories, used: AbstractSet[str | int]
) -> None:
    """Tell of class numbers that begin at 1: none is 0, and one is beyond the names."""
    count = len(categories)
    if categories.category_ids != tuple(range(count)) or 0 in used or count not in used:
        return
    mend = "YOLO counts from 0: subtract 1 from each"
    found.problems = [
        replace(problem, mend=mend) if problem.what == _NO_NAME else problem
        for problem in found.problems
    ]
    where = f"{names_file} names {count} from 0 on, no object has 0, some have {count}"
    found.problems.insert(0, Problem(FROM_ONE, where, mend, is_used=True))


def _warn_of_boxes(found: CocoBuilder, read: Sequence[tuple[Object, str]]) -> None:
    """Tell of a few boxes among polygons, which may be polygons cut short."""
    boxes = [where for parsed, where in read if not parsed.outline]
    if 0 < len(boxes) <= _FEW_BOXES * len(read):
        where = f"{len(boxes)} of {len(read)} objects, such as {boxes[0]}"
        mend = "four numbers are centre and size: a polygon has three points or more"
        found.notice("a few boxes among polygons", where, mend)


def write_yolo(output: Output, pictures: Iterable[Picture]) -> None:
    """Write a text file for each image into `labels`, and `data.yaml`."""
    labels = output.folder / "labels" / output.split
    for picture in pictures:
        image_hw = picture.image_hw
        seen = partial(_as_read, image_hw)
        objects = output.polygon_objects(picture, is_joined=True, written=seen)
        text = yolo_text(image_hw, objects) + "".join(_boxes(output, picture))
        write(labels / f"{picture.stem}.txt", text)
    content = {split: f"images/{split}" for split in output.splits if split}
    content = content or {"train": "images", "val": "images"}  # a dataset that is not split
    names = dict(enumerate(output.categories.names))
    write_data_yaml(output.folder / "data.yaml", content | {"names": names})


def _boxes(output: Output, picture: Picture) -> Iterator[str]:
    """Yield the lines of objects that have a box alone: centre and size."""
    for found in picture.annotations:
        if not found["segmentation"]:
            label = output.categories.label_of[found["category_id"]]
            yield box_line(label, picture.image_hw, found["bbox"])


def box_line(label: int, image_hw: tuple[int, int], bbox: Sequence[float]) -> str:
    """Return the line of an object of which x, y, width and height are known, and no outline."""
    (height, width), (x, y, w, h) = image_hw, bbox
    shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
    return f"{label} {' '.join(f'{share:.6f}' for share in shares)}\n"


def yolo_text(image_hw: tuple[int, int], objects: Iterable[PolygonObject]) -> str:
    """Return the text file of an image; parts and holes are joined to one ring, see `one_ring`.

    Args:
        image_hw: height and width of the image.
        objects: with their outlines; those without one are left out.
    """
    return "".join(
        f"{drawn.label} {_shares(image_hw, one_ring(drawn.polygons))}\n"
        for drawn in objects
        if drawn.polygons
    )


def _shares(image_hw: tuple[int, int], ring: Ring) -> str:
    shares = (ring / image_hw[::-1]).clip(0, 1)  # others refuse what is outside the image
    return " ".join(f"{share:.6f}" for share in shares.reshape(-1))


def _as_read(image_hw: tuple[int, int], ring: Ring) -> Ring:
    """Return what is read of a ring that was written."""
    shares = np.array(_shares(image_hw, ring).split(), float)
    points: Ring = shares.reshape(-1, 2) * np.array(image_hw[::-1], float)
    return points


def _text_file(image: Path, place: Path) -> Path:
    """Return where the objects of an image are written, which is in a folder or a list."""
    stems = [label_folder(image.parent) / image.stem]
    if place.is_dir():
        stems.insert(0, label_folder(place) / image.relative_to(place).with_suffix(""))
    files = [Path(f"{stem}{suffix}") for stem in stems for suffix in _SUFFIXES]
    return next(filter(os.path.lexists, files), files[-2])


def _stray(folders: Iterable[Path], used: AbstractSet[Path]) -> list[Path]:
    """Return the text files beside `images` that belong to no image."""
    labels = {label_folder(folder) for folder in folders if label_folder(folder) != folder}
    files = {f for folder in labels for suffix in _SUFFIXES for f in folder.rglob(f"*{suffix}")}
    return sorted(files - used - {folder / "classes.txt" for folder in labels})


def _lines(file: Path) -> dict[int, str]:
    """Return the lines that are not empty, by number."""
    try:
        lines = read_text_of(file)[0].splitlines()
    except ValueError:
        raise Unusable("labels that cannot be read", f"write {file.name} anew") from None
    return {number: line for number, line in enumerate(lines, start=1) if line.strip()}


def _parsed(line: str, image_hw: tuple[int, int]) -> Object:
    """Return the object of a line, in pixels."""
    try:
        label, *shares = map(float, line.split())
    except ValueError:
        raise Unusable("a line that is not numbers", _LINE) from None
    if not math.isfinite(sum(shares)) or not label.is_integer():
        raise Unusable("a line that is not numbers", _LINE)
    is_box = len(shares) in (4, 5)  # centre and size, perhaps a score
    if len(shares) % 2 and not is_box:
        mend = f"{_LINE}, or is the last number a score? leave that out"
        raise Unusable("an x without its y", mend)
    if max(map(abs, shares), default=0) > _LARGEST_SHARE:
        raise Unusable("coordinates in pixels", "divide x by the width and y by the height")
    height, width = image_hw
    if is_box:
        x, y, w, h = shares[:4]
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        return Object(int(label), [], box)
    xs, ys = [x * width for x in shares[::2]], [y * height for y in shares[1::2]]
    return Object(int(label), [polygon(xs, ys, image_hw)])
