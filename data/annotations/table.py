"""All images and objects of a dataset in a few arrays, which processes can share as they are.

A forked worker shares the memory of its parent until one of them writes to it, and Python writes a
reference count wherever it looks at an object: a million small objects are soon copied into every
worker. Arrays are not, and they are sent to a spawned worker as plain bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.sample import Polygons, RunLengths

Ints = NDArray[np.int64]

_BLOCK = 2**14  # rows that are copied at once: their indices are larger than they are


@dataclass(frozen=True)
class Ragged:
    """N rows of different lengths, one behind the other.

    Attributes:
        values: (T,) of all rows.
        starts: (N + 1,) where each row begins, and T.
    """

    values: NDArray[Any]
    starts: Ints

    @classmethod
    def of_lengths(cls, values: NDArray[Any], lengths: NDArray[Any] | Sequence[int]) -> Ragged:
        """Cut values into rows of the given lengths, which add up to T."""
        return cls(values, starts_of(lengths))

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Ragged:
        """Keep texts as bytes."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        return cls.of_lengths(np.frombuffer(b"".join(encoded), np.uint8), list(map(len, encoded)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        """(N,) the lengths of the rows."""
        return np.diff(self.starts)

    def sums(self) -> Ints:
        """(N,) the sum of each row of whole numbers, or how many are true."""
        return np.diff(starts_of(self.values)[self.starts])

    def __getitem__(self, row: int) -> NDArray[Any]:
        row = range(len(self))[row]  # from the end, if negative
        return self.values[self.starts[row] : self.starts[row + 1]]

    def part(self, first: int, end: int) -> Ragged:
        """Return a view of some rows in sequence."""
        starts = self.starts[first : end + 1]
        return Ragged(self.values[starts[0] : starts[-1]], starts - starts[0])

    def text(self, row: int) -> str:
        """Return a row of bytes as the text that it was."""
        return self[row].tobytes().decode("utf-8", "surrogatepass")

    def take(self, rows: Ints) -> Ragged:
        """Copy some rows, in the given order."""
        starts = starts_of(self.lengths[rows])
        values = np.empty(starts[-1], self.values.dtype)
        for first in range(0, len(rows), _BLOCK):
            block = rows[first : first + _BLOCK]
            to = starts[first : first + len(block) + 1]
            shifts = np.repeat(self.starts[block] - to[:-1], np.diff(to))
            values[to[0] : to[-1]] = self.values[np.arange(to[0], to[-1]) + shifts]
        return Ragged(values, starts)


def starts_of(lengths: NDArray[Any] | Sequence[int]) -> Ints:
    """Return where N rows of these lengths begin and, in the end, where the last one ends."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


@dataclass(frozen=True)
class ImageTable:
    """N images.

    Attributes:
        ids: (N,) the dataset's own identifiers.
        sizes: (N, 2) height and width in pixels, as the image is read.
        annotated: (N, 2) the size that annotations refer to, of the same proportion.
        file_names: N texts, as they were found.
        paths: N texts, relative to the image folder.
    """

    ids: Ints
    sizes: Ints
    annotated: Ints
    file_names: Ragged
    paths: Ragged

    @classmethod
    def of(
        cls,
        ids: Iterable[int],
        sizes: Iterable[tuple[int, int]],
        annotated: Iterable[tuple[int, int]],
        file_names: Sequence[str],
        paths: Sequence[str],
    ) -> ImageTable:
        """Put images into a table; a size is height and width."""
        names = Ragged.of_texts(file_names)
        return cls(
            ids=np.array(list(ids), np.int64),
            sizes=np.array(list(sizes), np.int64).reshape(-1, 2),
            annotated=np.array(list(annotated), np.int64).reshape(-1, 2),
            file_names=names,
            paths=names if file_names == paths else Ragged.of_texts(paths),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Ints) -> ImageTable:
        """Copy some images, in the given order."""
        names = self.file_names.take(rows)
        paths = names if self.paths is self.file_names else self.paths.take(rows)
        return ImageTable(self.ids[rows], self.sizes[rows], self.annotated[rows], names, paths)


@dataclass(frozen=True)
class ObjectTable:
    """M objects, each with polygons, or run lengths, or neither where it has a box alone.

    Numbers are kept in float64: in float32, a coordinate such as 9.7 moves, and where it is rounded
    to a pixel (of a fifth, as COCO does) it may then fall to the other side.

    Attributes:
        images: (M,) rows of the images that they are in.
        labels: (M,) 0-based.
        is_crowd: (M,) bool.
        boxes: (M, 4) float64 x, y, width, height in pixels.
        areas: (M,) float64, in pixels.
        ids: (M,) the dataset's own numbers.
        polygons: for each object, the rows of its polygons in `points`.
        points: for each polygon, its float64 x, y, x, y, ... in pixels.
        run_lengths: for each object, COCO's compressed run lengths; empty if it has none.
    """

    images: Ints
    labels: Ints
    is_crowd: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    ids: Ints
    polygons: Ragged
    points: Ragged
    run_lengths: Ragged

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def has_box_only(self) -> NDArray[np.bool_]:
        """(M,) which objects have no outline."""
        has_none: NDArray[np.bool_] = self.polygons.lengths + self.run_lengths.lengths == 0
        return has_none

    def are_rectangles(self) -> NDArray[np.bool_]:
        """Tell which objects have one polygon of four corners, along the axes, (M,)."""
        result = np.zeros(len(self), np.bool_)
        rows = np.flatnonzero(self.polygons.lengths == 1)
        polygons = self.polygons.values[self.polygons.starts[rows]]
        four = np.isin(self.points.lengths[polygons], (8, 10))  # perhaps closed by the first point
        rows, starts = rows[four], self.points.starts[polygons[four]]
        corners = self.points.values[starts[:, None] + np.arange(8)].reshape(-1, 4, 2)
        low, high = corners.min(axis=1, keepdims=True), corners.max(axis=1, keepdims=True)
        result[rows] = ((corners == low) | (corners == high)).all(axis=(1, 2))
        return result

    def take(self, rows: Ints) -> ObjectTable:
        """Copy some objects, in the given order."""
        polygons = self.polygons.take(rows)
        return ObjectTable(
            images=self.images[rows],
            labels=self.labels[rows],
            is_crowd=self.is_crowd[rows],
            boxes=self.boxes[rows],
            areas=self.areas[rows],
            ids=self.ids[rows],
            polygons=replace(polygons, values=np.arange(len(polygons.values))),
            points=self.points.take(polygons.values),
            run_lengths=self.run_lengths.take(rows),
        )

    def segmentation(self, row: int, image_hw: tuple[int, int]) -> Polygons | RunLengths:
        """Return the outline of one object in an image of this height and width, [] for none."""
        polygons: Polygons = [self.points[polygon].tolist() for polygon in self.polygons[row]]
        if polygons or not (counts := self.run_lengths.text(row)):
            return polygons
        return {"size": list(image_hw), "counts": counts}
