"""Inputs named by a user: an image, a folder, a glob, a video, a camera, a stream."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.files import IMAGE_SUFFIXES, URL_HEAD, is_url

_DRIVE = re.compile(r"(?:^|:)[a-z]:[\\/]", re.IGNORECASE)
_GLOB_CHARACTERS = frozenset("*?[")


def parse_source(text: str) -> tuple[str, str | None]:
    r"""Split "input" or "input:output" at the colon that separates, and at no other.

    Windows drives, web addresses with ports and passwords, and existing files with a colon in their
    name survive.

    Args:
        text: what the user typed, for example `in.jpg:out.png`, `0:out.mp4`, `C:\a.mp4:D:\b.mp4` or
            `rtsp://host:554/stream:out.mp4`.

    Returns:
        The input, and the output or None.

    Raises:
        ValueError: nothing stands before or after the colon.
    """
    if not is_url(text) and _exists(text):
        return text, None
    cut = _separator(text)
    if cut is None:
        source, output = text, None
    else:
        source, output = text[:cut], text[cut + 1 :]
    if not source or output == "":
        raise ValueError(f"{text!r}: expected INPUT or INPUT:OUTPUT, with neither left empty")
    return source, output


def expand_images(source: str | Path) -> list[Path]:
    """List the images that a file name, a folder or a glob such as `shots/*.jpg` stands for.

    Folders and globs yield files with an image suffix only, so a stray Thumbs.db does no harm.

    Args:
        source: folder, glob pattern, or one file, which is taken whatever its suffix.

    Returns:
        At least one path, in natural order (`2.jpg` before `10.jpg`).

    Raises:
        ValueError: there is no image.
    """
    path = Path(source).expanduser()
    found: Iterable[Path]
    if path.is_file():
        return [path]
    if path.is_dir():
        found, what = path.iterdir(), f"no image in folder {source}"
    elif _GLOB_CHARACTERS & set(str(path)):
        found, what = _glob(path), f"no image matches {source}"
    else:
        raise ValueError(f"no such file or folder: {source}")
    images = sorted((p for p in found if _is_image(p)), key=natural_key)
    if not images:
        raise ValueError(f"{what}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    return images


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that compares runs of digits as numbers: `2.jpg` comes before `10.jpg`."""
    pieces = re.split(r"(\d+)", str(path).lower())
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in pieces if p]


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")  # macOS leaves "._photo.jpg" beside photo.jpg
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file()


def _glob(pattern: Path) -> Iterator[Path]:
    return Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))


def _exists(text: str) -> bool:
    """Tell whether a path exists or a pattern matches anything; no text is too odd to ask."""
    try:
        path = Path(text).expanduser()
        if path.exists():
            return bool(text)
        return bool(_GLOB_CHARACTERS & set(text)) and any(True for _ in _glob(path))
    except (OSError, ValueError, RuntimeError):  # odd names, no home, no pattern of paths
        return False


def _separator(text: str) -> int | None:
    """Find the colon between input and output, if there is one."""
    head = URL_HEAD.match(text)
    colons = [m.start() for m in re.finditer(":", text)]
    known = [] if head else [cut for cut in colons if _exists(text[:cut])]
    if known:
        return known[-1]
    drives = {m.end() - 2 for m in _DRIVE.finditer(text)}
    colons = [cut for cut in colons if cut not in drives]
    if head is None:
        return colons[0] if colons else None
    # A time such as "?t=12:30" belongs to the address; an output always has a suffix.
    after = [cut for cut in colons if cut >= head.end()]
    return after[-1] if after and Path(text[after[-1] + 1 :]).suffix else None
