"""What reaches the terminal: no name from a file acts on it, and no encoding stops a command."""

from __future__ import annotations

import io
import logging
from typing import TextIO

from data.problems import printable


class Shown(io.TextIOBase):
    """A text stream that replaces what its target cannot show, or would act on.

    Args:
        target: standard output, of any encoding.
    """

    def __init__(self, target: TextIO) -> None:
        self._target = target

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The target's."""
        return getattr(self._target, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text; letters that the encoding lacks, and controls, become question marks."""
        shown = printable(text, keep="\n\t").encode(self.encoding, "replace")
        self._target.write(shown.decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Hand over what the target holds back."""
        self._target.flush()

    def fileno(self) -> int:
        """Return the target's descriptor."""
        return self._target.fileno()

    def isatty(self) -> bool:
        """Tell whether the target is a terminal."""
        return self._target.isatty()


class ShownLines(logging.Formatter):
    """Formats a message without what would act on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines, to show."""
        return printable(super().format(record), keep="\n\t")


def log_to(stream: TextIO) -> None:
    """Show messages of at least INFO, unless somebody has set up logging already."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ShownLines("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
