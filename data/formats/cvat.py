"""CVAT for images 1.1: one XML file for a set of images, whose masks are exact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray


class CvatMask(NamedTuple):
    """An object to write.

    Attributes:
        name: of its class.
        bitmap: (h, w) bool, at least one pixel.
        corner: x and y of the bitmap in the image.
    """

    name: str
    bitmap: NDArray[np.bool_]
    corner: tuple[int, int]


def cvat_image(
    number: int, name: str, image_hw: tuple[int, int], objects: Iterable[CvatMask]
) -> str:
    """Return the entry of one image.

    Args:
        number: of the image, from 0.
        name: file name of the image, as CVAT knows it.
        image_hw: height and width of the image.
        objects: its masks.
    """
    height, width = image_hw
    head = f'  <image id="{number}" name={_text(name)} width="{width}" height="{height}">\n'
    return head + "".join(map(_mask, objects)) + "  </image>\n"


def cvat_file(class_names: Iterable[str], images: Iterable[str]) -> Iterator[str]:
    """Yield the file in pieces, around the entries that `cvat_image` makes."""
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
    yield "  <meta><task><labels>\n"
    for name in class_names:
        yield f"    <label><name>{_text(name)[1:-1]}</name></label>\n"
    yield "  </labels></task></meta>\n"
    yield from images
    yield "</annotations>\n"


def _mask(found: CvatMask) -> str:
    rows, columns = found.bitmap.shape
    pixels = found.bitmap.reshape(-1)  # row by row, beginning with a run outside
    turns = np.flatnonzero(np.diff(pixels, prepend=False))
    runs = ", ".join(map(str, np.diff(turns, prepend=0, append=len(pixels))))
    x, y = found.corner
    return (
        f'    <mask label={_text(found.name)} source="auto" occluded="0" rle="{runs}" left="{x}" '
        f'top="{y}" width="{columns}" height="{rows}" z_order="0"></mask>\n'
    )


def _text(text: str) -> str:
    """Quote a text for XML, without the control characters that it cannot hold."""
    return quoteattr("".join(c for c in text if c.isprintable()))
