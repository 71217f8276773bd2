"""labelme: a JSON file for each image, read and written."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from data.annotations.entries import stated_hw
from data.annotations.locate import MISSING_IMAGE, ImageFinder, joined_name
from data.annotations.run_lengths import encode
from data.files import IMAGE_SUFFIXES, is_number, read_json_of, read_text_of
from data.images import read_image
from data.problems import Unusable, counted
from data.sample import RunLengths

from .builder import (
    DRAW_AGAIN,
    CocoBuilder,
    ConversionResult,
    Object,
    Part,
    ellipse,
    header_hw,
    joined,
    polygon,
    rectangle,
)
from .output import Output, Picture, write
from .polygon_object import PolygonObject
from .splits import split_of
from .yolo_files import images_below

_POLYGONS = ("polygon", "rotation", "rotated_rectangle", "oriented_rectangle", "quadrilateral")
_LARGE = 1 << 20  # pixels of a mask that any image may have
_MANY_PARTS = 5  # of one object
_CLASS_LIST = "labels.txt"
_SPECIAL = ("__ignore__", "_background_")


class _Labels(NamedTuple):
    """What files say of one image.

    Attributes:
        file: the first of them.
        image_hw: height and width of the image, according to it.
        objects: those that can be used.
        listed: how many shapes there are.
    """

    file: Path
    image_hw: tuple[int, int]
    objects: list[Object]
    listed: int


def read_labelme(image_folder: Path, label_folder: Path) -> ConversionResult:
    """Read every labelme file of a folder and of the folders in it.

    Polygons, rectangles (rotated ones, too), circles and masks are objects; shapes of one label and
    `group_id` are parts of one object. An image is looked for at its `imagePath`, then under the
    JSON file's own name, beside the JSON file and in the image folder; then the picture embedded in
    the file is taken, else an image that ends like `imagePath`, see `ImageFinder`. Several files of
    one image are joined.

    Args:
        image_folder: to which the image names are relative.
        label_folder: where the JSON files are.

    Raises:
        ValueError: nothing can be used, or more than half of the images are missing.
    """
    found = CocoBuilder()
    finder = ImageFinder(image_folder, label_folder)
    images: dict[str, _Labels] = {}
    groups: list[tuple[int, str]] = []
    for file in json_files_below(label_folder):
        with found.leaving_out(str(file)):
            content, shapes = _content(found, file)
            inside = file.parent.relative_to(label_folder).as_posix()
            image = _image_of(content, file, "" if inside == "." else inside, finder)
            stated = stated_hw(content, "imageHeight", "imageWidth")
            image_hw = stated or header_hw(image)
            objects = _objects(found, shapes, image_hw, file, groups)
            labels = _Labels(file, image_hw, objects, len(shapes))
            name = finder.relative(image)
            images[name] = _with_earlier(found, images.get(name), labels)
    for name, labels in images.items():
        found.add(name, labels.image_hw, labels.objects, labels.listed)
    _warn_of_groups(found, groups)
    _warn_of_unused(found, image_folder, images.keys(), label_folder)
    return found.finish(label_folder, listed=_class_list(label_folder))


def _warn_of_groups(found: CocoBuilder, groups: Sequence[tuple[int, str]]) -> None:
    """Tell of objects of so many parts that their Group ID may be meant otherwise."""
    if groups:
        shapes, where = sum(count for count, _ in groups), max(groups)[1]
        told = f"{shapes} shapes became {counted(len(groups), 'object')}, such as {where}"
        mend = "only the parts of one object share a Group ID: clear it of others"
        found.notice("many shapes joined by Group ID", told, mend)


def _warn_of_unused(
    found: CocoBuilder, folder: Path, used: AbstractSet[str], label_folder: Path
) -> None:
    """Tell of images that no JSON file is about, nor one of another split."""
    beside = label_folder.parent.iterdir() if split_of(label_folder.name) else ()
    others = [each for each in beside if split_of(each.name) and each.is_dir()]
    stems = {file.stem for each in (label_folder, *others) for file in json_files_below(each)}
    names = (path.relative_to(folder).as_posix() for path in images_below(folder))
    unused = [name for name in names if name not in used and PurePath(name).stem not in stems]
    if unused:
        mend = "they are not used: one without objects needs a JSON file, too"
        found.notice("images without a JSON file", f"{len(unused)}, such as {unused[0]}", mend)


def write_labelme(output: Output, pictures: Iterable[Picture]) -> None:
    """Write a JSON file for each image, and `labels.txt`, the classes for `labelme --labels`."""
    folder = output.folder / output.split
    for picture in pictures:
        name = picture.name.rpartition("/")[2]
        objects = output.polygon_objects(picture, is_joined=False)
        content = labelme_content(name, picture.image_hw, objects)
        text = json.dumps(content, ensure_ascii=False, indent=2)
        write(folder / f"{picture.stem}.json", text)
    lines = "".join(f"{name}\n" for name in output.categories.names)
    write(folder / _CLASS_LIST, lines)


def labelme_content(
    image_path: str,
    image_hw: tuple[int, int],
    objects: Iterable[PolygonObject],
    boxes: Sequence[Sequence[float]] = (),
) -> dict[str, object]:
    """Return a labelme file: a polygon for each part, the parts of an object as a group.

    Args:
        image_path: of the image, relative to the JSON file.
        image_hw: height and width of the image.
        objects: with their outlines; a hole is joined to its outline by a bridge without area.
        boxes: x1, y1, x2, y2 of each, by which one without an outline is a rectangle.
    """
    shapes: list[dict[str, object]] = []
    for number, item in enumerate(objects):
        group = number + 1 if len(item.polygons) > 1 else None
        shapes += [_shape(item, "polygon", ring, group) for ring in item.rings()]
        if boxes and not item.polygons:
            shapes.append(_shape(item, "rectangle", [boxes[number][:2], boxes[number][2:]]))
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": image_hw[0],
        "imageWidth": image_hw[1],
    }


def _shape(
    item: PolygonObject, kind: str, points: object, group: int | None = None
) -> dict[str, object]:
    return {
        "label": item.name,
        "points": points,
        "group_id": group,
        "description": item.note,
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }


def _class_list(folder: Path) -> list[str]:
    """Return the classes of `labels.txt`, with which labelme is started, but its special ones."""
    try:
        lines = read_text_of(folder / _CLASS_LIST)[0].splitlines()
    except ValueError:
        return []
    return [name for line in lines if (name := line.strip()) and name not in _SPECIAL]


def json_files_below(folder: Path) -> list[Path]:
    """Return the JSON files in a folder and below it, but for hidden folders."""
    files = (file.relative_to(folder) for file in folder.rglob("*.json"))
    return sorted(folder / file for file in files if not any(p[0] == "." for p in file.parts))


def _content(found: CocoBuilder, file: Path) -> tuple[dict[str, object], list[object]]:
    """Return everything in a file, and its shapes."""
    try:
        content, encoding = read_json_of(file)
    except ValueError:
        mend = "it was cut short or edited: restore it, or label the image again"
        raise Unusable("a file that is not valid JSON", mend) from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise Unusable("a JSON file without 'shapes'", "keep only labelme's files here")
    if not encoding.startswith("utf"):
        mend = f"it was read as {encoding}: save it as UTF-8"
        found.note("a file of unknown encoding", file, mend)
    return content, content["shapes"]


def _image_of(content: dict[str, object], file: Path, inside: str, finder: ImageFinder) -> Path:
    """Return the image of a file, or the file itself if it holds the picture."""
    path = content.get("imagePath")
    names = [joined_name(inside, path), path] if isinstance(path, str) and path else []
    own = [joined_name(inside, f"{file.stem}{suffix}") for suffix in sorted(IMAGE_SUFFIXES)]
    for name in (*names, *own):
        try:
            return finder.find(name, loosely=False)
        except Unusable as error:
            if error.what != MISSING_IMAGE:
                raise
    if isinstance(content.get("imageData"), str) and content["imageData"]:
        return file
    if not names:
        raise Unusable(MISSING_IMAGE, f"put {file.stem}.jpg or .png beside the JSON file")
    return finder.find(names[0])


def _with_earlier(found: CocoBuilder, earlier: _Labels | None, labels: _Labels) -> _Labels:
    """Join what several files say of one image, without what they say twice."""
    if earlier is None:
        return labels
    where = f"{labels.file} and {earlier.file}"
    if labels.image_hw != earlier.image_hw:
        mend = "delete one of the files"
        raise Unusable("an image with two label files that give it other sizes", mend)
    found.note("an image with two label files", where, "they were joined: delete one, if it is old")
    new = [each for each in labels.objects if each not in earlier.objects]
    return earlier._replace(objects=[*earlier.objects, *new], listed=earlier.listed + labels.listed)


def _objects(
    found: CocoBuilder,
    shapes: list[object],
    image_hw: tuple[int, int],
    file: Path,
    groups: list[tuple[int, str]],
) -> list[Object]:
    """Return the objects of a file; add those of many parts to `groups`: how many, and where."""
    parts: dict[tuple[str, str], list[Part]] = {}
    for number, shape in enumerate(shapes, start=1):
        with found.leaving_out(f"{file}, shape {number}"):
            if not isinstance(shape, dict):
                raise Unusable("a shape that is no object", DRAW_AGAIN)
            outline = _outline(shape, image_hw)
            label, group = shape.get("label"), shape.get("group_id")
            if not isinstance(label, str) or not label.strip():
                raise Unusable("a shape without a label", "give it the name of its class")
            key = f"shape {number}" if group is None else f"group {group!r:.80}"
            parts.setdefault((label.strip(), key), []).append(outline)
    groups += [
        (len(outlines), f"{file}, {len(outlines)} of {label!r:.80}")
        for (label, _), outlines in parts.items()
        if len(outlines) > _MANY_PARTS
    ]
    return [Object(label, joined(outlines, image_hw)) for (label, _), outlines in parts.items()]


def _outline(shape: dict[str, object], image_hw: tuple[int, int]) -> Part:
    kind = shape.get("shape_type") or "polygon"
    xs, ys = _coordinates(shape.get("points"))
    if kind in ("line", "linestrip", "point", "points"):
        raise Unusable(f"a {kind}, which has no area", "draw a polygon")
    if kind in _POLYGONS or (kind == "rectangle" and len(xs) == 4):
        return polygon(xs, ys, image_hw)
    if kind not in ("rectangle", "circle", "mask") or len(xs) != 2:
        raise Unusable("a shape of unknown type", DRAW_AGAIN)
    corners = polygon([*xs, *xs[::-1]], [ys[0], *ys, ys[1]], image_hw)
    if kind == "circle":  # its centre, and a point on it
        x1, y1, *_, x2, y2 = corners[:6]
        radius = math.hypot(x2 - x1, y2 - y1)
        return ellipse((x1, y1), (radius, radius), image_hw)
    if kind == "mask":
        return _bitmap(shape.get("mask"), corners, image_hw)
    x, y, *_ = corners
    size = corners[2] - x, corners[5] - y
    centre = x + size[0] / 2, y + size[1] / 2
    return rectangle((x, y), size, image_hw, _angle(shape), centre)


def _angle(shape: dict[str, object]) -> float:
    """Return by how much a rectangle is turned about its centre, in radians from x towards y."""
    degrees, radians = shape.get("rotation"), shape.get("direction")
    if is_number(degrees):
        return math.radians(degrees)
    return radians if is_number(radians) else 0.0


def _coordinates(points: object) -> tuple[list[object], list[object]]:
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise Unusable("an outline without points", DRAW_AGAIN)
    return [x for x, _ in points], [y for _, y in points]


def _bitmap(mask: object, corners: list[float], image_hw: tuple[int, int]) -> RunLengths:
    """Place a PNG, in base64, with its top left pixel at the first corner; cut what is outside."""
    try:
        content = base64.b64decode(mask) if isinstance(mask, str) else b""
        most = max(_LARGE, 4 * image_hw[0] * image_hw[1])  # what is outside is cut
        piece = read_image(content, max_pixels=most)[..., 0] > 0
    except ValueError:
        raise Unusable("a mask that cannot be decoded", DRAW_AGAIN) from None
    canvas = np.zeros(image_hw, np.bool_)
    x, y = round(corners[0]), round(corners[1])
    seen, target = piece[max(-y, 0) :, max(-x, 0) :], canvas[max(y, 0) :, max(x, 0) :]
    height, width = np.minimum(seen.shape, target.shape)
    target[:height, :width] = seen[:height, :width]
    return encode(canvas)
