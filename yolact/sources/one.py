"""One image, in any of the forms that Python programs use."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor

from data.files import is_url, without_password
from data.images import Image, from_pil, read_image

from .kinds import kind_of
from .listing import local_path
from .pixels import from_array, from_tensor
from .web import fetch

OneImage: TypeAlias = (
    str | os.PathLike[str] | NDArray[Any] | PilImage.Image | Tensor | bytes | bytearray
)
"""A path, an http(s) address, pixels, or the bytes of an encoded file."""

ACCEPTED = (
    "expected a path or http(s) address, a NumPy array, a PIL image, a tensor, the bytes of a "
    "file, a list of these, or many images: a folder, a pattern as in 'in/**/*.jpg', a video, the "
    "number of a camera, the address of a stream, an iterator"
)


class SourceImage(NamedTuple):
    """One image, and its source.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        source: path or address of the image; "" for an image in memory.
        is_file: whether the image can be read again from its path.
        seconds: time of a frame in its video.
    """

    image: Image
    source: str = ""
    is_file: bool = False
    seconds: float | None = None


def is_one(given: object) -> bool:
    """Tell whether something stands for one image, and not for many or nothing at all."""
    if isinstance(given, (str, os.PathLike)):
        return kind_of(given) == "image"
    return isinstance(
        given, (np.ndarray, PilImage.Image, Tensor, bytes, bytearray, memoryview, SourceImage)
    )


def read(given: object, max_pixels: int | None = None) -> SourceImage:
    """Read or convert one image.

    Args:
        given: see `OneImage`; files as by `read_image`, arrays and tensors as by `from_array` and
            `from_tensor`, but copied, Pillow's pictures turned upright as EXIF says; or a
            `SourceImage` already.
        max_pixels: of an encoded image, see `read_image`.

    Raises:
        OSError: it is not there, or cannot be fetched.
        ValueError: it is no image, or nothing that stands for one.
    """
    if isinstance(given, SourceImage):
        return given
    if isinstance(given, (str, os.PathLike)):
        return _read_named(os.fspath(given), max_pixels)
    if isinstance(given, np.ndarray):
        return SourceImage(_copied(from_array(given)))
    if isinstance(given, Tensor):
        return SourceImage(_copied(from_tensor(given)))
    if isinstance(given, PilImage.Image):
        return SourceImage(from_pil(given))
    if isinstance(given, (bytes, bytearray, memoryview)):
        return SourceImage(read_image(bytes(given), max_pixels=max_pixels))
    raise ValueError(refusal(given))


def refusal(given: object) -> str:
    """Say that something stands for no image, and what would."""
    is_short = given is None or isinstance(given, (int, float))
    return f"{repr(given) if is_short else type(given).__name__} is no image: {ACCEPTED}"


def _copied(image: Image) -> Image:
    """Copy a view of memory that its owner may use again."""
    return image if image.base is None else image.copy()


def _read_named(text: str, max_pixels: int | None) -> SourceImage:
    if is_url(text):
        content = fetch(text)
        try:
            return SourceImage(read_image(content, max_pixels=max_pixels), without_password(text))
        except ValueError as error:
            named = str(error).replace("the given bytes", without_password(text), 1)
            raise ValueError(named) from error
    path = local_path(text)
    return SourceImage(read_image(path, max_pixels=max_pixels), str(path), is_file=True)
