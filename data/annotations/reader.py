"""Annotations of a COCO file, checked and put into a table.

There are nearly a million in COCO: each is looked at once, and what can wait is done in bulk.
"""

from __future__ import annotations

import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from data.files import is_positive

from .entries import MAX_ID, Key, id_key
from .images import Images, are_alike
from .outlines import box_mismatches, is_too_long, longest_outlines, resized, scaled, usual_form
from .run_lengths import compress, cover_exactly, from_outline, measure
from .table import Ints, ObjectTable, Ragged

_logger = logging.getLogger(__name__)

_FAR = 1e9  # pixels; no image is as large
MAX_REACH = 10
"""Image sides that an outline may reach: farther ones are mistakes, and costly to draw."""

IMAGE_LEFT_OUT = "an image that is left out"
"""The reason to leave out objects about which there is nothing more to say."""

_MISSING = float("nan")
_WRONG_SIZE = "run lengths without size, or of another size"
_WRONG_COUNTS = "run lengths without counts, or of the wrong sum"


class ObjectReader:
    """Reads annotations into growing columns, and makes the table when all are read.

    Args:
        images: of the dataset.
        label_of: the label of each category id in use.
        boxes_as_given: leave boxes as they are, even if they contradict their outlines.
        other_names: the names of classes that are known but not in use, by category id.

    Attributes:
        lost: which annotations could not be used, from 0, for each reason.
        others: how many of these are of each class that is not in use.
        box_mismatches: how many had a box that is not that of their outline, which is used instead.
    """

    def __init__(
        self,
        images: Images,
        label_of: Mapping[Key, int],
        boxes_as_given: bool = False,
        other_names: Mapping[Key, str] | None = None,
    ) -> None:
        self.lost: defaultdict[str, array[int]] = defaultdict(partial(array, "q"))
        self.others: Counter[str] = Counter()
        self._other_names = other_names or {}
        self.box_mismatches = 0
        self._images = images.table
        self._row_of, self._lost = images.row_of, images.left_out
        self._label_of = label_of
        self._boxes_as_given = boxes_as_given
        self._sizes = images.table.sizes.tolist()
        self._numbers = array("q")
        self._rows, self._labels, self._ids = array("q"), array("q"), array("q")
        self._is_crowd, self._boxes, self._areas = array("b"), array("d"), array("d")
        self._polygons, self._lengths, self._points = array("q"), array("q"), array("d")
        self._counts, self._texts = array("q"), bytearray()

    def read(self, entries: Iterable[object]) -> None:
        """Check all annotations and keep those that look usable; of these nothing else is kept."""
        for number, reason in enumerate(map(self._add, entries)):
            (self.lost[reason] if reason else self._numbers).append(number)

    def table(self) -> ObjectTable:
        """Return the usable objects in the order of the images, and note the others."""
        objects = scaled(self._columns(), self._images)
        sizes = self._images.sizes[objects.images]
        is_far, is_long = _are_far_and_long(objects, sizes)
        is_costly = is_far | is_long
        is_outlined = (_are_outlined(objects, sizes) | objects.has_box_only) & ~is_costly
        if not self._boxes_as_given:
            objects = self._without_wrong_boxes(objects, np.flatnonzero(is_outlined), sizes)
        boxes, areas = _measured(objects, np.flatnonzero(is_outlined), sizes)
        boxes = _clipped(boxes, sizes)
        is_empty = (boxes[:, 2:] <= 0).any(axis=1)
        for reason, is_lost in (
            (_WRONG_COUNTS, ~is_outlined & ~is_costly),
            ("outline far outside the image", is_far),
            ("outline far too long", is_long),
            ("an empty box", is_outlined & is_empty),
        ):
            self.lost[reason].extend(np.asarray(self._numbers)[is_lost].tolist())
        rows = np.flatnonzero(is_outlined & ~is_empty)
        in_order = rows[np.argsort(objects.images[rows], kind="stable")]
        return replace(objects, boxes=boxes, areas=areas).take(in_order)

    def _without_wrong_boxes(self, objects: ObjectTable, rows: Ints, sizes: Ints) -> ObjectTable:
        is_wrong = box_mismatches(objects, rows, sizes)
        self.box_mismatches = int(is_wrong.sum())
        boxes = np.where(is_wrong[:, None], _MISSING, objects.boxes)
        return replace(objects, boxes=boxes, areas=np.where(is_wrong, _MISSING, objects.areas))

    def _add(self, entry: object) -> str:
        """Append an annotation, or return the reason to leave it out."""
        if not isinstance(entry, dict):
            return "not an object"
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if type(image_id) is not int or type(category_id) is not int:
            image_id, category_id = id_key(image_id), id_key(category_id)
        if image_id is None or image_id not in self._row_of:
            return IMAGE_LEFT_OUT if image_id in self._lost else "unknown image_id"
        if category_id is None or category_id not in self._label_of:
            if category_id is None or category_id not in self._other_names:
                return "unknown category_id"
            self.others[self._other_names[category_id]] += 1
            return "a class that the model does not know"
        row = self._row_of[image_id]
        outline, box = entry.get("segmentation"), entry.get("bbox")
        if is_no_outline(outline) and _are_numbers(box, 4):
            self._polygons.append(0)
            self._counts.append(0)
        elif reason := self._add_outline(outline, self._sizes[row]):
            return reason
        self._rows.append(row)
        self._labels.append(self._label_of[category_id])
        number, area = id_key(entry.get("id")), [entry.get("area")]
        self._ids.append(number if is_positive(number) and number <= MAX_ID else 0)
        self._is_crowd.append(entry.get("iscrowd") in (1, True, "1"))
        self._boxes.fromlist(box if _are_numbers(box, 4) else [_MISSING] * 4)
        # Some tools write 0 for an area that they do not know.
        self._areas.append(area[0] if _are_numbers(area, 1) and area[0] > 0 else _MISSING)
        return ""

    def _add_outline(self, outline: object, size: list[int]) -> str:
        if is_no_outline(outline):
            return "neither an outline nor a box"
        outline = usual_form(outline)
        if isinstance(outline, dict):
            return self._add_run_lengths(outline, (size[0], size[1]))
        if not isinstance(outline, list):
            return "no polygon of three points"
        before = len(self._lengths)
        for part in outline:
            if isinstance(part, list) and len(part) % 2 == 0 and _are_numbers(part, len(part), 6):
                self._points.fromlist(part)
                self._lengths.append(len(part))
        if len(self._lengths) == before:
            return "no polygon of three points"
        self._polygons.append(len(self._lengths) - before)
        self._counts.append(0)
        return ""

    def _add_run_lengths(self, outline: dict[str, object], image_hw: tuple[int, int]) -> str:
        """Append run lengths; those that are compressed already are checked later."""
        counts = outline.get("counts")
        size = outline.get("size")
        if not isinstance(size, list) or len(size) != 2 or not all(map(is_positive, size)):
            return _WRONG_SIZE
        own_hw = size[0], size[1]
        try:
            if own_hw != image_hw:
                if not are_alike(own_hw, image_hw):
                    return _WRONG_SIZE
                text = resized(outline, own_hw, image_hw)["counts"].encode("ascii")
            elif isinstance(counts, str):
                text = counts.encode("utf-8", "surrogatepass")
            else:
                text = compress(counts, image_hw)["counts"].encode("ascii")
        except ValueError:
            return _WRONG_COUNTS
        self._polygons.append(0)
        self._counts.append(len(text))
        self._texts += text
        return ""

    def _columns(self) -> ObjectTable:
        return ObjectTable(
            images=np.asarray(self._rows),
            labels=np.asarray(self._labels),
            is_crowd=np.asarray(self._is_crowd, np.bool_),
            boxes=np.asarray(self._boxes).reshape(-1, 4),
            areas=np.asarray(self._areas),
            ids=np.asarray(self._ids),
            polygons=Ragged.of_lengths(np.arange(len(self._lengths)), self._polygons),
            points=Ragged.of_lengths(np.asarray(self._points), self._lengths),
            run_lengths=Ragged.of_lengths(np.asarray(self._texts), self._counts),
        )


