"""The images of a report: small to choose from, large to look at."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np

from data.images import Image
from data.sample import Dataset
from yolact.drawing.side_by_side import jpeg_of

logger = logging.getLogger(__name__)

SIZES = {"small": (320, 75), "large": (1024, 85)}
"""Folder -> longer side in pixels, and quality of the JPEG."""


class PictureWriter:
    """Writes images of a dataset into a folder of each size, in place of earlier ones.

    Args:
        folder: where the folders are made.
        dataset: the images.
    """

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self._folder, self._dataset = folder, dataset
        self._index_of = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
        for size in SIZES:
            (folder / size).mkdir(parents=True, exist_ok=True)
            for earlier in (folder / size).glob("[0-9]*.jpg"):
                earlier.unlink()

    def write(self, image_id: int, name: str) -> bool:
        """Write one image in all sizes; return False, and say so, where it cannot be read."""
        try:
            image = self._dataset.sample(self._index_of[image_id]).image
        except (OSError, ValueError) as error:
            logger.warning("not shown: %s", error)
            return False
        for size, (side, quality) in SIZES.items():
            (self._folder / size / name).write_bytes(jpeg_of(shrink(image, side), quality))
        return True


def shrink(image: Image, side: int) -> Image:
    """Scale an image so that its longer side is as asked for, unless it is shorter anyway."""
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
