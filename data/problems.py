"""Problems of a dataset: one line that says what, where, and how to mend it."""

from __future__ import annotations

import errno
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

_LONGEST = 300  # letters of a part of a message
_TELLING = ("annotations.coco", "catalog", "held_out")  # modules that log what a dataset lacks
_NOT_IN_FILES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Problem:
    """Something wrong with a dataset.

    Attributes:
        what: the kind of problem, in the same words for all of its kind.
        where: the file, and the annotation or line in it.
        mend: what to do about it.
        is_used: whether it is trained on nevertheless, as it seems to be meant.
        is_notice: whether it is no mistake for certain, but deserves a look.
    """

    what: str
    where: str
    mend: str
    is_used: bool = field(default=False, kw_only=True)
    is_notice: bool = field(default=False, kw_only=True)

    @classmethod
    def of_error(cls, what: str, error: Exception, mend: str) -> Problem:
        """Turn an error into a problem: behind its last semicolon it says what to do, or `mend`."""
        where, _, own = str(error).rpartition("; ")
        return cls(what, where, own) if where else cls(what, own, mend)

    def __str__(self) -> str:
        """Return one line of sensible length, whatever files and classes are called."""
        line = f"{self.what}: {self.where:.{_LONGEST}}; {self.mend:.{_LONGEST}}"
        return printable(line)


class Unusable(ValueError):
    """A part of an annotation that cannot be used.

    Args:
        what: as in `Problem`.
        mend: as in `Problem`.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what, self.mend = what, mend


class UnknownDataset(ValueError):
    """There is no dataset of this name or path.

    Args:
        name: what was asked for.
        reason: what was expected.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"no dataset {name!r}{reason}")
        self.name = name


def unreadable() -> Unusable:
    """Say that an image cannot be read."""
    return Unusable("an image that cannot be read", "replace the file, or delete it")


def log_problems(log: Callable[[str], object], problems: Sequence[Problem]) -> None:
    """Log what was left out and what was not, in a line each, and each notice."""
    lost = [problem for problem in problems if not (problem.is_used or problem.is_notice)]
    used = [problem for problem in problems if problem.is_used]
    if lost:
        log(f"left out {summarize(lost)}")
    if used:
        log(f"used, but to be mended: {summarize(used)}")
    for problem in problems:
        if problem.is_notice:
            log(f"worth a look: {problem}")


@contextmanager
def told_once() -> Iterator[None]:
    """Log what is told of a dataset once, however often it is opened meanwhile."""
    told: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        count = len(told)
        told.add(record.getMessage())
        return len(told) > count

    loggers = [logging.getLogger(f"{__package__}.{name}") for name in _TELLING]
    for each in loggers:
        each.addFilter(is_new)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(is_new)


def summarize(problems: Sequence[Problem]) -> str:
    """Count the problems of each kind, most frequent first, in one line with an example."""
    kinds = Counter(problem.what for problem in problems)
    counts = ", ".join(f"{what} ({count})" for what, count in kinds.most_common())
    if not problems:
        return "there are no objects"
    return printable(f"{counts}, such as {problems[0].where:.{_LONGEST}}")


def first_line(error: BaseException) -> str:
    """Return what an error says first, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def reason_of(error: BaseException) -> str:
    """Say why a file, a stream or an address does not serve, for a message that names it."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "disk full"
    return getattr(error, "strerror", None) or first_line(error)


def printable(text: str, keep: str = "") -> str:
    """Return a text without what a terminal would act on, or no picture can hold.

    Args:
        text: from anywhere.
        keep: letters that stay nevertheless, such as the ends of lines.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else "?" for c in text)


def writable(text: str) -> str:
    """Return a text without what no file of text can hold; spaces and marks of all scripts stay."""
    return _NOT_IN_FILES.sub("?", text)


def some_of(names: Sequence[str], most: int, count: int | None = None) -> str:
    """List the first names; `count` says how many there are in all, if not as many as these."""
    more = (len(names) if count is None else count) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def counted(count: int, noun: str) -> str:
    """Say how many there are: "1 image", "2,000 images", "3 classes"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")
