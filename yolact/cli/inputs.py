"""An input and its output, as a user types them."""

from __future__ import annotations

import re
from pathlib import Path

from data.files import IMAGE_SUFFIXES, URL_HEAD, VIDEO_SUFFIXES, is_url, without_password
from yolact.sources.listing import GLOB_CHARACTERS, glob, local_path

_DRIVE = re.compile(r"(?:^|:)[a-z]:[\\/]", re.IGNORECASE)


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
        shown = without_password(text)
        raise ValueError(f"{shown!r}: expected INPUT or INPUT:OUTPUT, with neither left empty")
    return source, output


def _exists(text: str) -> bool:
    """Tell whether a path exists or a pattern matches anything; no text is too odd to ask."""
    try:
        path = local_path(text)
        if path.exists():
            return bool(text)
        return bool(GLOB_CHARACTERS & set(text)) and any(True for _ in glob(path))
    except (OSError, ValueError):  # odd names, no pattern of paths
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
    # A time such as "?t=12:30" belongs to the address: an output has a suffix, or follows one.
    after = [cut for cut in colons if cut >= head.end()]
    is_output = after and (
        Path(text[after[-1] + 1 :]).suffix
        or Path(text[: after[-1]]).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    )
    return after[-1] if is_output else None
