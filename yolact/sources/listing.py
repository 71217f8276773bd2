"""The images that a file name, a folder or a pattern stands for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Set
from pathlib import Path

from data.files import IMAGE_SUFFIXES, natural_key

logger = logging.getLogger(__name__)

GLOB_CHARACTERS = frozenset("*?[")


def local_path(text: str | os.PathLike[str]) -> Path:
    """Return a path with `~` expanded, if it is a user's home."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def expand_images(source: str | os.PathLike[str]) -> list[Path]:
    """List the images that a file name, a folder or a glob such as `shots/**/*.jpg` stands for.

    Folders and globs yield only files with an image suffix, so a stray Thumbs.db does no harm, and
    include subfolders. A broken link is listed, so that reading it reports its name; a folder that
    cannot be read is reported here.

    Args:
        source: folder, glob pattern, or one file, which may have any suffix.

    Returns:
        At least one path, in natural order (`2.jpg` before `10.jpg`).

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: there are no images.
    """
    path = local_path(source)
    if path.is_file():
        return [path]
    if path.is_dir() and os.fspath(source):  # an empty name is not the working folder
        found, what = files_below(path, IMAGE_SUFFIXES), f"no image in folder {source}"
    elif GLOB_CHARACTERS & set(str(path)):
        found, what = files_matching(path, IMAGE_SUFFIXES), f"no image matches {source}"
    else:
        raise FileNotFoundError(f"no such file or folder: {source}")
    images = sorted(set(found), key=natural_key)
    if not images:
        raise ValueError(f"{what}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    return images


def glob(pattern: Path) -> Iterator[Path]:
    """Match a pattern below its longest prefix that exists literally, even if called `a [1]`."""
    base = next((parent for parent in pattern.parents if parent.is_dir()), Path())
    return base.glob(str(pattern.relative_to(base)))


def files_matching(pattern: Path, suffixes: Set[str]) -> Iterator[Path]:
    """Yield the files that match a pattern, and those below matching folders.

    Args:
        pattern: with `GLOB_CHARACTERS`.
        suffixes: suffixes of the files, in lower case.
    """
    for path in glob(pattern):
        if path.is_dir():
            yield from files_below(path, suffixes)
        elif _is_one(path, suffixes):
            yield path


def files_below(
    folder: Path, suffixes: Set[str], seen: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, also through links, but not in cycles.

    Args:
        folder: an existing folder.
        suffixes: suffixes of the files, in lower case.
        seen: folders that contain it.
    """
    place = folder.resolve()
    try:
        entries = [] if place in seen else list(folder.iterdir())
    except OSError as error:
        logger.warning("passed over: %s: %s", folder, error.strerror)
        return
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            yield from files_below(entry, suffixes, seen | {place})
        elif _is_one(entry, suffixes):
            yield entry


def _is_one(path: Path, suffixes: Set[str]) -> bool:
    hidden = path.name.startswith(".")  # macOS leaves "._photo.jpg" beside photo.jpg
    return path.suffix.lower() in suffixes and not hidden and not path.is_dir()
