"""Frames in and out: video files, cameras and network streams, by OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from .sources import is_url

Frame = NDArray[np.uint8]

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}

_DEFAULT_FPS = 30.0
# Frames in a row that may fail to decode before a source counts as ended.
_MAX_FAILURES = 10
_MAX_FAILURES_IN_FILE = 1000
_SILENT = 0  # OpenCV's LOG_LEVEL_SILENT
_TEXT_CODEC = "ansi"  # libav shows plain text files as if they were ANSI art; nobody means that


class VideoSource:
    """An opened video whose frames can be iterated once, as (H, W, 3) uint8 RGB.

    Attributes:
        name: what was opened, for messages.
        fps: frames per second; 30 where a camera or container does not know.
        image_hw: height and width of the frames in pixels, after rotation.
        frame_count: number of frames that the container claims; None for cameras and live streams.
        is_live: frames pass whether they are read or not.
        broken_frames: frames skipped so far because they could not be decoded.
    """

    def __init__(self, name: str, capture: cv2.VideoCapture, first: Frame, *, is_live: bool):
        """Take over an opened capture and the first frame read from it."""
        self.name = name
        self.fps = plausible_fps(capture.get(cv2.CAP_PROP_FPS))
        self.image_hw: tuple[int, int] = (first.shape[0], first.shape[1])
        self.frame_count = None if is_live else _frame_count(capture)
        self.is_live = is_live
        self.broken_frames = 0
        self._capture = capture
        self._first: Frame | None = first

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that are left, past broken ones."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        delivered, failures = 1, 0
        while True:
            frame = _read(self._capture)
            if frame is not None:
                # Failures count as broken frames only when the video goes on after them.
                self.broken_frames, failures = self.broken_frames + failures, 0
                delivered += 1
                yield frame
            elif failures >= self._patience(delivered):
                return
            else:
                failures += 1

    def __enter__(self) -> VideoSource:
        """Return the source itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the capture."""
        self.close()

    def close(self) -> None:
        """Release the file or camera; the iteration ends."""
        self._capture.release()

    def _patience(self, delivered: int) -> int:
        """Count the failures to bear: in a file no more than the frames it claims to have left."""
        if not self._capture.isOpened():
            return 0
        if self.frame_count is None:
            return _MAX_FAILURES
        left = self.frame_count - delivered - self.broken_frames
        return min(max(left, 0), _MAX_FAILURES_IN_FILE)


class VideoWriter:
    """A video file that appears under its name only when it is complete and playable.

    Frames go to a temporary file beside the target, which replaces the target at `close`. An error
    or Ctrl-C closes it as well, so what has been written until then is kept. Without a single frame
    no file is made.

    Args:
        path: target; its suffix chooses the codec (see `CODECS`).
        fps: frames per second.
        image_hw: height and width of the frames. Codecs need even sides: an odd last row or column
            is cut off.

    Raises:
        ValueError: unknown suffix, missing or unwritable folder, or no codec.
    """

    def __init__(self, path: str | Path, fps: float, image_hw: tuple[int, int]):
        """Open the temporary file."""
        self.path = Path(path).expanduser()
        self.frames = 0
        self._size = (image_hw[1], image_hw[0])
        codec = CODECS.get(self.path.suffix.lower())
        if codec is None:
            raise ValueError(f"cannot write {path}: use one of the suffixes {', '.join(CODECS)}")
        check_folder(self.path)
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        fourcc = cv2.VideoWriter.fourcc(*codec)
        with quiet_opencv():
            self._writer = cv2.VideoWriter(str(self._partial), fourcc, fps, self._size)
        if not self._writer.isOpened():
            self._partial.unlink(missing_ok=True)
            raise ValueError(
                f"cannot write {path}: OpenCV has no {codec} encoder for "
                f"{self._size[0]} x {self._size[1]} frames at {fps:g} fps; try a .avi file"
            )

    def write(self, frame: Frame) -> None:
        """Append one (H, W, 3) uint8 RGB frame; one of another size is resized, not lost."""
        if (frame.shape[1], frame.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size).astype(np.uint8, copy=False)
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def __enter__(self) -> VideoWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, whatever ended the block."""
        self.close()

    def close(self) -> None:
        """Finish the file and give it its name; a second call does nothing."""
        self._writer.release()
        if not self._partial.exists():
            return
        if self.frames:
            self._partial.replace(self.path)
        else:
            self._partial.unlink()


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
        # A web address can also be a whole file, of known length: nothing is dropped from that.
        is_live = is_camera or (is_stream and _frame_count(capture) is None)
        if is_live:
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        frame = _first_frame(capture)
    if frame is None:
        capture.release()
        raise ValueError(_why_not(text, is_camera, is_stream))
    return VideoSource(text, capture, frame, is_live=is_live)


def plausible_fps(fps: float) -> float:
    """Replace the 0, NaN, or clock rate that some cameras and containers report by 30."""
    return fps if 0 < fps < 1000 else _DEFAULT_FPS


def check_folder(path: Path) -> None:
    """Refuse a target whose folder is missing or read-only, before any work is done.

    Raises:
        ValueError: a file cannot be made there.
    """
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise ValueError(f"cannot write {path}: no permission, or a folder of that name")


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from explaining a missing camera or codec on standard error; callers raise."""
    # libav reads this once, when the first video is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    log = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 keeps these two in cv2 itself
    level = log.getLogLevel()
    log.setLogLevel(_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _first_frame(capture: cv2.VideoCapture) -> Frame | None:
    fourcc = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    if not capture.isOpened() or fourcc == cv2.VideoWriter.fourcc(*_TEXT_CODEC):
        return None
    frames = (_read(capture) for _ in range(_MAX_FAILURES))
    return next((frame for frame in frames if frame is not None), None)


def _read(capture: cv2.VideoCapture) -> Frame | None:
    ok, bgr = capture.read()
    if not ok or bgr is None:
        return None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _frame_count(capture: cv2.VideoCapture) -> int | None:
    frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(frames) if 0 < frames < 2**40 else None


def _why_not(text: str, is_camera: bool, is_stream: bool) -> str:
    if is_camera:
        found = [index for index in _camera_indices() if index != int(text)]
        known = f"found {', '.join(map(str, found))}" if found else "no camera was found"
        return f"no camera {text}; {known}; try 0 or a file"
    if is_stream:
        return f"cannot read the stream {text}; is the address right and the server up?"
    return f"not a video, or one without frames: {text}"


def _camera_indices() -> list[int]:
    """List Linux's video devices; elsewhere, asking would switch cameras on, so none is listed."""
    return [index for index in range(16) if Path(f"/dev/video{index}").exists()]
