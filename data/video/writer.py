"""Video files from frames and sound."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data.files import locked_part, part_name, remove_stale_parts, replace_file
from data.images import Image, as_uint8

from .formats import format_of

if TYPE_CHECKING:
    from .encoder import Encoder
    from .sound import Sound

logger = logging.getLogger(__name__)


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """A video file that appears under its name only when it is complete and playable.

    Frames go to a temporary file beside the target, which replaces the target at `close`; where
    another run has written the target meanwhile, this file gets another name, which is told. An
    error or Ctrl-C inside the `with` block closes it as well, which keeps the frames written so
    far. Without a frame, or when the disk is full, no file is made.

    Args:
        path: target; its suffix chooses the format (see `FORMATS`).
        fps: frames per second.
        image_hw: height and width of the frames in pixels. Codecs need even sides: an odd last row
            or column is cut off.
        sound: what is heard, for as long as the frames last: that of the source which the frames
            come from, and from which none has been taken yet.
        card: number of an NVIDIA card, which encodes H.264 where it can.

    Attributes:
        path: of the file; another one after `close` if the target was taken meanwhile.

    Raises:
        ValueError: unknown suffix, missing or unwritable folder, no codec, or no PyAV.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        image_hw: tuple[int, int],
        sound: Sound | None = None,
        card: int | None = None,
    ):
        self.path = Path(path).expanduser()
        self.frames = 0
        format_of(self.path)
        check_target(self.path)
        self._image_hw = image_hw
        self._even_hw = image_hw[0] // 2 * 2, image_hw[1] // 2 * 2
        self._before = _version(self.path)
        remove_stale_parts(self.path.parent)
        # Of any target: short, and no other writer's.
        name = part_name(secrets.token_hex(4), self.path.suffix)
        self._partial = self.path.with_name(name)
        self._file: Encoder | None = None
        self._held = ExitStack()
        try:
            self._held.enter_context(locked_part(self._partial))
            self._file = _open_file(self._partial, fps, self._even_hw, sound, card)
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
            ValueError: another shape or type; the file goes on.
        """
        if self._file is None:
            raise OSError(f"cannot write {self.path}: it is closed")
        is_array = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
        if not (is_array and frame.ndim == 3 and frame.shape[2] == 3 and frame.size):
            given = f"{type(frame).__name__} of shape {tuple(np.shape(frame))}"
            kind = f" and type {dtype}" if (dtype := getattr(frame, "dtype", None)) else ""
            raise ValueError(f"{given}{kind} is no frame: expected an (H, W, 3) uint8 RGB array")
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
                self._publish()
        except OSError as error:
            raise OSError(f"cannot write {self.path}: {error}") from error
        finally:
            self._remove_part()

    def _publish(self) -> None:
        """Rename the finished file."""
        if _version(self.path) != self._before:
            taken, self.path = self.path, free_name(self.path)
            logger.warning("%s was written by another run: this is %s", taken, self.path)
        replace_file(self._partial, self.path)

    def _discard(self) -> None:
        """Close and remove the temporary file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
        self._remove_part()

    def _remove_part(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._held.close()


def join_videos(parts: Sequence[tuple[Path, float]], path: Path, source: Path | None) -> None:
    """Put finished videos one after the other, without a change, into one that is whole at once.

    Args:
        parts: made by writers of one size and rate for the suffix of `path`, each with the seconds
            at which its first frame is shown.
        path: of the video to make.
        source: a video file whose sound goes along; None for none.

    Raises:
        OSError: a file cannot be read or written.
    """
    from .encoder import join

    part = path.with_name(part_name(secrets.token_hex(4), path.suffix))
    try:
        with locked_part(part):
            join(parts, part, source)
            replace_file(part, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Refuse a target whose folder is missing or read-only, or whose name cannot be.

    Raises:
        ValueError: a file cannot be made there.
    """
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    try:
        is_folder = path.is_dir()
    except OSError as error:  # too long
        raise ValueError(f"cannot write {path}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK) or is_folder:
        raise ValueError(f"cannot write {path}: no permission, or a folder of that name")


def free_name(path: Path) -> Path:
    """Return a path, or where something is there already, the next one with a number."""
    numbered = (path.with_stem(f"{path.stem[:200]}_{number}") for number in count(2))
    return next(name for name in chain((path,), numbered) if not name.exists())


def exact_fps(fps: float) -> Fraction:
    """Return the ratio that a rounded frame rate stands for: 30000 / 1001 for 29.97."""
    television = Fraction(round(fps * 1.001) * 1000, 1001)
    if abs(fps - television) < 1e-4 * fps:
        return television
    return Fraction(fps).limit_denominator(1001 if fps >= 1 else 10**6)


def _open_file(
    path: Path, fps: float, image_hw: tuple[int, int], sound: Sound | None, card: int | None
) -> Encoder:
    if min(image_hw) < 1 or not exact_fps(fps) > 0:
        raise ValueError("nothing would be seen")
    try:
        from .encoder import Encoder
    except ImportError as error:
        raise ValueError(f"videos need PyAV: pip install av ({error})") from error
    try:
        return Encoder(path, exact_fps(fps), image_hw, sound, card)
    except (OSError, ValueError):
        if card is None:
            raise
        return Encoder(path, exact_fps(fps), image_hw, sound)  # of a size that the card does not do


def _version(path: Path) -> tuple[int, int] | None:
    """Return what tells one file of a name from the next one; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
