"""Files that are written atomically, by one process at a time, and their names."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from data.files import locked_part, part_name, remove_stale_parts, replace_file
from data.problems import writable

from .errors import UsageError

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_LONGEST_PART = 100  # bytes: a whole name has at most 255

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@contextmanager
def naming(path: Path, part: Path | None = None) -> Iterator[None]:
    """Name a file in an error of the system that names none, as that of a full disk.

    Args:
        path: of the file that is written.
        part: what it is called while it is written, which is replaced by `path`.
    """
    try:
        yield
    except OSError as error:
        of_disk = error.filename is None and error.errno in _OF_DISKS
        if of_disk or (part is not None and str(error.filename) == str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which is renamed to `path`, or deleted on an error.

    Args:
        path: path of the finished file; its folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent.absolute())
    part = path.with_name(part_name(path.name))
    part.unlink(missing_ok=True)  # else a link would be followed
    try:
        with naming(path, part), locked_part(part):
            yield part
            replace_file(part, path)
    finally:
        part.unlink(missing_ok=True)


@cache
def _sweep_once(folder: Path) -> None:
    """Sweep a folder when this process writes into it for the first time."""
    remove_stale_parts(folder)


class RunLock:
    """Locks the name of a run in a folder until it is closed, or its process ends in any way.

    Forked loader workers do not hold the lock. On a file system without locks, there is none.

    Args:
        folder: folder of the run's files.
        name: name of the run.
        refusal: message for a second run of this name.

    Raises:
        UsageError: another process holds it.
    """

    def __init__(self, folder: Path, name: str, refusal: str) -> None:
        self._path = folder / f".{name}.lock"
        self._file: BinaryIO | None = None
        if sys.platform == "win32":
            return
        import fcntl

        while True:
            if not is_plain_file(self._path):
                self._path.unlink(missing_ok=True)
            file = self._path.open("ab")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.close()
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise UsageError(refusal) from None
                self._path.unlink(missing_ok=True)
                return
            if os.fstat(file.fileno()).st_nlink:
                self._file = file
                return
            file.close()  # the last holder has just deleted it

    def close(self) -> None:
        """Release the name."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


def is_plain_file(path: Path) -> bool:
    """Tell whether a path is a regular file: not a link, a pipe, a folder, or absent."""
    return path.is_file() and not path.is_symlink()


def write_json(
    path: Path, content: Mapping[str, object] | Sequence[object], indent: int | None = None
) -> None:
    """Write JSON atomically, on one line unless it is indented.

    Raises:
        ValueError: a number in it is not finite.
    """
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        json.dump(content, file, allow_nan=False, indent=indent)


def write_text(path: Path, text: str) -> Path:
    """Write a text atomically, in UTF-8."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace", newline="")
    return path


def write_picture(path: Path, picture: NDArray[np.uint8]) -> Path:
    """Write a picture atomically, in the format of the suffix.

    Args:
        path: ends in one of `PICTURE_SUFFIXES`, or another format that OpenCV writes.
        picture: (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey.

    Raises:
        ValueError: no such format, or one that cannot hold this picture.
        OSError: the file cannot be written, with the system's reason, such as a full disk.
    """
    if not path.suffix.isascii():  # OpenCV crashes at half of a character
        raise ValueError(f"cannot write a picture as {path}: try {', '.join(PICTURE_SUFFIXES)}")
    if picture.ndim == 3:
        picture = picture[..., [2, 1, 0, 3][: picture.shape[2]]]
    try:
        written, content = cv2.imencode(path.suffix, np.ascontiguousarray(picture))
    except cv2.error:
        written = False
    if not written:
        height, width = picture.shape[:2]
        formats = ", ".join(PICTURE_SUFFIXES)
        raise ValueError(
            f"cannot write {width} x {height} pixels as {path}: try {formats}"
        ) from None
    with whole_file(path) as part:
        part.write_bytes(content.tobytes())
    return path


def remove_numbered(path: Path, ending: str, first: int) -> None:
    """Remove name_ending5.png, name_ending6.png and so on, as an earlier run left them.

    Args:
        path: name.png.
        ending: text between the name and the number.
        first: first number to remove; the first absent one ends the removal.
    """
    named = (path.with_stem(f"{path.stem}{ending}{number}") for number in count(first))
    for file in takewhile(Path.is_file, named):
        file.unlink()


def as_cell(text: str) -> str:
    """Return a text for CSV that no spreadsheet takes for a formula, and no reader for the end."""
    text = writable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def as_file_name(text: str) -> str:
    """Return the beginning of a text as part of a file name: letters, digits, "-", "_" and "."."""
    name = re.sub(r"[^\w.-]+", "_", text).encode()[:_LONGEST_PART].decode(errors="ignore")
    return name.strip("._") or "_"


def cache_folder() -> Path:
    """Return the folder for cached files: ~/.cache/yolact, or below XDG_CACHE_HOME."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolact"
    except RuntimeError:  # a user without a home
        return Path(_temporary().name)


@cache
def _temporary() -> TemporaryDirectory[str]:
    """Return a private temporary folder; another user could fill one with a known name."""
    return TemporaryDirectory(prefix="yolact-")
