"""What the writers of all formats are given: objects as polygons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from data.annotations.polygons import Polygon, one_ring


class PolygonObject(NamedTuple):
    """An object to write.

    Attributes:
        name: of its class.
        label: the number of its class, from 0.
        polygons: its parts, in pixels.
        note: a remark for who corrects it, such as its score.
    """

    name: str
    label: int
    polygons: Sequence[Polygon]
    note: str = ""

    def rings(self) -> list[list[list[float]]]:
        """Return the x and y of the points of each part, holes joined to its outline."""
        return [one_ring([part]).tolist() for part in self.polygons]
