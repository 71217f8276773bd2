"""Objects in the formats of labelling tools, for correction by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data.annotations.paths import relative_name
from data.files import is_url
from data.formats.cvat import CvatMask, cvat_file, cvat_image
from data.formats.labelme import labelme_content
from data.formats.polygon_object import PolygonObject
from data.formats.yolo import box_line, yolo_text
from layers.instances import Instances

from .exports import polygons


def labelme(
    objects: Instances, source: str, folder: Path | str, tolerance: float
) -> dict[str, object]:
    """Return the content of a labelme file; an object without a mask is a rectangle.

    Args:
        objects: N objects.
        source: path or address of the image; "" for an image in memory, whose name stays empty.
        folder: folder of the file, or "" if unknown: then, as for an address, the last part of the
            source is the name.
        tolerance: tolerance of the outlines, see `polygons`.
    """
    is_beside = source and folder and not is_url(source)
    name = relative_name(source, folder) if is_beside else Path(source).name
    drawn = _polygon_objects(objects, tolerance)
    return labelme_content(name, objects.image_hw, drawn, objects.boxes.tolist())


def yolo(objects: Instances, tolerance: float) -> str:
    """Return an image's text file for YOLO segmentation; an object without a mask is a box."""
    image_hw = objects.image_hw
    drawn = zip(_polygon_objects(objects, tolerance), objects.boxes.tolist(), strict=True)
    return "".join(
        yolo_text(image_hw, [each]) or box_line(each.label, image_hw, (x1, y1, x2 - x1, y2 - y1))
        for each, (x1, y1, x2, y2) in drawn
    )


def cvat(objects: Instances, name: str) -> str:
    """Return the XML file of one image; `name` is the image's name in CVAT."""
    return "".join(
        cvat_file(objects.class_names, [cvat_image(name, objects.image_hw, _masks(objects))])
    )


def _polygon_objects(objects: Instances, tolerance: float) -> Iterator[PolygonObject]:
    values = zip(objects.names(), objects.labels.tolist(), objects.scores.tolist(), strict=True)
    for index, (name, label, score) in enumerate(values):
        yield PolygonObject(name, label, polygons(objects, index, tolerance), f"score {score:.2f}")


def _masks(objects: Instances) -> Iterator[CvatMask]:
    for index, name in enumerate(objects.names()):
        window, inside = objects.crop(index)
        if inside.any():
            yield CvatMask(name, inside.cpu().numpy(), window[:2])
