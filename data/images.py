"""Image files in, RGB arrays out: whatever the format, or one line saying why not."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageOps

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""

MAX_PIXELS = 178_000_000
"""Larger images are refused: they are mistakes or attacks, and would take gigabytes."""

_JPEG_END = b"\xff\xd9"
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap the sides
_ORIENTATION = 0x0112


def read_image(
    source: Path | str | bytes, annotated_hw: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Read an image file as RGB.

    Grayscale is repeated, transparency dropped, 16 bits scaled to 8, palettes and CMYK converted,
    and the rotation that a camera noted in EXIF is applied.

    Args:
        source: a path, or the bytes of a file.
        annotated_hw: height and width according to the annotations. If only the stored,
            unrotated pixels have them, the annotator did not rotate, and neither does this.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, is cut short, or has more than `MAX_PIXELS`.
    """
    name = "the given bytes" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else _content(Path(source))
    try:
        with PilImage.open(io.BytesIO(content)) as header:
            _check_size(header)
            rotate = _has_to_rotate(header, annotated_hw)
            if _is_plain_jpeg(header, content):
                return _decode_fast(content, rotate)
            return _decode_careful(header, rotate)
    except Exception as error:  # decoders of hostile bytes raise nearly every type there is
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason.startswith("cannot identify image file"):
            reason = "not a known image format" if content else "the file is empty"
        raise ValueError(f"cannot read {name} as an image: {reason}") from error


def read_image_hw(path: Path) -> tuple[int, int]:
    """Read height and width, after EXIF rotation, from the head of an image file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such image: {path}")
    try:
        with PilImage.open(path) as header:
            width, height = header.size
            swapped = header.getexif().get(_ORIENTATION) in _TRANSPOSED
    except Exception as error:
        raise ValueError(f"cannot read {path} as an image: not a known image format") from error
    return (width, height) if swapped else (height, width)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no such image: {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path} as an image: {error.strerror}") from error


def _check_size(header: PilImage.Image) -> None:
    if header.width * header.height > MAX_PIXELS:
        raise ValueError(f"{header.width} x {header.height} pixels exceed {MAX_PIXELS:,}")


def _has_to_rotate(header: PilImage.Image, annotated_hw: tuple[int, int] | None) -> bool:
    """Decide by the annotated size, where that tells the two ways apart."""
    if header.getexif().get(_ORIENTATION) not in _TRANSPOSED:
        return True  # a no-op, or a half turn or mirror image, which no size can reveal
    return header.width == header.height or annotated_hw != (header.height, header.width)


def _is_plain_jpeg(header: PilImage.Image, content: bytes) -> bool:
    """Tell whether OpenCV decodes it right; it would silently paint what is cut off in gray."""
    return header.format == "JPEG" and header.mode in ("RGB", "L") and content.endswith(_JPEG_END)


def _decode_fast(content: bytes, rotate: bool) -> NDArray[np.uint8]:
    flags = cv2.IMREAD_COLOR if rotate else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None:
        raise ValueError("broken JPEG data")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image).astype(np.uint8, copy=False)


def _decode_careful(image: PilImage.Image, rotate: bool) -> NDArray[np.uint8]:
    image.load()
    if rotate:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grayscale
        values = np.asarray(image).clip(0, 65535) / 257
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image)).clip(0, 255)
    else:
        return np.array(image.convert("RGB"))
    return np.repeat(np.round(values).astype(np.uint8)[..., None], 3, axis=2)
