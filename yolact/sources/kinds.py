"""What a path or an address stands for: one image, many, or a video."""

from __future__ import annotations

import os
from typing import Literal

from data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_url, url_path

from .listing import GLOB_CHARACTERS, local_path

Kind = Literal["image", "images", "video"]


def kind_of(source: str | os.PathLike[str], otherwise: Kind = "image") -> Kind:
    """Tell what a path or an address stands for.

    Args:
        source: a path is judged by what is there, else by how it is written; digits that name no
            file are a camera.
        otherwise: what a file or a web address is whose suffix does not tell.
    """
    text = os.fspath(source)
    if is_url(text):
        is_web = text.lower().startswith(("http:", "https:"))
        return _by_suffix(url_path(text).suffix.lower(), otherwise) if is_web else "video"
    path = local_path(text)
    is_file = path.is_file()
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