def is_no_outline(segmentation: object) -> bool:
    """Tell what tools write for an object that has a box alone, such as nothing, [] or [[]]."""
    if isinstance(segmentation, dict):
        return segmentation == {} or segmentation.get("counts") in ("", [])
    if isinstance(segmentation, list):
        return all(part == [] for part in segmentation)
    return not segmentation


def numbered(objects: ObjectTable) -> ObjectTable:
    """Give objects new ids if theirs are missing, repeated, or 0, which COCOeval ignores."""
    if (np.diff(np.sort(objects.ids), prepend=0) > 0).all():
        return objects
    _logger.warning("annotation ids are missing, repeated or 0: numbered anew")
    return replace(objects, ids=np.arange(1, len(objects) + 1))


def _are_numbers(values: object, count: int, at_least: int = 0) -> TypeGuard[list[float]]:
    """Tell whether this is a list of numbers that can be coordinates, so not of NaN."""
    if not isinstance(values, list) or not len(values) == count >= at_least:
        return False
    types = set(map(type, values))
    if types == {float} and sum(map(abs, values)) < _FAR:
        return True  # twice as fast as to look at each
    return types <= {int, float} and all(abs(value) < _FAR for value in values)


def _are_outlined(objects: ObjectTable, sizes: Ints) -> NDArray[np.bool_]:
    """Tell which objects have polygons, or run lengths of the size of their image."""
    result = objects.polygons.lengths > 0
    rows = np.flatnonzero(~result)
    result[rows] = cover_exactly(objects.run_lengths.take(rows), sizes[rows].prod(axis=1))
    return result


