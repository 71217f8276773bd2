"""The kind of a path or an address: one image, many, or a video."""

from __future__ import annotations

import os
from typing import Literal

from data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_numbered, is_url, url_path

from .listing import GLOB_CHARACTERS, local_path

Kind = Literal["image", "images", "video"]


def kind_of(source: str | os.PathLike[str], otherwise: Kind = "image") -> Kind:
    """Return the kind of a path or an address.

    Args:
        source: an existing path is judged by its file or folder, others by their spelling; digits
            that name no file are a camera, `-` is standard input.
        otherwise: the kind of a file or web address with another suffix.
    """
    text = os.fspath(source)
    if is_url(text):
        is_web = text.lower().startswith(("http:", "https:"))
        return _by_suffix(url_path(text).suffix.lower(), otherwise) if is_web else "video"
    path = local_path(text)
    is_file = path.is_file()
    if text in ("-", "/dev/stdin") or path.is_fifo() or path.is_char_device():
        return "video"
    if is_numbered(text) and not is_file:
        return "video"
    if path.is_dir() or not is_file and GLOB_CHARACTERS & set(text):
        return "images"
    if text.isdecimal() and not is_file:
        return "video"
    if not path.suffix:
        return "image" if is_file else "images"
    return _by_suffix(path.suffix.lower(), otherwise)


def _by_suffix(suffix: str, otherwise: Kind) -> Kind:
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else otherwise
