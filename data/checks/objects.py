"""Problems of the annotations of a COCO-style dataset."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.annotations.reader import ObjectReader
from data.annotations.run_lengths import from_outline, measure
from data.annotations.table import ImageTable, ObjectTable
from data.classes import Categories
from data.files import is_number
from data.problems import Problem, Unusable
from data.sample import RunLengths

from .duplicates import Box, box_iou, object_twins
from .images import CheckedImage

_TOLERANCE = 1.5  # pixels that an outline may lie outside: rounding, and corners of pixels
_MIN_AREA = 0.5  # pixels
_FITS, _FITS_WELL, _FITS_PERFECTLY = 0.5, 0.8, 0.9  # IoU of a bbox with its outline
_REDRAW = "draw it again, or delete it"
_MENDS = {
    "unknown image_id": "give the id of a good image in 'images', or delete it",
    "unknown category_id": "give the id of a class in 'categories', or delete it",
    "no segmentation": "draw its outline: masks are learned from it",
}


class _Object(NamedTuple):
    """A usable annotation.

    Attributes:
        entry: as it was found.
        image_id: of the image that it is in.
        label: of its class.
        extent: x1, y1, x2, y2 around its outline.
        area: of its polygons, or of its run lengths.
        outline: returns its mask.
    """

    entry: dict[str, object]
    image_id: int
    label: int
    extent: Box
    area: float
    outline: Callable[[], RunLengths]


def check_objects(
    entries: list[object], images: Mapping[int, CheckedImage], categories: Categories
) -> list[Problem]:
    """Look for annotations that training would leave out, and for those that teach it wrong.

    Args:
        entries: `annotations` of a COCO file, whatever they are.
        images: by id.
        categories: the classes.

    Returns:
        At most one problem for each annotation, and one for each duplicate.
    """
    usable, problems = _read(entries, images, categories)
    for found in usable:
        try:
            _check_place(found, images[found.image_id].image_hw)
            _check_bbox(found.entry.get("bbox"), found.extent)
        except Unusable as error:
            problems.append(Problem(error.what, _seen(found, images, categories), error.mend))
    for twin in _duplicates(usable):
        where = _seen(twin, images, categories)
        problems.append(Problem("an object that is annotated twice", where, "delete one"))
    return problems


def _read(
    entries: list[object], images: Mapping[int, CheckedImage], categories: Categories
) -> tuple[list[_Object], list[Problem]]:
    """Sort out what training would leave out, by its own rules."""
    sizes = [image.image_hw for image in images.values()]
    names = (image.file_name for image in images.values())
    reader = ObjectReader(ImageTable.of(images, sizes, names), categories.label_of)
    accepted: list[dict[str, object]] = []
    problems: list[Problem] = []
    for position, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            where = f"number {position}"
            problems.append(Problem("an annotation that is no object", where, _REDRAW))
            continue
        # Of the box only a placeholder: it is compared with the outline later.
        reader.read([entry | {"id": len(accepted) + 1, "bbox": [0, 0, 1, 1], "area": 1}])
        if reader.left_out:
            (reason,) = reader.left_out
            reader.left_out = Counter()
            problems.append(_left_out(reason, entry, images))
        else:
            accepted.append(entry)
    table = reader.table()
    numbers = (table.ids - 1).tolist()
    for lost in sorted(set(range(len(accepted))) - set(numbers)):
        is_far = isinstance(accepted[lost]["segmentation"], list)  # the only fault of polygons here
        reason = "outline far outside the image" if is_far else "run lengths of the wrong sum"
        problems.append(_left_out(reason, accepted[lost], images))
    extents, areas = _measure(table, sizes)
    image_ids = list(images)
    columns = (numbers, table.images.tolist(), table.labels.tolist(), extents.tolist(), areas)
    usable = [
        _Object(
            *(accepted[number], image_ids[image], label, tuple(extent), area),
            outline=partial(_mask, table, row, sizes[image]),
        )
        for row, (number, image, label, extent, area) in enumerate(zip(*columns, strict=True))
    ]
    return usable, problems


def _mask(table: ObjectTable, row: int, image_hw: tuple[int, int]) -> RunLengths:
    return from_outline(table.segmentation(row, image_hw), image_hw)


def _measure(
    table: ObjectTable, sizes: list[tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (M, 4) xyxy extents and the (M,) areas of outlines."""
    extents, areas = np.zeros((len(table), 4)), np.zeros(len(table))
    drawn = np.flatnonzero(table.polygons.lengths)
    starts, firsts = table.points.starts[:-1] // 2, table.polygons.starts[:-1][drawn]
    if len(drawn):
        points = table.points.values.reshape(-1, 2)
        ends = table.points.starts[1:] // 2 - 1
        following = np.arange(1, len(points) + 1)
        following[ends] = starts
        low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        crosses = points[:, 0] * points[following, 1] - points[:, 1] * points[following, 0]
        extents[drawn, :2] = np.minimum.reduceat(low, firsts)
        extents[drawn, 2:] = np.maximum.reduceat(high, firsts)
        areas[drawn] = np.add.reduceat(abs(np.add.reduceat(crosses, starts)) / 2, firsts)
    for row in np.flatnonzero(table.polygons.lengths == 0).tolist():
        image_hw = sizes[table.images[row]]
        (x, y, width, height), areas[row] = measure(_mask(table, row, image_hw))
        extents[row] = x, y, x + width, y + height
    return extents, areas


