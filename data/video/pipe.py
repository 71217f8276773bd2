"""Standard input and other pipes, as files for PyAV."""

from __future__ import annotations

import os
import select
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data.images import Picture

from .container import ContainerSource, open_container
from .formats import RawFormat

_HEAD = 64  # bytes in which an MP4 tells whether its index comes first


class Pipe:
    """A pipe, which is given up when nothing comes.

    Args:
        file: opened without a buffer.
        timeout: seconds without data after which it ends.

    Attributes:
        stalled: it has ended so.
    """

    def __init__(self, file: BinaryIO, timeout: float):
        self.stalled = False
        self._file, self._timeout, self._head = file, timeout, b""

    def read(self, size: int = 1 << 16, /) -> bytes:
        """Return up to so many bytes, none at the end."""
        if self._head:
            start, self._head = self._head[:size], self._head[size:]
            return start
        if os.name == "posix" and not self.stalled:
            self.stalled = not select.select([self._file], [], [], self._timeout)[0]
        return b"" if self.stalled else self._file.read(size) or b""

    def peek(self) -> bytes:
        """Return the first bytes, which are read again later."""
        while len(self._head) < _HEAD:
            held, self._head = self._head, b""
            more = self.read(_HEAD)
            self._head = held + more
            if not more:
                break
        return self._head


class PipeSource(ContainerSource):
    """The video that comes through a pipe.

    Args:
        name: for messages.
        path: of a FIFO; None for standard input.
        timeout: seconds without data after which it counts as broken.
        raw: format of frames without a header.

    Raises:
        OSError: there is no such pipe, or no video in it.
        ValueError: standard input is a terminal.
    """

    def __init__(self, name: str, path: Path | None, timeout: float, raw: RawFormat | None = None):
        if path is None and os.isatty(0):
            raise ValueError(f"{name}: expected a video through a pipe, as in `cat a.mp4 | ...`")
        # Not through the buffer of sys.stdin, which `select` does not see.
        file = path.open("rb", buffering=0) if path else os.fdopen(os.dup(0), "rb", buffering=0)
        self._pipe, self._timeout = Pipe(file, timeout), timeout
        super().__init__(name, open_container(_seekable(file, self._pipe), raw))

    def pictures(self) -> Iterator[Picture]:
        """Yield the remaining frames.

        Raises:
            OSError: nothing has come for as long as the timeout.
        """
        yield from super().pictures()
        if self._pipe.stalled:
            raise OSError(
                f"{self.name}: no data for {self._timeout:g} s; "
                f"{self._delivered_frames} frames came before"
            )


def _seekable(file: BinaryIO, pipe: Pipe) -> BinaryIO | Pipe:
    """Return what PyAV can read: a redirected file, or all of an MP4 that ends with its index."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
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
