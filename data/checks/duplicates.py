"""Objects that are annotated twice: outlines in the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from data.annotations.run_lengths import overlaps
from data.sample import RunLengths

Box = tuple[float, float, float, float]

_SAME_BOX, _SAME_MASK = 0.95, 0.9  # IoU from which two objects are one
_NEIGHBOURS = 50  # with which each object is compared: a bound for hostile files


def duplicate_pairs(
    boxes: Sequence[Box], outlines: Sequence[Callable[[], RunLengths | None]]
) -> Iterator[tuple[int, int]]:
    """Find objects of one image whose box and mask are those of an earlier one.

    Args:
        boxes: x1, y1, x2, y2 around the outline of each object.
        outlines: return the mask of each, asked for where boxes agree; None for a box alone.

    Yields:
        The earlier and the later object, each of these once.
    """
    order = sorted(range(len(boxes)), key=lambda number: (boxes[number], number))
    for place, number in enumerate(order):
        for other in order[max(0, place - _NEIGHBOURS) : place]:
            if box_iou(boxes[other], boxes[number]) >= _SAME_BOX and _same_masks(
                outlines[other](), outlines[number]()
            ):
                yield min(other, number), max(other, number)
                break


def box_iou(box: Box, other: Box) -> float:
    """Return the overlap of two x1, y1, x2, y2 boxes."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return width * height / (sum(areas) - width * height)


def _same_masks(one: RunLengths | None, other: RunLengths | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(overlaps([one], [other])[0, 0] >= _SAME_MASK)
