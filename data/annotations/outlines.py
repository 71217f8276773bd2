"""Outlines in every form that tools write, and what follows from them: boxes, areas, sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from data.files import is_number
from data.images import MAX_PIXELS
from data.sample import RunLengths

from .run_lengths import check_counts, compress, decode, encode, measure
from .table import ImageTable, Ints, ObjectTable, Ragged

_FITS = 1.5  # pixels between the sides of a box and of its outline: rounding, corners of pixels
_LONGEST = 5e6  # pixels of an outline: drawing it takes half a gigabyte
_FITS_WELL = 0.95  # IoU of a box with that of its outline


def is_too_long(points: NDArray[np.float64], image_hw: Ints) -> bool:
    """Tell a line that goes to and fro more than any outline could, and would be costly to draw.

    Args:
        points: (P, 2) corners in pixels, closed by the first; P > 0.
        image_hw: (2,) height and width of the image.
    """
    steps = abs(points - np.roll(points, 1, axis=0)).max(axis=1)
    return bool(steps.sum() > longest_outlines(image_hw))


def longest_outlines(sizes: Ints) -> NDArray[np.float64]:
    """Return lengths in pixels that no outline reaches, be it ever so frayed.

    Args:
        sizes: (..., 2) heights and widths of the images.
    """
    lengths: NDArray[np.float64] = 4.0 * sizes.prod(axis=-1) + 100 * sizes.sum(axis=-1)
    return lengths.clip(max=_LONGEST)


def usual_form(segmentation: object) -> object:
    """Return polygons as lists in a list, and run lengths as an object, whatever they come in.

    Tools write one polygon without the list around it, points as pairs, numbers as texts, and run
    lengths in a list.
    """
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation
    first = segmentation[0]
    if isinstance(first, list) and len(first) > 2 and is_number(first[0]):
        return segmentation  # nearly always
    segmentation = [_as_numbers(part) for part in segmentation]
    first = segmentation[0]
    if isinstance(first, dict):
        return first if len(segmentation) == 1 else segmentation
    if is_number(first) or _is_point(first):
        segmentation = [segmentation]
    if any(isinstance(part, list) and part and _is_point(part[0]) for part in segmentation):
        return [_flat(part) for part in segmentation]
    return segmentation


def resized(
    outline: Mapping[str, object], size: tuple[int, int], to: tuple[int, int]
) -> RunLengths:
    """Scale run lengths.

    Args:
        outline: of unknown origin.
        size: height and width that they have.
        to: the same for the result.

    Raises:
        ValueError: they are not of this size, or no image is as large.
    """
    counts = outline.get("counts")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"run lengths of {size[0]} x {size[1]} pixels")
    if not isinstance(counts, str):
        mask = compress(counts, size)
    else:
        check_counts(counts, size[0] * size[1])
        mask = {"size": list(size), "counts": counts}
    way = cv2.INTER_AREA if to < size else cv2.INTER_LINEAR
    shares = cv2.resize(decode(mask, size) * np.uint8(255), to[::-1], interpolation=way)
    return encode(np.asarray(shares) > 127)


def scaled(objects: ObjectTable, images: ImageTable) -> ObjectTable:
    """Bring polygons, boxes and areas from the annotated size of each image to its own."""
    factors = (images.sizes / images.annotated)[objects.images]
    if (factors == 1).all():
        return objects
    height, width = factors.T
    of_points = np.repeat(
        np.repeat(factors, objects.polygons.lengths, axis=0), objects.points.lengths // 2, axis=0
    )
    points = objects.points.values.reshape(-1, 2) * of_points[:, ::-1]
    return replace(
        objects,
        boxes=objects.boxes * np.stack((width, height, width, height), axis=1),
        areas=objects.areas * height * width,
        points=Ragged(points.reshape(-1), objects.points.starts),
    )


def box_mismatches(objects: ObjectTable, rows: Ints, sizes: Ints) -> NDArray[np.bool_]:
    """Tell which objects have a box that is not that of their outline.

    Args:
        objects: M of them.
        rows: of those whose outline is sound.
        sizes: (M, 2) height and width of their images.

    Returns:
        (M,) bool; False for objects without a box, or without an outline.
    """
    extents = np.zeros((len(objects), 4))
    extents[rows] = extents_and_areas(objects.take(rows), sizes[rows])[0]
    edges = sizes[:, [1, 0, 1, 0]]
    boxes = objects.boxes.copy()
    is_flat = (boxes[:, 2:] <= 0).any(axis=1)
    boxes[:, 2:] += boxes[:, :2]
    boxes, extents = (np.clip(corners, 0, edges) for corners in (boxes, extents))
    low, high = np.maximum(boxes[:, :2], extents[:, :2]), np.minimum(boxes[:, 2:], extents[:, 2:])
    shared = (high - low).clip(0).prod(axis=1)
    both = sum((each[:, 2:] - each[:, :2]).clip(0).prod(axis=1) for each in (boxes, extents))
    is_near = (abs(boxes - extents) <= _FITS).all(axis=1)
    fits = ~is_flat & (is_near | (shared >= _FITS_WELL * (both - shared)))
    result = np.zeros(len(objects), np.bool_)
    result[rows] = ~fits[rows] & ~np.isnan(boxes[rows, 0])
    return result & ~objects.has_box_only


def extents_and_areas(
    objects: ObjectTable, sizes: Ints
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure outlines, of polygons without drawing them.

    Args:
        objects: M with sound outlines.
        sizes: (M, 2) height and width of their images.

    Returns:
        (M, 4) xyxy extents and (M,) areas, 0 where there is no outline.
    """
    extents, areas = np.zeros((len(objects), 4)), np.zeros(len(objects))
    drawn = np.flatnonzero(objects.polygons.lengths)
    starts, firsts = objects.points.starts[:-1] // 2, objects.polygons.starts[:-1][drawn]
    if len(drawn):
        points = objects.points.values.reshape(-1, 2)
        ends = objects.points.starts[1:] // 2 - 1
        following = np.arange(1, len(points) + 1)
        following[ends] = starts
        low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        crosses = points[:, 0] * points[following, 1] - points[:, 1] * points[following, 0]
        extents[drawn, :2] = np.minimum.reduceat(low, firsts)
        extents[drawn, 2:] = np.maximum.reduceat(high, firsts)
        areas[drawn] = np.add.reduceat(abs(np.add.reduceat(crosses, starts)) / 2, firsts)
    for row in np.flatnonzero(objects.run_lengths.lengths).tolist():
        image_hw = (int(sizes[row, 0]), int(sizes[row, 1]))
        counts = objects.run_lengths.text(row)
        (x, y, width, height), areas[row] = measure({"size": [*image_hw], "counts": counts})
        extents[row] = x, y, x + width, y + height
    return extents, areas


def _as_numbers(value: object, depth: int = 3) -> object:
    """Read numbers that are written as texts, as deep as there are points."""
    if isinstance(value, list) and depth:
        return [_as_numbers(part, depth - 1) for part in value]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _flat(part: object) -> object:
    """Join points to x, y, x, y, ...; what is none of them is left for others to refuse."""
    if isinstance(part, list) and all(map(_is_point, part)):
        return [value for point in part for value in point]
    return part
