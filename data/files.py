"""Names and contents of files that may be anything: read and told apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TypeGuard

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif"),
    )
)

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".flv", ".mpg", ".mpeg", ".ogv"),
        *(".3gp", ".ts", ".mts", ".m2ts", ".mjpg", ".mjpeg", ".m3u8"),
    )
)

# scheme://[user:password@]host[:port]; a scheme has two letters or more, so that C:// is a drive.
URL_HEAD = re.compile(
    r"[a-z][a-z0-9+.-]+://"
    r"(?:[^/?#]*@)?"
    r"(?:\[[^\]]*\]|[^/:?#]*)"
    r"(?::\d+(?=[:/?#]|$))?",
    re.IGNORECASE,
)


def read_json(file: Path) -> object:
    """Read a JSON file.

    Raises:
        ValueError: it is none, or cannot be read; one line that names it.
    """
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error


def is_file(path: Path) -> bool:
    """Tell whether there is a file of a name that may be anything."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a JSON value is a number that a float can hold, so not NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -1e300 < value < 1e300


def is_positive(value: object) -> TypeGuard[int]:
    """Tell whether a JSON value is a whole number above 0."""
    return type(value) is int and value > 0


def is_url(text: str) -> bool:
    """Tell a stream or web address such as `rtsp://camera/live` from a path."""
    return URL_HEAD.match(text) is not None
