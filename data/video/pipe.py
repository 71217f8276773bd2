"""Standard input and other pipes, as files for PyAV."""

from __future__ import annotations

import os
import re
import select
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEAD = 64  # bytes in which an MP4 tells whether its index comes first


class RawFormat(NamedTuple):
    """The pixels of a stream that has no header.

    Attributes:
        size: "640x480".
        fps: frames per second.
        pixels: libav's name of their format.
    """

    size: str
    fps: float
    pixels: str

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read "640x480@30" or "640x480@30:yuv420p".

        Raises:
            ValueError: it is something else.
        """
        match = re.fullmatch(r"([1-9]\d*x[1-9]\d*)@(\d+(?:\.\d+)?)(?::(\w+))?", text)
        if match is None or not float(match[2]):
            raise ValueError(f"{text!r}: expected WxH@FPS[:PIXELS], as in 640x480@30:bgr24")
        return cls(match[1], float(match[2]), match[3] or "rgb24")

    @property
    def options(self) -> dict[str, str]:
        """What libav's reader of raw video is told."""
        return {"video_size": self.size, "framerate": f"{self.fps:g}", "pixel_format": self.pixels}


class Pipe:
    """A pipe, which gives up when nothing comes.

    Args:
        file: opened without a buffer.
        timeout: seconds without data after which `read` raises.
    """

    def __init__(self, file: BinaryIO, timeout: float):
        self._file, self._timeout, self._head = file, timeout, b""

    def read(self, size: int = 1 << 16, /) -> bytes:
        """Return up to so many bytes, none at the end.

        Raises:
            TimeoutError: nothing came for too long.
        """
        if self._head:
            start, self._head = self._head[:size], self._head[size:]
            return start
        if os.name == "posix" and not select.select([self._file], [], [], self._timeout)[0]:
            raise TimeoutError(f"no data for {self._timeout:g} s")
        return self._file.read(size) or b""

    def peek(self) -> bytes:
        """Return the first bytes, which are read again later."""
        while len(self._head) < _HEAD:
            held, self._head = self._head, b""
            more = self.read(_HEAD)
            self._head = held + more
            if not more:
                break
        return self._head


def open_pipe(path: Path | None, timeout: float) -> Pipe | BinaryIO:
    """Open standard input, if None, or a FIFO; an MP4 that ends with its index is read whole.

    Raises:
        TimeoutError: nothing came for too long.
        ValueError: standard input is a terminal.
    """
    if path is None and sys.stdin.isatty():
        raise ValueError("-: expected a video through a pipe, as in `cat a.mp4 | ...`")
    file = open(0 if path is None else path, "rb", buffering=0, closefd=path is not None)  # noqa: SIM115, PTH123
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    pipe = Pipe(file, timeout)
    if not _ends_with_index(pipe.peek()):
        return pipe
    whole = tempfile.TemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(pipe, whole)
    whole.seek(0)
    return whole


def _ends_with_index(head: bytes) -> bool:
    """Tell whether this is the start of an MP4 whose data come before the index."""
    place = 0
    while head[place + 4 : place + 8] in (b"ftyp", b"free", b"wide", b"skip"):
        size = int.from_bytes(head[place : place + 4], "big")
        if size < 8:
            return False
        place += size
    return head[place + 4 : place + 8] == b"mdat"
