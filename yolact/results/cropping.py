"""Objects cut out of their image."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import Image
from layers.instances import Instances


def crops(objects: Instances, image: Image, margin: int = 0) -> list[Image]:
    """Return the content of each box: N views of the image, of at least one pixel.

    Args:
        objects: N objects.
        image: (H, W, 3) uint8 RGB.
        margin: pixels to add around the box, within the image.
    """
    found = []
    for x1, y1, x2, y2 in objects.boxes.tolist():
        rows = _pixels(y1 - margin, y2 + margin, image.shape[0])
        found.append(image[rows, _pixels(x1 - margin, x2 + margin, image.shape[1])])
    return found


def cutouts(objects: Instances, image: Image) -> list[NDArray[np.uint8]]:
    """Return each object alone: N images (h, w, 4) uint8 RGBA, transparent outside the mask.

    An object without mask pixels gives an empty array.

    Args:
        objects: N objects.
        image: (H, W, 3) uint8 RGB.
    """
    found = []
    for index in range(len(objects)):
        (x1, y1, x2, y2), inside = objects.crop(index)
        alpha = inside.cpu().numpy().astype(np.uint8) * 255
        whole = np.dstack((image[y1:y2, x1:x2], alpha))
        x, y, width, height = cv2.boundingRect(alpha) if alpha.size else (0, 0, 0, 0)
        found.append(whole[y : y + height, x : x + width])
    return found


def _pixels(start: float, end: float, size: int) -> slice:
    """Return the pixels of one axis that an interval touches, at least one of `size`."""
    first = min(max(math.floor(start), 0), size - 1)
    return slice(first, max(math.ceil(end), first + 1))
