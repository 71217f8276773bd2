"""Numbered images as a video."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from data.files import IMAGE_SUFFIXES, NUMBER, natural_key
from data.images import Image, read_image

from .source import VideoSource

logger = logging.getLogger(__name__)


class ImageSequence(VideoSource):
    """The images of a folder, or those named as in `frames/%06d.png`, by their numbers.

    Args:
        name: folder or pattern.

    Raises:
        ValueError: there is no image, or none can be read.
    """

    def __init__(self, name: str):
        self._files = iter(files := _listed(Path(name).expanduser()))
        self._number = -1
        if not files:
            raise ValueError(f"no images: {name}")
        self.name = name
        self._first = next(self._readable(), None)
        if self._first is None:
            raise ValueError(f"no image of {name} can be read, as {files[0]}")
        height, width = self._first.shape[:2]
        super().__init__(name, 0, (height, width))

    def __iter__(self) -> Iterator[Image]:
        """Yield the remaining images; then tell how many were broken."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        for image in self._readable():
            self.seconds = self._number / self.fps
            yield image
        if self.broken_frames:
            self.damage = f"{self.broken_frames} broken images were left out"
            logger.warning("%s: %s", self.name, self.damage)

    def close(self) -> None:
        """End the iteration."""
        self._files = iter(())

    def _readable(self) -> Iterator[Image]:
        for file in self._files:
            self._number += 1
            try:
                yield read_image(file)
            except (OSError, ValueError):
                self.broken_frames += 1


def _listed(path: Path) -> list[Path]:
    """List the images of a folder, or those of a pattern, in the order of their numbers."""
    is_folder = path.is_dir()
    folder = path if is_folder else path.parent
    files = sorted(folder.iterdir(), key=lambda f: natural_key(f.name)) if folder.is_dir() else []
    images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    if is_folder:
        return images
    before, digits, after = NUMBER.split(path.name, maxsplit=1)
    width = f"{{{digits},}}" if digits else "+"
    name = re.compile(rf"{re.escape(before)}\d{width}{re.escape(after)}")
    return [file for file in images if name.fullmatch(file.name)]
