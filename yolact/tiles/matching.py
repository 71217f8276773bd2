"""Grouping of pieces from different views that belong to one object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.duplicates import DisjointSets
from layers.native import Window

from .pieces import Piece

Pixels = NDArray[np.bool_]

SAME = 0.5
"""Minimum overlap of pieces that are taken for one object."""


class Overlap(NamedTuple):
    """The overlap of two pieces in the part of the image that both views show.

    Attributes:
        first: index of a piece.
        second: index of another piece, of the same class and from another view.
        iou: intersection over union of their pixels in that part.
        shares: intersection over the pixels of the first piece there, and over those of the second.
    """

    first: int
    second: int
    iou: float
    shares: tuple[float, float]


def group_pieces(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Group the pieces of each object.

    Two pieces of one class are the same object if their masks agree, by intersection over union, in
    the part that both views show. A piece that no view shows whole may agree badly with the object
    that it belongs to, as detectors are unreliable on half an object: so it also joins the piece
    with the same or a higher score that contains most of it. A piece that a view shows whole is
    never absorbed by a larger one.
    """
    overlaps = list(_overlaps(pieces))
    groups = DisjointSets(len(pieces))
    for overlap in overlaps:
        if overlap.iou >= SAME:
            groups.union(overlap.first, overlap.second)
    for part, whole in _parts_of_others(pieces, overlaps, groups).items():
        groups.union(part, whole)
    return [[pieces[index] for index in group] for group in groups.members().values()]


def _parts_of_others(
    pieces: Sequence[Piece], overlaps: Sequence[Overlap], groups: DisjointSets
) -> dict[int, int]:
    """Map each group that is part of another group to that one, each named by its first piece."""
    members = groups.members()
    is_cut = {first: all(pieces[i].is_cut for i in group) for first, group in members.items()}
    score = {first: max(pieces[i].score for i in group) for first, group in members.items()}
    best: dict[int, tuple[float, int]] = {}
    for first, second, iou, shares in overlaps:
        one, other = groups.find(first), groups.find(second)
        for part, whole, share in ((one, other, shares[0]), (other, one, shares[1])):
            if part != whole and share >= SAME and is_cut[part] and score[part] <= score[whole]:
                best[part] = max(best.get(part, (0.0, whole)), (iou, whole))
    return {part: whole for part, (_, whole) in best.items()}


def _overlaps(pieces: Sequence[Piece]) -> Iterator[Overlap]:
    for first, second in _candidates(pieces):
        one, other = pieces[first], pieces[second]
        both = _common(one.view, other.view)
        windows = _common(one.window, both), _common(other.window, both)
        common = _common(*windows)
        if _is_empty(common):
            continue
        pixels = [p.pixels(window) for p, window in zip((one, other), windows, strict=True)]
        inside = [_part(of, at, common) for of, at in zip(pixels, windows, strict=True)]
        shared = int(np.count_nonzero(inside[0] & inside[1]))
        if shared:
            areas = [int(np.count_nonzero(each)) for each in pixels]
            iou = shared / (sum(areas) - shared)
            yield Overlap(first, second, iou, (shared / areas[0], shared / areas[1]))


def _candidates(pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """Yield pairs of one class from different views whose windows meet, from left to right."""
    windows = np.array([piece.window for piece in pieces], np.int64).reshape(-1, 4)
    labels = np.array([piece.label for piece in pieces], np.int64)
    views = np.array([piece.view for piece in pieces], np.int64).reshape(-1, 4)
    order = windows[:, 0].argsort(kind="stable")
    lefts = windows[order, 0]
    for place, first in enumerate(order.tolist()):
        _, top, right, bottom = windows[first]
        later = order[place + 1 : lefts.searchsorted(right)]  # those that begin before it ends
        meets = (windows[later, 1] < bottom) & (windows[later, 3] > top)
        meets &= (labels[later] == labels[first]) & (views[later] != views[first]).any(axis=1)
        yield from ((first, second) for second in later[meets].tolist())


def _common(window: Window, other: Window) -> Window:
    """Return the intersection of two windows; an empty one if they do not overlap."""
    x1, y1 = max(window[0], other[0]), max(window[1], other[1])
    return x1, y1, max(min(window[2], other[2]), x1), max(min(window[3], other[3]), y1)


def _is_empty(window: Window) -> bool:
    return window[0] == window[2] or window[1] == window[3]


def _part(pixels: Pixels, at: Window, window: Window) -> Pixels:
    x1, y1, x2, y2 = window
    return pixels[y1 - at[1] : y2 - at[1], x1 - at[0] : x2 - at[0]]
