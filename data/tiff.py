"""TIFF files of samples that Pillow does not know: 64-bit floats, colours of more than 16 bits."""

from __future__ import annotations

import io
import logging
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

_MARKS = (b"II*\0", b"MM\0*")
_WIDTH, _HEIGHT = 256, 257  # tags
_SUBFILE = 254  # the first one, where it is there; 1 of a smaller copy, as pyramids have them
_MOST_PAGES = 10_000  # that are counted
_FORMS = {  # of the marks: where the first page is, and how counts and places are written
    **{b"II*\0": (4, "<H", "<L"), b"MM\0*": (4, ">H", ">L")},
    **{b"II+\0": (8, "<Q", "<Q"), b"MM\0+": (8, ">Q", ">Q")},  # of more than 4 GiB
}
_logger = logging.getLogger(__name__)
_told: set[Path] = set()


def is_tiff(content: bytes) -> bool:
    """Tell by the first bytes of a file."""
    return content.startswith(_MARKS)


def warn_of_pages(file: BinaryIO, path: Path) -> BinaryIO:
    """Warn, once for each folder, of a TIFF of several pages; return the file, rewound."""
    if path.parent not in _told and (pages := _count_pages(file)) > 1:
        _told.add(path.parent)
        count = f"{pages} pages" if pages < _MOST_PAGES else f"{_MOST_PAGES} pages or more"
        _logger.warning("%s has %s: only the first is read, as of all in its folder", path, count)
    file.seek(0)
    return file


def tiff_hw(content: bytes) -> tuple[int, int]:
    """Read height and width of the first picture of a file.

    Raises:
        Exception: of whatever kind, if the file is broken.
    """
    tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
    stream = io.BytesIO(content)
    stream.seek(tags.next)
    tags.load(stream)
    return int(tags[_HEIGHT]), int(tags[_WIDTH])


def decode_tiff(content: bytes) -> NDArray[Any]:
    """Decode the first picture of a file, whose size was checked.

    Returns:
        (H, W) or (H, W, 3) RGB, in the type of the file.

    Raises:
        ValueError: OpenCV does not know it, either.
    """
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ValueError("a TIFF of samples that are not known")
    return values if values.ndim == 2 else values[..., 2::-1]


def _count_pages(file: BinaryIO) -> int:
    """Count the pages that are no smaller copies, without decoding; 0 for what is no TIFF."""
    start, count_form, place_form = _FORMS.get(file.read(4), (0, "", ""))
    pages: set[int] = set()
    copies = 0
    if start:
        is_big = start == 8
        order = count_form[0]
        with suppress(struct.error, OSError, OverflowError):  # it is cut short
            place = _number(file, start, place_form)
            while place and place not in pages and len(pages) < _MOST_PAGES:
                entries = _number(file, place, count_form)
                pages.add(place)
                first = place + struct.calcsize(count_form)
                if pages != {place} and _number(file, first, f"{order}H") == _SUBFILE:
                    copies += _number(file, first + (12 if is_big else 8), f"{order}L") & 1
                end = first + entries * (20 if is_big else 12)
                place = _number(file, end, place_form)
    return len(pages) - copies


def _number(file: BinaryIO, place: int, form: str) -> int:
    file.seek(place)
    return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])