def _left_out(reason: str, entry: dict[str, object], images: Mapping[int, CheckedImage]) -> Problem:
    where, image_id = _number(entry), entry.get("image_id")
    if type(image_id) is int and image_id in images:
        where = f"{images[image_id].file_name}, {where}"
    return Problem(f"an annotation with {reason}", where, _MENDS.get(reason, _REDRAW))


def _number(entry: dict[str, object]) -> str:
    return f"annotation {entry.get('id')!r:.40}"


def _seen(found: _Object, images: Mapping[int, CheckedImage], categories: Categories) -> str:
    """Say which annotation of which image this is, and what is seen where."""
    place = f"{categories.names[found.label]} at {found.extent[0]:.0f}, {found.extent[1]:.0f}"
    return f"{images[found.image_id].file_name}, {_number(found.entry)} ({place})"


def _check_place(found: _Object, image_hw: tuple[int, int]) -> None:
    """Refuse what is outside the image, or has no area."""
    x1, y1, x2, y2 = found.extent
    if not _is_inside(found.extent, image_hw):
        if _is_inside((y1, x1, y2, x2), image_hw):
            raise Unusable("an outline with x and y swapped", "swap them")
        is_partly = x1 < image_hw[1] and y1 < image_hw[0] and x2 > 0 and y2 > 0
        part = "partly " if is_partly else ""
        raise Unusable(f"an outline {part}outside the image", "move it inside, or delete it")
    if found.area < _MIN_AREA:
        raise Unusable("an outline without area", _REDRAW)


def _is_inside(box: Box, image_hw: tuple[int, int]) -> bool:
    x1, y1, x2, y2 = box
    height, width = image_hw
    return min(x1, y1) >= -_TOLERANCE and x2 <= width + _TOLERANCE and y2 <= height + _TOLERANCE


def _check_bbox(bbox: object, extent: Box) -> None:
    """Refuse a box that does not fit its outline, and guess how it is meant."""
    if bbox is None:
        return
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        raise Unusable("a bbox that is not four numbers", "write x, y, width, height")
    x, y, w, h = bbox
    overlap = box_iou((x, y, x + w, y + h), extent)
    if overlap >= _FITS_WELL:
        return
    if box_iou((x, y, w, h), extent) >= _FITS_PERFECTLY:
        raise Unusable("a bbox given by two corners", "write x, y, width, height")
    if box_iou((x - w / 2, y - h / 2, x + w / 2, y + h / 2), extent) >= _FITS_PERFECTLY:
        raise Unusable("a bbox given by its centre", "write the top left corner and the size")
    if overlap < _FITS:
        raise Unusable("a bbox that does not fit its outline", "correct or delete the bbox")


def _duplicates(objects: Iterable[_Object]) -> Iterator[_Object]:
    """Find objects with an earlier one of the same class in the same place, crowds excepted."""
    groups: dict[tuple[int, int], list[_Object]] = defaultdict(list)
    for found in objects:
        if found.entry.get("iscrowd") not in (1, True):
            groups[found.image_id, found.label].append(found)
    for group in groups.values():
        masks = [cache(found.outline) for found in group]
        for _, later in object_twins([found.extent for found in group], masks):
            yield group[later]
