"""What fuzzing knows of a reader of files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mutations import Mutate


@dataclass
class Parser:
    """A reader of files of strangers.

    Attributes:
        seeds: contents that it reads without an error.
        read: takes a content; returns, or raises one of `errors` with one line.
        mutate: damages a content.
        errors: what it may raise: these types themselves, not those derived from them.
        megabytes: of memory that one content may take.
        memory: in use before the first one, in MB; 0 before.
    """

    seeds: list[bytes]
    read: Callable[[bytes], object]
    mutate: Mutate
    errors: tuple[type[Exception], ...] = (ValueError, FileNotFoundError, OSError)
    megabytes: int = 512
    memory: int = 0
