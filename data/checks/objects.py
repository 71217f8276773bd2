"""Problems of the annotations of a COCO-style dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple, cast

import numpy as np

from data.annotations.entries import Key, id_key
from data.annotations.images import Images
from data.annotations.outlines import extents_and_areas
from data.annotations.reader import IMAGE_LEFT_OUT, ObjectReader, is_no_outline
from data.annotations.run_lengths import from_outline
from data.annotations.table import ObjectTable
from data.classes import Categories
from data.files import is_number
from data.problems import Problem, Unusable
from data.sample import RunLengths

from .duplicates import Box, box_iou, duplicate_pairs

_FITS, _FITS_WELL, _FITS_PERFECTLY = 0.5, 0.8, 0.9  # IoU of a bbox with its outline
TOLERANCE = 1.5
"""Pixels that an outline may lie outside: rounding, and corners of pixels."""

MIN_AREA = 0.5
"""Pixels; what covers less is no object."""

_USED = "the outline is used instead"
_REDRAW = "draw it again, or delete it"
_MENDS = {
    "unknown image_id": "give the id of a good image in 'images', or delete it",
    "unknown category_id": "give the id of a class in 'categories', or delete it",
    "neither an outline nor a box": "draw its outline: masks are learned from it",
}


class _Object(NamedTuple):
    """A usable annotation.

    Attributes:
        entry: as it was found.
        image: row of the image that it is in.
        label: of its class.
        extent: x1, y1, x2, y2 around its outline.
        area: of its polygons, or of its run lengths.
        outline: returns its mask, None for a box alone.
    """

    entry: dict[str, object]
    image: int
    label: int
    extent: Box
    area: float
    outline: Callable[[], RunLengths | None]


def check_objects(
    entries: list[object], images: Images, categories: Categories, label_of: Mapping[Key, int]
) -> list[Problem]:
    """Look for annotations that training would leave out, and for those that teach it wrong.

    Args:
        entries: `annotations` of a COCO file, whatever they are.
        images: of the dataset.
        categories: the classes.
        label_of: the label of each category id.

    Returns:
        At most one problem for each annotation, and one for each duplicate.
    """
    usable, problems = _read(entries, images, label_of)
    sizes, annotated = images.table.sizes.tolist(), images.table.annotated.tolist()
    for found in usable:
        try:
            _check_place(found, sizes[found.image])
            _check_bbox(found.entry.get("bbox"), _scaled(found, sizes, annotated))
        except Unusable as error:
            problems.append(Problem(error.what, _seen(found, images, categories), error.mend))
    for duplicate in _duplicates(usable):
        where = _seen(duplicate, images, categories)
        problems.append(Problem("an object that is annotated twice", where, "delete one"))
    return problems


def _read(
    entries: list[object], images: Images, label_of: Mapping[Key, int]
) -> tuple[list[_Object], list[Problem]]:
    """Sort out what training would leave out, by its own rules."""
    reader = ObjectReader(images, label_of, boxes_as_given=True)
    reader.read(_readable(number, entry) for number, entry in enumerate(entries, start=1))
    table = reader.table()
    reader.lost.pop(IMAGE_LEFT_OUT, None)
    lost = sorted((number, reason) for reason, which in reader.lost.items() for number in which)
    problems = [_left_out(reason, number, entries[number], images) for number, reason in lost]
    own = [cast("dict[str, object]", entries[number - 1]) for number in table.ids]
    extents, areas = extents_and_areas(table, images.table.sizes[table.images])
    for row in np.flatnonzero(table.has_box_only).tolist():
        image = table.images[row]
        factors = (images.table.sizes[image] / images.table.annotated[image])[[1, 0, 1, 0]]
        x, y, width, height = np.array(own[row]["bbox"], np.float64) * factors
        extents[row], areas[row] = (x, y, x + width, y + height), width * height
    columns = (own, table.images.tolist(), table.labels.tolist(), extents.tolist(), areas)
    sizes = images.table.sizes.tolist()
    usable = [
        _Object(
            *(entry, image, label, tuple(extent), area),
            outline=partial(_mask, table, row, tuple(sizes[image])),
        )
        for row, (entry, image, label, extent, area) in enumerate(zip(*columns, strict=True))
    ]
    return usable, problems


def _mask(table: ObjectTable, row: int, image_hw: tuple[int, int]) -> RunLengths | None:
    if table.has_box_only[row]:
        return None
    return from_outline(table.segmentation(row, image_hw), image_hw)


def _readable(number: int, entry: object) -> object:
    """Return an annotation to read; its box, if it has an outline, is compared with that later."""
    if not isinstance(entry, dict):
        return entry
    placeholder = {} if is_no_outline(entry.get("segmentation")) else {"bbox": [0, 0, 1, 1]}
    return entry | {"id": number, "area": 1} | placeholder


def _left_out(reason: str, number: int, entry: object, images: Images) -> Problem:
    if not isinstance(entry, dict):
        return Problem("an annotation that is no object", f"number {number + 1}", _REDRAW)
    where, key = _number(entry), id_key(entry.get("image_id"))
    if key is not None and key in images.row_of:
        where = f"{images.table.file_names.text(images.row_of[key])}, {where}"
    return Problem(f"an annotation with {reason}", where, _MENDS.get(reason, _REDRAW))


def _number(entry: dict[str, object]) -> str:
    return f"annotation {entry.get('id')!r:.40}"


def _seen(found: _Object, images: Images, categories: Categories) -> str:
    """Say which annotation of which image this is, and what is seen where."""
    place = f"{categories.names[found.label]} at {found.extent[0]:.0f}, {found.extent[1]:.0f}"
    return f"{images.table.file_names.text(found.image)}, {_number(found.entry)} ({place})"


def _scaled(found: _Object, sizes: list[list[int]], annotated: list[list[int]]) -> Box:
    """Return the extent of an object in the size that the annotations refer to."""
    (height, width), (own_height, own_width) = annotated[found.image], sizes[found.image]
    x, y = width / own_width, height / own_height
    x1, y1, x2, y2 = found.extent
    return x1 * x, y1 * y, x2 * x, y2 * y


def _check_place(found: _Object, image_hw: Sequence[int]) -> None:
    """Refuse what is outside the image, or has no area."""
    x1, y1, x2, y2 = found.extent
    if not _is_inside(found.extent, image_hw):
        width, height = min(x2, image_hw[1]) - max(x1, 0), min(y2, image_hw[0]) - max(y1, 0)
        is_mostly_out = max(width, 0) * max(height, 0) < (x2 - x1) * (y2 - y1) / 2
        if is_mostly_out and _is_inside((y1, x1, y2, x2), image_hw):
            raise Unusable("an outline with x and y swapped", "swap them")
        is_partly = x1 < image_hw[1] and y1 < image_hw[0] and x2 > 0 and y2 > 0
        part = "partly " if is_partly else ""
        raise Unusable(f"an outline {part}outside the image", "move it inside, or delete it")
    if found.area < MIN_AREA:
        raise Unusable("an outline without area", _REDRAW)


def _is_inside(box: Box, image_hw: Sequence[int]) -> bool:
    x1, y1, x2, y2 = box
    height, width = image_hw
    return min(x1, y1) >= -TOLERANCE and x2 <= width + TOLERANCE and y2 <= height + TOLERANCE


def _check_bbox(bbox: object, extent: Box) -> None:
    """Refuse a box that does not fit its outline, and guess how it is meant."""
    if bbox is None:
        return
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        raise Unusable("a bbox that is not four numbers", f"{_USED}: write x, y, width, height")
    x, y, w, h = bbox
    overlap = box_iou((x, y, x + w, y + h), extent)
    if overlap >= _FITS_WELL:
        return
    if box_iou((x, y, w, h), extent) >= _FITS_PERFECTLY:
        raise Unusable("a bbox given by two corners", f"{_USED}: write x, y, width, height")
    if box_iou((x - w / 2, y - h / 2, x + w / 2, y + h / 2), extent) >= _FITS_PERFECTLY:
        raise Unusable("a bbox given by its centre", f"{_USED}: write corner and size")
    if overlap < _FITS:
        raise Unusable(
            "a bbox that does not fit its outline", f"{_USED}: correct or delete the bbox"
        )


def _duplicates(objects: Iterable[_Object]) -> Iterator[_Object]:
    """Find objects with an earlier one of the same class in the same place, crowds excepted."""
    groups: dict[tuple[int, int], list[_Object]] = defaultdict(list)
    for found in objects:
        if found.entry.get("iscrowd") not in (1, True):
            groups[found.image, found.label].append(found)
    for group in groups.values():
        masks = [cache(found.outline) for found in group]
        for _, later in duplicate_pairs([found.extent for found in group], masks):
            yield group[later]
