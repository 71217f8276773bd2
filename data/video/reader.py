"""Frames from files, cameras and streams, by OpenCV."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import cv2

from data.files import is_url
from data.images import Image, as_uint8

_DEFAULT_FPS = 30.0
# Failures to decode in a row after which a source counts as ended.
_MAX_FAILURES = 10
_MAX_FAILURES_IN_FILE = 1000
_SILENT = 0  # OpenCV's LOG_LEVEL_SILENT
_TEXT_CODEC = "ansi"  # libav decodes any text file as ANSI art


class VideoSource(AbstractContextManager["VideoSource"]):
    """An opened video whose frames can be iterated once, as (H, W, 3) uint8 RGB.

    Attributes:
        name: source as the user gave it, for messages.
        fps: frames per second; 30 where a camera or container does not know.
        image_hw: height and width of the frames in pixels, after rotation.
        frame_count: number of frames that the container claims; None for cameras and live streams.
        is_live: frames are lost unless they are read in time.
        broken_frames: frames skipped so far because they could not be decoded.
        seconds: time stamp of the latest frame, from the video's beginning; broken frames before
            it, and a variable frame rate, are accounted for.
        path: the file; None for cameras and network streams.
    """

    def __init__(
        self,
        name: str,
        capture: cv2.VideoCapture,
        first: Image,
        *,
        is_live: bool,
        path: Path | None = None,
    ):
        self.name = name
        self.fps = plausible_fps(capture.get(cv2.CAP_PROP_FPS))
        self.image_hw: tuple[int, int] = (first.shape[0], first.shape[1])
        self.frame_count = None if is_live else _frame_count(capture)
        self.is_live = is_live
        self.broken_frames = 0
        self.path = path
        self._capture = capture
        self._first: Image | None = first
        self._start = time.perf_counter()
        self.seconds = 0.0
        self.seconds = self._time_stamp(0.0)

    def __iter__(self) -> Iterator[Image]:
        """Yield the remaining frames; broken ones are skipped."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        delivered, failures = 1, 0
        while True:
            frame = _read(self._capture)
            if frame is not None:
                # Failures count as broken frames only when the video goes on after them.
                self.seconds = self._time_stamp(self.seconds + (1 + failures) / self.fps)
                self.broken_frames, failures = self.broken_frames + failures, 0
                delivered += 1
                yield frame
            elif failures >= self._allowed_failures(delivered):
                return
            else:
                failures += 1

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file or camera; the iteration ends."""
        self._capture.release()

    def _time_stamp(self, expected: float) -> float:
        """Return the time of the frame just read; `expected` where the file's is impossible."""
        if self.is_live:
            return time.perf_counter() - self._start
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        length = (self.frame_count or 0) / self.fps
        return stamp if self.seconds < stamp < length + 1 else expected

    def _allowed_failures(self, delivered: int) -> int:
        """Return the failures to allow in a row; in a file at most the frames it has left."""
        if not self._capture.isOpened():
            return 0
        if self.frame_count is None:
            return _MAX_FAILURES
        left = self.frame_count - delivered - self.broken_frames
        return min(max(left, 0), _MAX_FAILURES_IN_FILE)


def open_video(source: str | int) -> VideoSource:
    """Open a video file, a camera, or a network stream, and read its first frame.

    Args:
        source: path, camera index (int or digits), or address (`rtsp://`, `http://`).

    Raises:
        ValueError: there is no such source, or no frame comes out of it.
    """
    text = str(source)
    is_camera, is_stream = text.isdecimal(), is_url(text)
    path = Path(text).expanduser()
    if not is_camera and not is_stream and not path.is_file():
        raise ValueError(f"no such video file: {text}")
    with quiet_opencv():
        name = text if is_stream else str(path)
        capture = cv2.VideoCapture(int(text)) if is_camera else cv2.VideoCapture(name)
        # A web address of known length is a file, from which no frame is dropped.
        is_live = is_camera or (is_stream and _frame_count(capture) is None)
        if is_live:
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        frame = _first_frame(capture)
    if frame is None:
        capture.release()
        raise ValueError(_reason(text, is_camera, is_stream))
    file = None if is_camera or is_stream else path
    return VideoSource(text, capture, frame, is_live=is_live, path=file)


def plausible_fps(fps: float) -> float:
    """Return 30 for the 0, NaN, or clock rate that some cameras and containers report."""
    return fps if 0 < fps < 1000 else _DEFAULT_FPS


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's and libav's messages on standard error; the callers raise instead."""
    # libav reads this once, when the first video is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    log = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 keeps these two in cv2 itself
    level = log.getLogLevel()
    log.setLogLevel(_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _first_frame(capture: cv2.VideoCapture) -> Image | None:
    fourcc = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    if not capture.isOpened() or fourcc == cv2.VideoWriter.fourcc(*_TEXT_CODEC):
        return None
    frames = (_read(capture) for _ in range(_MAX_FAILURES))
    return next((frame for frame in frames if frame is not None), None)


def _read(capture: cv2.VideoCapture) -> Image | None:
    ok, bgr = capture.read()
    if not ok or bgr is None:
        return None
    return as_uint8(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _frame_count(capture: cv2.VideoCapture) -> int | None:
    frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(frames) if 0 < frames < 2**40 else None


def _reason(text: str, is_camera: bool, is_stream: bool) -> str:
    if is_camera:
        found = [index for index in _camera_indices() if index != int(text)]
        known = f"found {', '.join(map(str, found))}" if found else "no camera was found"
        return f"no camera {text}; {known}; try 0 or a file"
    if is_stream:
        return f"cannot read the stream {text}; is the address right and the server up?"
    return f"not a video, or one without frames: {text}"


def _camera_indices() -> list[int]:
    """List Linux's video devices; elsewhere none, as asking would switch the cameras on."""
    return [index for index in range(16) if Path(f"/dev/video{index}").exists()]
