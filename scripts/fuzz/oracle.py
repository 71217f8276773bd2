"""Runs a parser on one content after the other, and tells what it may do from what it may not."""

from __future__ import annotations

import re
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from linecache import getline
from pathlib import Path

from parser import Parser

SECONDS = 5.0
"""Of processor time that one content may take."""

_ROOT = Path(__file__).resolve().parents[2]
_OUT_OF_MEMORY = re.compile(
    r"not enough memory|insufficient memory|(?<![a-z])alloc|out of memory", re.I
)


def outcome(parser: Parser, content: bytes) -> tuple[str, str]:
    """Run a parser; return the kind of finding and how it came about, two times "" for none."""
    before, start = parser.memory or _fresh_peak(), time.perf_counter()
    parser.memory = before
    kind, told = _called(parser, content)
    elapsed, megabytes = time.perf_counter() - start, _peak() - before
    if not kind and elapsed > SECONDS:  # perhaps of other processes
        start = time.process_time()
        _called(parser, content)
        if (seconds := time.process_time() - start) > SECONDS:
            kind, told = "slow", f"{seconds:.1f} s of processor"
    if megabytes > parser.megabytes:
        parser.memory = _fresh_peak()
        kind, told = kind or "memory", told or f"{megabytes} MB"
    return kind, told


def is_of_project(error: Exception, allowed: tuple[type[Exception], ...]) -> bool:
    """Tell an error that the project wrote, in one line, from one that passed through it."""
    if type(error) not in allowed or "\n" in str(error):
        return False
    if any(_is_of_memory(each) for each in _chain(error)):
        return False
    return isinstance(error, OSError) or _raised_by(error).startswith("raise ")


def _called(parser: Parser, content: bytes) -> tuple[str, str]:
    try:
        parser.read(content)
    except Exception as error:
        if is_of_project(error, parser.errors):
            return "", ""
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if str(_ROOT) in f.filename and "site-packages" not in f.filename]
        last = (own or list(frames))[-1]
        name = f"{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}"
        return name, traceback.format_exc(limit=-6)
    return "", ""


def _raised_by(error: Exception) -> str:
    """Return the line of code that an error comes from."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return "" if last is None else getline(last.tb_frame.f_code.co_filename, last.tb_lineno).strip()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_memory(error: BaseException) -> bool:
    """Tell that something took too much; libav, with errors of the system, refuses to take it."""
    is_refused = hasattr(error, "errno")
    words = _OUT_OF_MEMORY.search(str(error)) is not None
    return not is_refused and (isinstance(error, MemoryError) or words)


def _fresh_peak() -> int:
    """Forget the peak of the memory, where the system can, and return what is in use, in MB."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used >> (20 if sys.platform == "darwin" else 10)
