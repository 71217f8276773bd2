"""Image files in, RGB arrays out: whatever the format, or one line saying why not."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageOps
from torch import Tensor

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""

MAX_PIXELS = 178_000_000
"""Larger images are refused: they are mistakes or attacks, and would take gigabytes."""

_LIMIT = threading.Lock()  # of Pillow's, while it is another one
_MEND = "to predict in tiles allow max_pixels="
_JPEG_END = b"\xff\xd9"
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap the sides
_ORIENTATION = 0x0112
_HEAD = 32  # bytes of a file that tell HEIF
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def read_image(
    source: Path | str | bytes,
    annotated_hw: tuple[int, int] | None = None,
    max_pixels: int | None = None,
) -> Image:
    """Read an image file as RGB.

    Grayscale is repeated, transparency dropped, 16 bits scaled to 8, palettes and CMYK converted,
    and the rotation that a camera noted in EXIF is applied. Of an animation the first frame is
    read. Floats are 0 to 255, or 0 to 1 where none is larger than 1.

    Args:
        source: a path, or the bytes of a file.
        annotated_hw: height and width according to the annotations. If only the stored,
            unrotated pixels have them, the annotator did not rotate, and neither does this.
        max_pixels: larger images are refused; None for `MAX_PIXELS`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, is cut short, or is too large.
    """
    name = "the given bytes" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else _content(Path(source))
    try:
        _prepare_for(content[:_HEAD])
        with _allowed(max_pixels), PilImage.open(io.BytesIO(content)) as header:
            _check_size(header, max_pixels)
            rotate = _has_to_rotate(header, annotated_hw)
            if _is_plain_jpeg(header, content):
                return _decode_fast(content, rotate)
            return _decode_careful(header, rotate)
    except Exception as error:  # decoders of hostile bytes raise nearly every type there is
        raise _refusal(name, error if content else ValueError("the file is empty")) from error


def read_image_hw(path: Path) -> tuple[int, int]:
    """Read height and width, after EXIF rotation, from the head of an image file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, or has more than `MAX_PIXELS`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such image: {path}")
    try:
        with path.open("rb") as file:
            _prepare_for(file.read(_HEAD))
        with PilImage.open(path) as header:
            _check_size(header)
            width, height = header.size
            swapped = header.getexif().get(_ORIENTATION) in _TRANSPOSED
    except Exception as error:  # as above
        raise _refusal(path, error) from error
    return (width, height) if swapped else (height, width)


def read_small(source: Path, side: int) -> Image:
    """Read an image file as RGB, a JPEG shrunk by up to eight, for a look at it.

    Args:
        source: a path.
        side: a JPEG is shrunk while both sides are at least this, in pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `read_image`.
    """
    content = _content(source)
    try:
        _prepare_for(content[:_HEAD])
        with PilImage.open(io.BytesIO(content)) as header:
            _check_size(header)
            header.draft(None, (side, side))
            return _decode_careful(header, rotate=True)
    except Exception as error:  # as above
        raise _refusal(source, error if content else ValueError("the file is empty")) from error


def from_pil(image: PilImage.Image) -> Image:
    """Convert a picture that Pillow opened or made, as `read_image` does a file.

    Raises:
        ValueError: its file is broken, or it has more than `MAX_PIXELS`, or none.
    """
    try:
        _check_size(image)
        return _decode_careful(image, rotate=True)
    except Exception as error:  # as above
        raise _refusal("the PIL image", error) from error


def to_tensor(image: Image) -> Tensor:
    """Copy an (H, W, 3) image to a contiguous (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.stack(cv2.split(image)))


def as_uint8(image: cv2.typing.MatLike) -> Image:
    """Narrow the type of an 8-bit array that OpenCV returned; nothing is copied."""
    return image.astype(np.uint8, copy=False)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no such image: {path}") from None
    except (OSError, ValueError) as error:  # a name with a zero byte
        raise _refusal(path, error) from error


def _refusal(name: Path | str, error: Exception) -> ValueError:
    """Say in one line why an image cannot be read."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    if reason.startswith("cannot identify image file"):
        reason = "not a known image format"
    if isinstance(error, PilImage.DecompressionBombError):
        reason = f"its pixels exceed {MAX_PIXELS:,}; {_MEND}..."
    return ValueError(f"cannot read {name} as an image: {reason or type(error).__name__}")


@contextmanager
def _allowed(max_pixels: int | None) -> Iterator[None]:
    """Raise Pillow's own limit, one for all threads, while an image is read; None leaves it."""
    if max_pixels is None:
        yield
        return
    with _LIMIT:
        usual = PilImage.MAX_IMAGE_PIXELS
        PilImage.MAX_IMAGE_PIXELS = usual and max(usual, max_pixels)
        try:
            yield
        finally:
            PilImage.MAX_IMAGE_PIXELS = usual


def _check_size(header: PilImage.Image, max_pixels: int | None = None) -> None:
    (width, height), most = header.size, MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > most:
        raise ValueError(f"{width} x {height} pixels exceed {most:,}; {_MEND}{width * height}")
    if not width * height:
        raise ValueError("it has no pixels")


def _prepare_for(head: bytes) -> None:
    """Teach Pillow to read HEIF, which needs one more library, when the first such file comes.

    Raises:
        ValueError: that is not installed.
    """
    is_heif = head[4:8] == b"ftyp" and head[8:12] in _HEIF and b"avif" not in head
    if is_heif and not _reads_heif():
        raise ValueError("HEIF needs a library: pip install pi-heif; or convert it to JPEG")


@cache
def _reads_heif() -> bool:
    """Register pi-heif, or pillow-heif, of which it is the part that reads; tell whether it is."""
    for name in ("pi_heif", "pillow_heif"):
        try:
            import_module(name).register_heif_opener()
        except ImportError:
            continue
        return True
    return False


def _has_to_rotate(header: PilImage.Image, annotated_hw: tuple[int, int] | None) -> bool:
    """Decide by the annotated size, where that tells the two ways apart."""
    if header.getexif().get(_ORIENTATION) not in _TRANSPOSED:
        return True  # a no-op, or a half turn or mirror image, which no size can reveal
    return header.width == header.height or annotated_hw != (header.height, header.width)


def _is_plain_jpeg(header: PilImage.Image, content: bytes) -> bool:
    """Tell whether OpenCV decodes it right; it would silently paint what is cut off in gray."""
    return header.format == "JPEG" and header.mode in ("RGB", "L") and content.endswith(_JPEG_END)


def _decode_fast(content: bytes, rotate: bool) -> Image:
    flags = cv2.IMREAD_COLOR if rotate else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None:
        raise ValueError("broken JPEG data")
    return as_uint8(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image))


def _decode_careful(image: PilImage.Image, rotate: bool) -> Image:
    image.load()
    if rotate:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grayscale
        values = np.asarray(image).clip(0, 65535) / 257
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image)).clip(0, 255)
        values = values * 255 if values.max() <= 1 else values
    else:
        return np.array(image.convert("RGB"))
    return np.repeat(np.round(values).astype(np.uint8)[..., None], 3, axis=2)
