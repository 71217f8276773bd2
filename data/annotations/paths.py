"""Where images lie to a folder, also on the drives of Windows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def relative_name(path: str | Path, folder: str | Path) -> str:
    """Return the path of a file from a folder, with slashes; absolute if on another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # Windows has no way from drive to drive
        return Path(path).absolute().as_posix()


def shared_folder(folders: Sequence[Path]) -> Path:
    """Return the deepest folder that holds all of some absolute ones.

    Raises:
        ValueError: they lie on different drives of Windows.
    """
    drives = list({folder.drive.lower(): folder.drive for folder in folders}.values())
    if len(drives) > 1:
        first, second = drives[:2]
        raise ValueError(f"images on {first} and {second} share no folder: put all on one drive")
    return Path(os.path.commonpath(folders))
