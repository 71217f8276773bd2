"""Video files from frames: H.264 by PyAV, else OpenCV."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2

from data.images import Image, as_uint8

from .reader import quiet_opencv

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""Suffix -> the codec that OpenCV uses."""

_logger = logging.getLogger(__name__)


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """A video file that appears under its name only when it is complete and playable.

    Frames go to a temporary file beside the target, which replaces the target at `close`. An error
    or Ctrl-C inside the `with` block closes it as well, which keeps the frames written so far.
    Without a frame, or when the disk is full, no file is made.

    With PyAV the file is H.264 that browsers play, and has the sound of `audio_from`. Without PyAV,
    and for `.avi`, it is OpenCV's MPEG-4 or Motion JPEG, without sound.

    Args:
        path: target; its suffix chooses the format (see `CODECS`).
        fps: frames per second.
        image_hw: height and width of the frames in pixels. Codecs need even sides: an odd last row
            or column is cut off.
        audio_from: video file whose sound is copied, for as long as the frames last; it may have
            none.

    Raises:
        ValueError: unknown suffix, missing or unwritable folder, or no codec.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        image_hw: tuple[int, int],
        audio_from: Path | None = None,
    ):
        self.path = Path(path).expanduser()
        self.frames = 0
        check_suffix(self.path)
        check_folder(self.path)
        self._image_hw, self._audio_from = image_hw, audio_from
        self._even_hw = image_hw[0] // 2 * 2, image_hw[1] // 2 * 2
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        self._file: _File | None = None
        try:
            self._file = _open_file(self._partial, fps, self._even_hw)
        except (OSError, ValueError) as error:
            self._discard()
            frames = f"{image_hw[1]} x {image_hw[0]} frames at {fps:g} fps"
            raise ValueError(f"cannot write {path}: {error}, for {frames}") from error

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, frame: Image, seconds: float | None = None) -> None:
        """Append a frame.

        Args:
            frame: (H, W, 3) uint8 RGB; resized if it is not of `image_hw`.
            seconds: when to show it, counted from the first frame; by default one frame after the
                one before.

        Raises:
            OSError: the disk is full, or the encoder failed; the file is given up.
        """
        if self._file is None:
            raise OSError(f"cannot write {self.path}: it is closed")
        height, width = self._even_hw
        if frame.shape[:2] != self._image_hw:
            frame = as_uint8(cv2.resize(frame, (width, height)))
        try:
            self._file.write(frame[:height, :width], seconds)
        except OSError as error:
            self._discard()
            raise OSError(f"cannot write {self.path}: {error}") from error
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name; a second call does nothing.

        Raises:
            OSError: the disk is full.
        """
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
            if self.frames:
                self._finish(file)
        except OSError as error:
            raise OSError(f"cannot write {self.path}: {error}") from error
        finally:
            self._partial.unlink(missing_ok=True)

    def _finish(self, file: _File) -> None:
        """Add the sound, if any, and rename; where the sound fails, keep the silent file."""
        with_sound = self.path.with_name(f".{self.path.stem}.sound{self.path.suffix}")
        try:
            if self._audio_from is not None and file.add_sound(self._audio_from, with_sound):
                with_sound.replace(self._partial)
        except Exception as error:  # decoders of damaged sound raise nearly every type there is
            _logger.warning("%s has no sound: %s", self.path, error)
        finally:
            with_sound.unlink(missing_ok=True)
            self._partial.replace(self.path)

    def _discard(self) -> None:
        """Close and remove the temporary file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
        self._partial.unlink(missing_ok=True)


class _File(Protocol):
    """An encoder and its file: `OpenCvFile` or `h264.H264File`. Failures are OSErrors."""

    def write(self, frame: Image, seconds: float | None) -> None:
        """Append an (H, W, 3) uint8 RGB frame of the size that was announced."""

    def close(self) -> None:
        """Complete the file."""

    def add_sound(self, source: Path, target: Path) -> bool:
        """Copy the closed file with the sound of another; False if that has none."""


class OpenCvFile:
    """A file of MPEG-4 or Motion JPEG frames, being written by OpenCV.

    Frames last equally long here: one is repeated to fill a gap before it.

    Args:
        path: file to make; its suffix is one of `CODECS`.
        fps: frames per second.
        image_hw: height and width of the frames in pixels, both even.

    Raises:
        ValueError: OpenCV cannot encode this.
    """

    def __init__(self, path: Path, fps: float, image_hw: tuple[int, int]):
        self._path, self._fps, self._frames = path, fps, 0
        codec = CODECS[path.suffix.lower()]
        fourcc = cv2.VideoWriter.fourcc(*codec)
        with quiet_opencv():
            self._writer = cv2.VideoWriter(str(path), fourcc, fps, image_hw[::-1])
        if not self._writer.isOpened():
            raise ValueError(f"OpenCV has no {codec} encoder that works here")

    def write(self, frame: Image, seconds: float | None) -> None:
        """Append an (H, W, 3) uint8 RGB frame, shown from `seconds` on; None: one frame later."""
        place = self._frames if seconds is None else round(seconds * self._fps)
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        repeats = max(1, place + 1 - self._frames)
        with quiet_opencv():
            for _ in range(repeats):
                self._writer.write(bgr)
        self._frames += repeats

    def close(self) -> None:
        """Complete the file, and read its last frame: OpenCV does not report a full disk."""
        self._writer.release()
        if not self._frames:
            return
        with quiet_opencv():
            capture = cv2.VideoCapture(str(self._path))
            capture.set(cv2.CAP_PROP_POS_FRAMES, self._frames - 1)
            has_last, _ = capture.read()
            frames = capture.get(cv2.CAP_PROP_POS_FRAMES)
            capture.release()
        if not has_last or frames < self._frames:
            raise OSError("the file is incomplete; is the disk full?")

    def add_sound(self, source: Path, target: Path) -> bool:
        """Return False: OpenCV writes no sound."""
        return False


def check_suffix(path: Path) -> None:
    """Refuse a target whose suffix names no format.

    Raises:
        ValueError: so it is.
    """
    if path.suffix.lower() not in CODECS:
        raise ValueError(f"cannot write {path}: use one of the suffixes {', '.join(CODECS)}")


def check_folder(path: Path) -> None:
    """Refuse a target whose folder is missing or read-only.

    Raises:
        ValueError: a file cannot be made there.
    """
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise ValueError(f"cannot write {path}: no permission, or a folder of that name")


def exact_fps(fps: float) -> Fraction:
    """Return the ratio that a rounded frame rate stands for: 30000 / 1001 for 29.97."""
    television = Fraction(round(fps * 1.001) * 1000, 1001)
    is_television = abs(fps - television) < 1e-4 * fps
    return television if is_television else Fraction(fps).limit_denominator(1001)


def _open_file(path: Path, fps: float, image_hw: tuple[int, int]) -> _File:
    if min(image_hw) < 1 or not exact_fps(fps) > 0:
        raise ValueError("nothing would be seen")
    if path.suffix.lower() != ".avi":
        try:
            from .h264 import H264File

            return H264File(path, exact_fps(fps), image_hw)
        except ImportError:
            _logger.info("writing MPEG-4 without sound; `pip install av` gives H.264 with sound")
    return OpenCvFile(path, fps, image_hw)
