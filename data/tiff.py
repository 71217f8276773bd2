"""TIFF files of samples that Pillow does not know: 64-bit floats, colours of more than 16 bits."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

_MARKS = (b"II*\0", b"MM\0*")
_WIDTH, _HEIGHT = 256, 257  # tags


def is_tiff(content: bytes) -> bool:
    """Tell by the first bytes of a file."""
    return content.startswith(_MARKS)


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
