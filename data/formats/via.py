"""VIA, the VGG Image Annotator: one JSON file, project or export; read and written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from data.annotations.locate import ImageFinder
from data.annotations.polygons import one_ring
from data.files import is_number, read_json_of
from data.problems import Unusable

from .builder import (
    DRAW_AGAIN,
    UNNAMED,
    CocoBuilder,
    ConversionResult,
    Object,
    ellipse,
    header_hw,
    numbers_of,
    polygon,
)
from .output import Output, Picture, write

_CLASS_ATTRIBUTES = ("class", "label", "name", "type")


def read_via(image_folder: Path, file: Path) -> ConversionResult:
    """Read the regions of a VIA file.

    Polygons, rectangles, circles and ellipses are objects. Their class is the value of the only
    region attribute, or of the one called class, label, name or type; where there is no such
    attribute, every region is an "object".

    Args:
        image_folder: where the images are.
        file: JSON, of version 1 or 2.

    Raises:
        ValueError: it is no such file, or nothing can be used.
    """
    project, encoding = read_json_of(file)
    content = project.get("_via_img_metadata", project) if isinstance(project, dict) else project
    if not isinstance(project, dict) or not isinstance(content, dict):
        raise ValueError(f"{file}: expected VIA's images by name, found a {type(content).__name__}")
    entries = list(content.values())
    attribute = _class_attribute(entries)
    found = CocoBuilder()
    finder = ImageFinder(image_folder, file)
    if not encoding.startswith("utf"):
        mend = f"it was read as {encoding}: save it as UTF-8"
        found.note("a file of unknown encoding", file, mend)
    if attribute is None and any(_attributes(region) for e in entries for region in _regions(e)):
        mend = f"call the one with the class {' or '.join(_CLASS_ATTRIBUTES)}"
        found.note("attributes that name no class", file, mend)
    for number, entry in enumerate(entries, start=1):
        name = entry.get("filename") if isinstance(entry, dict) else None
        where = f"{file}, {f'{name:.80}' if isinstance(name, str) else f'image {number}'}"
        with found.leaving_out(where):
            name, image_hw = _image(name, finder)
            objects = _objects(found, entry, attribute, image_hw, where)
            found.add(name, image_hw, objects, len(_regions(entry)))
    return found.finish(file, listed=_options(project, attribute))


def write_via(output: Output, pictures: Iterable[Picture]) -> None:
    """Write a project of version 2, in which every object is one polygon."""
    images: dict[str, object] = {}
    for picture in pictures:
        regions = [
            {
                "shape_attributes": {
                    "name": "polygon",
                    "all_points_x": ring[:, 0].tolist(),
                    "all_points_y": ring[:, 1].tolist(),
                },
                "region_attributes": {"class": item.name},
            }
            for item in output.polygon_objects(picture, is_joined=True)
            for ring in [one_ring(item.polygons)]
        ]
        size = picture.file.stat().st_size
        entry = {"filename": picture.name, "size": size, "regions": regions, "file_attributes": {}}
        images[f"{picture.name}{size}"] = entry
    options = dict.fromkeys(output.categories.names, "")
    chooser = {"type": "dropdown", "description": "", "options": options, "default_options": {}}
    project = {
        "_via_settings": {"core": {"default_filepath": ""}, "project": {"name": "via_project"}},
        "_via_img_metadata": images,
        "_via_attributes": {"region": {"class": chooser}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(images),
    }
    file = output.folder / output.split / "via_project.json"
    write(file, json.dumps(project, ensure_ascii=False))


def _options(content: dict[str, object], attribute: str | None) -> list[str]:
    """Return the classes that a project offers."""
    found: object = content
    for key in ("_via_attributes", "region", attribute, "options"):
        found = found.get(key) if isinstance(found, dict) else None
    return [name.strip() for name in found] if isinstance(found, dict) else []


def _image(name: object, finder: ImageFinder) -> tuple[str, tuple[int, int]]:
    if not isinstance(name, str):
        raise Unusable("an image without 'filename'", "export the annotations again")
    image = finder.find(name)
    return finder.relative(image), header_hw(image)


def _regions(entry: object) -> list[object]:
    """Return the regions of an image: a list in version 2, by number in version 1."""
    regions = entry.get("regions") if isinstance(entry, dict) else None
    if isinstance(regions, dict):
        regions = list(regions.values())
    return regions if isinstance(regions, list) else []


def _attributes(region: object) -> dict[str, object]:
    attributes = region.get("region_attributes") if isinstance(region, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _class_attribute(entries: list[object]) -> str | None:
    """Return which attribute holds the class, or None."""
    regions = (region for entry in entries for region in _regions(entry))
    names = {name for region in regions for name in _attributes(region)}
    if len(names) == 1:
        return names.pop()
    by_name = {name.lower(): name for name in sorted(names)}
    return next((by_name[name] for name in _CLASS_ATTRIBUTES if name in by_name), None)


def _objects(
    found: CocoBuilder, entry: object, attribute: str | None, image_hw: tuple[int, int], where: str
) -> list[Object]:
    objects: list[Object] = []
    for number, region in enumerate(_regions(entry), start=1):
        with found.leaving_out(f"{where}, region {number}"):
            label = UNNAMED if attribute is None else _label(_attributes(region).get(attribute))
            shape = region.get("shape_attributes") if isinstance(region, dict) else None
            if not isinstance(shape, dict):
                raise Unusable("a region without a shape", DRAW_AGAIN)
            objects.append(Object(label, [_outline(shape, image_hw)]))
    return objects


def _label(value: object) -> str:
    """Return the class: a text, or of several checkboxes the one that is on."""
    if isinstance(value, dict):
        chosen = [name for name, on in value.items() if on]
        value = chosen[0] if len(chosen) == 1 else None
    if not isinstance(value, str) or not value.strip():
        raise Unusable("a region without a class", "fill in its attribute")
    return value.strip()


def _outline(shape: dict[str, object], image_hw: tuple[int, int]) -> list[float]:
    kind = shape.get("name")
    if kind == "polygon":
        return polygon(shape.get("all_points_x"), shape.get("all_points_y"), image_hw)
    if kind == "rect":
        x, y, width, height = numbers_of(shape, "x", "y", "width", "height")
        xs, ys = [x, x + width, x + width, x], [y, y, y + height, y + height]
        return polygon(xs, ys, image_hw)
    if kind == "circle":
        x, y, radius = numbers_of(shape, "cx", "cy", "r")
        return ellipse((x, y), (radius, radius), image_hw)
    if kind == "ellipse":
        x, y, radius_x, radius_y = numbers_of(shape, "cx", "cy", "rx", "ry")
        angle = shape.get("theta")
        return ellipse((x, y), (radius_x, radius_y), image_hw, angle if is_number(angle) else 0.0)
    if kind in ("point", "polyline", "line"):
        raise Unusable(f"a {kind}, which has no area", "draw a polygon")
    raise Unusable("a region of unknown shape", DRAW_AGAIN)
