"""What a path or an address stands for: one image, many, or a video."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_url

from .listing import GLOB_CHARACTERS, local_path

Kind = Literal["image", "images", "video"]


def kind_of(source: str | os.PathLike[str], address: Kind = "image") -> Kind:
    """Tell what a path or an address stands for.

    Args:
        source: a path is judged by what is there, else by how it is written; digits that name no
            file are a camera.
        address: what a web address is whose suffix does not tell.
    """
    text = os.fspath(source)
    if is_url(text):
        return _kind_of_address(text, address)
    path = local_path(text)
    if path.is_dir():
        return "images"
    suffix = path.suffix.lower()
    if path.is_file():
        return "video" if suffix in VIDEO_SUFFIXES else "image"
    if GLOB_CHARACTERS & set(text):
        return "images"
    return "video" if text.isdecimal() or suffix in VIDEO_SUFFIXES else "image"


def _kind_of_address(url: str, otherwise: Kind) -> Kind:
    if not url.lower().startswith(("http:", "https:")):
        return "video"
    suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES:
        return "image" if suffix in IMAGE_SUFFIXES else "video"
    return otherwise
