"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` at the end, and vanishes on an error.

    Args:
        path: of the finished file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(
    path: Path, content: Mapping[str, object] | Sequence[object], indent: int | None = None
) -> None:
    """Write JSON, whole or not at all, on one line unless it is indented.

    Raises:
        ValueError: a number in it is not finite.
    """
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        json.dump(content, file, allow_nan=False, indent=indent)
