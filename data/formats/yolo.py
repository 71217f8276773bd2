"""YOLO segmentation: a text file for each image, a line for each object; read and written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.annotations.polygons import one_ring
from data.files import IMAGE_SUFFIXES
from data.problems import Unusable

from .convert import CocoBuilder, Converted, Object, header_hw, polygon
from .data_yaml import read_class_names
from .drawn import Drawn

_LARGEST_SHARE = 2.0  # beyond it, coordinates are pixels
_LINE = "write: class x1 y1 x2 y2 x3 y3 ..."


def read_yolo(image_folder: Path, names_file: Path) -> Converted:
    """Read the objects of the images in a folder and its sub-folders.

    The text files are in `labels` where the images are in `images`, else beside the images. A line
    is a class number and the corners of a polygon, as shares of width and height; or it is a box,
    centre and size, perhaps with a score. An image without a text file has no objects.

    Args:
        image_folder: where the images are.
        names_file: `data.yaml` or `classes.txt`, see `data.formats.data_yaml.read_class_names`.

    Raises:
        ValueError: the names cannot be read, or nothing can be used.
    """
    categories = read_class_names(names_file)
    labels = _label_folder(image_folder)
    stray = set(labels.rglob("*.txt")) - {labels / "classes.txt"}
    found = CocoBuilder()
    for image in _images_in(image_folder):
        name = image.relative_to(image_folder)
        file = labels / name.with_suffix(".txt")
        stray.discard(file)
        with found.leaving_out(str(image)):
            image_hw = header_hw(image)
            lines = _lines(file) if file.is_file() else {}
            objects: list[Object] = []
            for number, line in lines.items():
                with found.leaving_out(f"{file}, line {number}"):
                    parsed = _parsed(line, image_hw)
                    if parsed.category not in categories.label_of:
                        raise Unusable("a class number without a name", f"name it in {names_file}")
                    objects.append(parsed)
            found.add(name.as_posix(), image_hw, objects, len(lines))
    for file in sorted(stray) if labels != image_folder else ():
        with found.leaving_out(str(file)):
            raise Unusable("labels without an image", f"put the image into {image_folder}")
    return found.finish(labels, categories)


def yolo_text(image_hw: tuple[int, int], objects: Iterable[Drawn]) -> str:
    """Return the text file of an image; parts and holes are joined to one ring, see `one_ring`.

    Args:
        image_hw: height and width of the image.
        objects: with their outlines; those without one are left out.
    """
    lines = []
    for drawn in filter(lambda drawn: drawn.polygons, objects):
        shares = one_ring(drawn.polygons) / (image_hw[1], image_hw[0])
        lines.append(f"{drawn.label} " + " ".join(f"{share:.6f}" for share in shares.reshape(-1)))
    return "".join(f"{line}\n" for line in lines)


def _label_folder(image_folder: Path) -> Path:
    parts = image_folder.absolute().parts
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        labels = Path(*parts[:last], "labels", *parts[last + 1 :])
        if labels.is_dir():
            return labels
    return image_folder


def _images_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            yield path


def _lines(file: Path) -> dict[int, str]:
    """Return the lines that are not empty, by number."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise Unusable("labels that are no text", f"write {file.name} anew") from None
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
        raise Unusable("an x without its y", _LINE)
    if max(map(abs, shares), default=0) > _LARGEST_SHARE:
        raise Unusable("coordinates in pixels", "divide x by the width and y by the height")
    height, width = image_hw
    if is_box:
        x, y, w, h = shares[:4]
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        return Object(int(label), [], box)
    xs, ys = [x * width for x in shares[::2]], [y * height for y in shares[1::2]]
    return Object(int(label), [polygon(xs, ys, image_hw)])
