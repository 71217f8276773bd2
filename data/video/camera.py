"""Cameras, by OpenCV."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from data.images import Image, as_uint8

from .source import VideoSource

_SILENT = 0  # OpenCV's LOG_LEVEL_SILENT
# Failures to read in a row after which a camera counts as unplugged.
_MAX_FAILURES = 10


class CameraSource(VideoSource):
    """A camera of this machine, by its number.

    Raises:
        ValueError: there is no such camera.
    """

    def __init__(self, index: int, name: str):
        with quiet_opencv():
            self._capture = cv2.VideoCapture(index)
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            frames = (self._read() for _ in range(_MAX_FAILURES))
            self._first = next((f for f in frames if f is not None), None)
        if self._first is None:
            self.close()
            raise ValueError(f"no camera {name}; {_others(index)}")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        height, width = self._first.shape[:2]
        super().__init__(name, fps, (height, width), is_live=True)
        self._start = time.perf_counter()

    def __iter__(self) -> Iterator[Image]:
        """Yield the remaining frames.

        Raises:
            OSError: the camera gives no frames any more.
        """
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        failures = 0
        while failures < _MAX_FAILURES:
            frame = self._read()
            if frame is not None:
                self.seconds = time.perf_counter() - self._start
                self.broken_frames, failures = self.broken_frames + failures, 0
                yield frame
            elif self._capture.isOpened():
                failures += 1
            else:
                return
        raise OSError(f"camera {self.name} gives no frames any more; is it unplugged?")

    def close(self) -> None:
        """Release the camera; the iteration ends."""
        self._capture.release()

    def _read(self) -> Image | None:
        ok, bgr = self._capture.read()
        if not ok or bgr is None:
            return None
        return as_uint8(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's messages on standard error; the callers raise instead."""
    log = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 keeps these two in cv2 itself
    level = log.getLogLevel()
    log.setLogLevel(_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _others(index: int) -> str:
    found = [other for other in _camera_indices() if other != index]
    if found:
        return f"try {', '.join(map(str, found))}"
    if sys.platform == "linux":
        return "no camera was found: try a file"
    return "is it plugged in, and may this program use cameras (macOS: Privacy)? then try again"


def _camera_indices() -> list[int]:
    """List Linux's video devices; elsewhere none, as asking would switch the cameras on."""
    return [index for index in range(16) if Path(f"/dev/video{index}").exists()]
