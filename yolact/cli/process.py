"""A command as a process: termination signals, and safe output on the terminal."""

from __future__ import annotations

import errno
import io
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from data.files import without_password
from data.problems import printable

TERMINATION_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Signals from `kill`, service managers and containers, and from a terminal that closes."""


@contextmanager
def signals_as_keyboard_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt with the signal's number on the first termination signal.

    Later signals are ignored, as results are then being written. Signals that were already ignored,
    as under `nohup`, stay ignored.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    taken = [each for each in TERMINATION_SIGNALS if signal.getsignal(each) == signal.SIG_DFL]
    before = {each: signal.signal(each, end) for each in taken} if in_main_thread else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(stopped: KeyboardInterrupt) -> int:
    """Return the exit code that shells expect of a program ended by a signal."""
    return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)


def is_closed_pipe(error: BaseException) -> bool:
    """Tell whether a reader of the output, such as `head`, has read enough.

    Windows calls that an invalid argument, as it calls some names of files.
    """
    if isinstance(error, BrokenPipeError):
        return True
    of_no_file = isinstance(error, OSError) and error.filename is None
    return sys.platform == "win32" and of_no_file and error.errno == errno.EINVAL


class PrintableStream(io.TextIOBase):
    """A text stream that replaces characters that its target cannot show or would act on.

    Args:
        target: standard output, of any encoding.
    """

    def __init__(self, target: TextIO) -> None:
        self._target = target

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the target."""
        return getattr(self._target, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text; characters missing in the encoding, and controls, become question marks."""
        encoded = printable(text, keep="\n\t").encode(self.encoding, "replace")
        self._target.write(encoded.decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the target."""
        self._target.flush()

    def fileno(self) -> int:
        """Return the target's descriptor."""
        return self._target.fileno()

    def isatty(self) -> bool:
        """Tell whether the target is a terminal."""
        return self._target.isatty()


class PrintableFormatter(logging.Formatter):
    """Formats messages as `safe_text`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines, to show."""
        return safe_text(super().format(record))


def safe_text(text: str) -> str:
    """Return a message without passwords in addresses, and without terminal controls."""
    return without_password(printable(text, keep="\n\t"))


def log_to(stream: TextIO) -> None:
    """Show messages of at least INFO, unless logging is already set up."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