def _are_far_and_long(
    objects: ObjectTable, sizes: Ints
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which objects have points so far off, and so long a line, that drawing them is costly.

    Returns:
        (M,) bool each; what is far is not looked at for its length.
    """
    is_far, is_long = np.zeros((2, len(objects)), np.bool_)
    if not len(objects.points):
        return is_far, is_long
    reach = np.maximum.reduceat(np.abs(objects.points.values), objects.points.starts[:-1])
    owner = np.repeat(np.arange(len(objects)), objects.polygons.lengths)
    is_far[owner[reach > MAX_REACH * sizes[owner].max(axis=1)]] = True
    # No step is longer than twice the reach, so nearly no polygon has to be looked at.
    may_be = objects.points.lengths * reach > longest_outlines(sizes[owner])
    for polygon in np.flatnonzero(may_be & ~is_far[owner]).tolist():
        points = objects.points[polygon].reshape(-1, 2)
        is_long[owner[polygon]] |= is_too_long(points, sizes[owner[polygon]])
    return is_far, is_long


def _measured(
    objects: ObjectTable, rows: Ints, sizes: Ints
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return boxes and areas; in these rows, those that are missing are measured."""
    boxes, areas = objects.boxes.copy(), objects.areas.copy()
    no_box, no_area = np.isnan(boxes[:, 0]), np.isnan(areas)
    for row in rows[(no_box | no_area)[rows]].tolist():
        image_hw = (int(sizes[row, 0]), int(sizes[row, 1]))
        if objects.has_box_only[row]:
            areas[row] = boxes[row, 2:].prod()
            continue
        box, area = measure(from_outline(objects.segmentation(row, image_hw), image_hw))
        if no_box[row]:
            boxes[row] = box
        if no_area[row]:
            areas[row] = area
    return boxes, areas


def _clipped(boxes: NDArray[np.float64], sizes: Ints) -> NDArray[np.float64]:
    """Cut x, y, width, height boxes at the edge of the image; inside, they stay as they are."""
    starts, ends, edges = boxes[:, :2], boxes[:, :2] + boxes[:, 2:], sizes[:, ::-1]
    fits: NDArray[np.bool_] = (starts >= 0) & (ends <= edges)
    starts = starts.clip(min=0)
    cut = np.concatenate((starts, np.minimum(ends, edges) - starts), axis=1)
    return np.where(fits.all(axis=1, keepdims=True), boxes, cut)
