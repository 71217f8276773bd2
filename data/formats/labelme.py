"""labelme: a JSON file for each image, read and written."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

import numpy as np

from data.annotations.entries import stated_hw
from data.annotations.run_lengths import encode
from data.files import IMAGE_SUFFIXES, is_file, read_json
from data.images import read_image
from data.problems import Unusable
from data.sample import RunLengths

from .convert import CocoBuilder, Converted, Object, Part, ellipse, header_hw, joined, polygon
from .drawn import Drawn
from .output import Output, Picture

_DRAW_AGAIN = "draw the object again, or delete it"
_CLASS_LIST = "labels.txt"
_SPECIAL = ("__ignore__", "_background_")


def read_labelme(image_folder: Path, label_folder: Path) -> Converted:
    """Read every labelme file of a folder.

    Polygons, rectangles, circles and masks are objects; shapes of one label and `group_id` are
    parts of one object. An image is looked for at its `imagePath`, then under the last part of
    that, or the JSON file's own name, beside the JSON file and in the image folder.

    Args:
        image_folder: to which the image names are relative.
        label_folder: where the JSON files are.

    Raises:
        ValueError: nothing can be used.
    """
    found = CocoBuilder()
    for file in sorted(label_folder.glob("*.json")):
        with found.leaving_out(str(file)):
            content, shapes = _content(file)
            image = _image_of(content.get("imagePath"), file, image_folder)
            stated = stated_hw(content, "imageHeight", "imageWidth")
            image_hw = stated or header_hw(image)
            objects = _objects(found, shapes, image_hw, file)
            name = Path(os.path.relpath(image, image_folder)).as_posix()
            found.add(name, image_hw, objects, len(shapes))
    return found.finish(label_folder, listed=_class_list(label_folder))


def write_labelme(output: Output, pictures: Iterable[Picture]) -> None:
    """Write a JSON file for each image, and `labels.txt`, the classes for `labelme --labels`."""
    folder = output.folder / output.split
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        name = picture.name.rpartition("/")[2]
        drawn = output.drawn(picture, is_joined=False)
        content = labelme_content(name, picture.image_hw, drawn)
        file = folder / f"{picture.stem}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
    lines = "".join(f"{name}\n" for name in output.categories.names)
    (folder / _CLASS_LIST).write_text(lines, encoding="utf-8")


def labelme_content(
    image_path: str, image_hw: tuple[int, int], objects: Iterable[Drawn]
) -> dict[str, object]:
    """Return a labelme file: a polygon for each part, the parts of an object as a group.

    Args:
        image_path: of the image, relative to the JSON file.
        image_hw: height and width of the image.
        objects: with their outlines; a hole is joined to its outline by a bridge without area.
    """
    shapes: list[dict[str, object]] = [
        {
            "label": drawn.name,
            "points": ring,
            "group_id": number if len(drawn.polygons) > 1 else None,
            "description": drawn.note,
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for number, drawn in enumerate(objects, start=1)
        for ring in drawn.rings()
    ]
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": image_hw[0],
        "imageWidth": image_hw[1],
    }


def _class_list(folder: Path) -> list[str]:
    """Return the classes of `labels.txt`, with which labelme is started, but its special ones."""
    try:
        lines = (folder / _CLASS_LIST).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [name for line in lines if (name := line.strip()) and name not in _SPECIAL]


def _content(file: Path) -> tuple[dict[str, object], list[object]]:
    """Return everything in a file, and its shapes."""
    try:
        content = read_json(file)
    except ValueError:
        raise Unusable("a file that is not valid JSON", "label the image again") from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise Unusable("a JSON file without 'shapes'", "keep only labelme's files here")
    return content, content["shapes"]


def _image_of(image_path: object, file: Path, image_folder: Path) -> Path:
    folders = (file.parent, image_folder)
    candidates = [f / f"{file.stem}{suffix}" for f in folders for suffix in sorted(IMAGE_SUFFIXES)]
    if isinstance(image_path, str):
        path = PureWindowsPath(image_path)  # reads both kinds of slashes
        named = [file.parent / path.as_posix(), *(folder / path.name for folder in folders)]
        candidates = [*named, *candidates]
    image = next(filter(is_file, candidates), None)
    if image is None:
        raise Unusable("labels without an image", f"put {image_path!r:.80} beside the JSON file")
    return image


def _objects(
    found: CocoBuilder, shapes: list[object], image_hw: tuple[int, int], file: Path
) -> list[Object]:
    parts: dict[tuple[str, str], list[Part]] = {}
    for number, shape in enumerate(shapes, start=1):
        with found.leaving_out(f"{file}, shape {number}"):
            if not isinstance(shape, dict):
                raise Unusable("a shape that is no object", _DRAW_AGAIN)
            outline = _outline(shape, image_hw)
            label, group = shape.get("label"), shape.get("group_id")
            if not isinstance(label, str) or not label.strip():
                raise Unusable("a shape without a label", "give it the name of its class")
            key = f"shape {number}" if group is None else f"group {group!r:.80}"
            parts.setdefault((label.strip(), key), []).append(outline)
    return [Object(label, joined(outlines, image_hw)) for (label, _), outlines in parts.items()]


def _outline(shape: dict[str, object], image_hw: tuple[int, int]) -> Part:
    kind = shape.get("shape_type") or "polygon"
    xs, ys = _coordinates(shape.get("points"))
    if kind in ("line", "linestrip", "point", "points"):
        raise Unusable(f"a {kind}, which has no area", "draw a polygon")
    if kind == "polygon" or (kind == "rectangle" and len(xs) == 4):
        return polygon(xs, ys, image_hw)
    if kind not in ("rectangle", "circle", "mask") or len(xs) != 2:
        raise Unusable("a shape of unknown type", _DRAW_AGAIN)
    corners = polygon([*xs, *xs[::-1]], [ys[0], *ys, ys[1]], image_hw)
    if kind == "circle":  # its centre, and a point on it
        x1, y1, *_, x2, y2 = corners[:6]
        radius = math.hypot(x2 - x1, y2 - y1)
        return ellipse((x1, y1), (radius, radius), image_hw)
    return corners if kind == "rectangle" else _bitmap(shape.get("mask"), corners, image_hw)


def _coordinates(points: object) -> tuple[list[object], list[object]]:
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise Unusable("an outline without points", _DRAW_AGAIN)
    return [x for x, _ in points], [y for _, y in points]


def _bitmap(mask: object, corners: list[float], image_hw: tuple[int, int]) -> RunLengths:
    """Place a PNG, in base64, with its top left pixel at the first corner; cut what is outside."""
    try:
        content = base64.b64decode(mask) if isinstance(mask, str) else b""
        piece = read_image(content)[..., 0] > 0
    except ValueError:
        raise Unusable("a mask that cannot be decoded", _DRAW_AGAIN) from None
    canvas = np.zeros(image_hw, np.bool_)
    x, y = round(corners[0]), round(corners[1])
    seen, target = piece[max(-y, 0) :, max(-x, 0) :], canvas[max(y, 0) :, max(x, 0) :]
    height, width = np.minimum(seen.shape, target.shape)
    target[:height, :width] = seen[:height, :width]
    return encode(canvas)
