"""Image files in, RGB arrays out: whatever the format, or one line saying why not."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import UnidentifiedImageError
from torch import Tensor

from .bit_depth import to_8_bits
from .files import decode_text, open_file, read_bytes
from .problems import reason_of
from .tiff import decode_tiff, is_tiff, tiff_hw, warn_of_pages

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""

Picture = Image | Tensor
"""An image, or (H, W, 3) uint8 RGB that may be on a graphics card."""

MAX_PIXELS = 178_000_000
"""Larger images are refused: they are mistakes or attacks, and would take gigabytes."""

_BAND = 1 << 20  # pixels that are copied at a time
_LIMIT = threading.Lock()  # of Pillow's, while it is another one
_MEND = "to predict in tiles allow max_pixels="
_JPEG_END, _PNG = b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
_SCAN, _MOST_SCANS = re.compile(rb"\xff\xda\0[\x08\x0a\x0c\x0e]"), 200  # thousands take minutes
_ORIENTATION, _TRANSPOSED = 0x0112, (5, 6, 7, 8)  # EXIF's tag; those that swap the sides
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # by OpenCV's codes, after swapping the sides
_TURNS = dict(zip(range(2, 9), map(PilImage.Transpose, (0, 3, 1, 5, 4, 6, 2)), strict=True))
_FORMATS = ["JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF"]
_SLOW = 1 << 24  # pixels of a BMP in runs, which Pillow decodes in Python
_HEAD = 32  # bytes of a file that tell HEIF
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def read_image(
    source: Path | str | bytes,
    annotated_hw: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    least_side: int | None = None,
) -> Image:
    """Read an image file as RGB.

    Grayscale is repeated, transparency dropped, more than 8 bits scaled to 8 (`data.bit_depth`),
    palettes and CMYK converted, and the rotation that a camera noted in EXIF is applied. Of an
    animation or a TIFF of pages the first is read, of a labelme file the picture embedded in it.

    Args:
        source: a path, or the bytes of a file.
        annotated_hw: height and width according to the annotations. If only the stored,
            unrotated pixels have them, the annotator did not rotate, and neither does this.
        max_pixels: larger images are refused; None for `MAX_PIXELS`.
        least_side: for a look at it, a JPEG is shrunk by up to eight while both sides are at least
            this, in pixels.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, is cut short, or is too large.
    """
    name = "the given bytes" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else image_content(Path(source))
    try:
        _prepare_for(content[:_HEAD])
        with _allowed(max_pixels), _header(io.BytesIO(content)) as header:
            if header is None:
                return _decode_odd_tiff(content, max_pixels)
            _check_size(header.size, max_pixels)
            is_deep = _is_deep(header)  # which only a picture tells that is not decoded yet
            orientation = _orientation(header, annotated_hw)
            if least_side is not None:
                header.draft(None, (least_side, least_side))
            elif _is_plain_jpeg(header, content):
                return _decode_fast(content, orientation)
            return _decode_careful(header, orientation, content if is_deep else b"")
    except Exception as error:  # decoders of hostile bytes raise nearly every type there is
        raise _refusal(name, error if content else ValueError("the file is empty")) from error


class ImageHead(NamedTuple):
    """What the head of an image file tells.

    Attributes:
        image_hw: height and width after the rotation noted in EXIF.
        stored_hw: the same before it.
        is_deep: whether a channel has more than 8 bits.
    """

    image_hw: tuple[int, int]
    stored_hw: tuple[int, int]
    is_deep: bool


def read_head(path: Path) -> ImageHead:
    """Read the head of an image file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, or has more than `MAX_PIXELS`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such image: {path}")
    try:
        with _opened(path) as file:
            _prepare_for(file.read(_HEAD))
            has_exif = _has_exif_chunk(file)
            with _header(file) as header:
                if header is None:
                    return _odd_tiff_head(image_content(path))
                _check_size(header.size)
                width, height = header.size
                is_deep = _is_deep(header)
                # Pillow's own method for PNG decodes the whole picture to get there.
                exif = header.getexif() if has_exif else PilImage.Image.getexif(header)
                swapped = exif.get(_ORIENTATION) in _TRANSPOSED
    except Exception as error:  # as above
        raise _refusal(path, error) from error
    stored_hw = height, width
    return ImageHead(stored_hw[::-1] if swapped else stored_hw, stored_hw, is_deep)


def image_content(path: Path) -> bytes:
    """Return the bytes of an image file; of a labelme file, those of the picture embedded in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or there is no picture in it.
    """
    with _opened(path) as file:
        return file.read()


def from_pil(image: PilImage.Image) -> Image:
    """Convert a picture that Pillow opened or made, as `read_image` does a file.

    Raises:
        ValueError: its file is broken, or it has more than `MAX_PIXELS`, or none.
    """
    try:
        _check_size(image.size)
        return _decode_careful(image, _orientation(image))
    except Exception as error:  # as above
        raise _refusal("the PIL image", error) from error


def to_tensor(image: Image) -> Tensor:
    """Copy an (H, W, 3) image to a contiguous (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.stack(cv2.split(image)))


def as_uint8(image: cv2.typing.MatLike) -> Image:
    """Narrow the type of an 8-bit array that OpenCV returned; nothing is copied."""
    return image.astype(np.uint8, copy=False)


def is_embedded(path: Path) -> bool:
    """Tell whether an image is in labelme's file rather than in one of its own."""
    return path.suffix.lower() == ".json"


def format_suffix(path: Path) -> str:
    """Return the usual suffix of the format that an image file has, such as ".jpg".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an image.
    """
    content = image_content(path)
    try:
        with PilImage.open(io.BytesIO(content), formats=readable_formats()) as header:
            return {"JPEG": ".jpg"}.get(header.format or "", f".{header.format}".lower())
    except Exception as error:  # as above
        raise _refusal(path, error) from error


def _opened(path: Path) -> BinaryIO:
    """Open an image file, or the picture that is embedded in a labelme file."""
    try:
        if is_embedded(path):
            return io.BytesIO(_embedded(read_bytes(path)))
        return warn_of_pages(open_file(path), path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no such image: {path}") from None
    except (OSError, ValueError, RecursionError) as error:  # a name with a zero byte, deep JSON
        raise _refusal(path, error) from error


def _embedded(labels: bytes) -> bytes:
    content = json.loads(decode_text(labels)[0])
    picture = content.get("imageData") if isinstance(content, dict) else None
    if not isinstance(picture, str) or not picture:
        raise ValueError("there is no picture in it")
    return base64.b64decode(picture.rpartition(",")[2])  # perhaps an address of type data:


def _refusal(name: Path | str, error: Exception) -> ValueError:
    """Say in one line why an image cannot be read."""
    reason = reason_of(error)
    if reason.startswith("cannot identify image file"):
        reason = "not a known image format"
    if isinstance(error, PilImage.DecompressionBombError):
        reason = re.sub(r"\D*(\d+).*", rf"\1 pixels exceed {MAX_PIXELS:,}; {_MEND}\1", reason)
    return ValueError(f"cannot read {name} as an image: {reason}")


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


@contextmanager
def _header(file: BinaryIO) -> Iterator[PilImage.Image | None]:
    """Open an image file; None stands for a TIFF that Pillow does not know."""
    try:
        header = PilImage.open(file, formats=readable_formats())
    except UnidentifiedImageError:
        file.seek(0)
        if not is_tiff(file.read(_HEAD)):
            raise
        yield None
        return
    with header:
        if header.tile[:1] and header.tile[0][0] == "bmp_rle" and np.prod(header.size) > _SLOW:
            raise ValueError("a BMP in runs, of this size, takes too long: save it as PNG")
        content = file.getvalue() if isinstance(file, io.BytesIO) else b""  # nothing is copied
        if header.format in ("JPEG", "MPO") and len(_SCAN.findall(content)) > _MOST_SCANS:
            raise ValueError(f"it has more than {_MOST_SCANS} scans")
        yield header


def _odd_tiff_head(content: bytes) -> ImageHead:
    image_hw = tiff_hw(content)
    _check_size(image_hw[::-1])
    return ImageHead(image_hw, image_hw, is_deep=True)


def _decode_odd_tiff(content: bytes, max_pixels: int | None) -> Image:
    _check_size(tiff_hw(content)[::-1], max_pixels)
    scaled = to_8_bits(decode_tiff(content))
    return np.ascontiguousarray(scaled if scaled.ndim == 3 else np.dstack([scaled] * 3))


def _check_size(size: tuple[int, int], max_pixels: int | None = None) -> None:
    (width, height), most = size, MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > most:
        raise ValueError(f"{width} x {height} pixels exceed {most:,}; {_MEND}{width * height}")
    if min(size) < 1:
        raise ValueError("it has no pixels")


def _prepare_for(head: bytes) -> None:
    """Teach Pillow to read HEIF, which needs one more library, when the first such file comes.

    Raises:
        ValueError: that is not installed.
    """
    is_heif = head[4:8] == b"ftyp" and head[8:12] in _HEIF and b"avif" not in head
    if is_heif and not _reads_heif():
        raise ValueError("HEIF needs a library: pip install pi-heif; or convert it to JPEG")


def readable_formats() -> list[str]:
    """List the formats to look for: Pillow knows more, and starts a program for some of these."""
    PilImage.init()
    return [name for name in _FORMATS if name in PilImage.OPEN]


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


def _orientation(header: PilImage.Image, annotated_hw: tuple[int, int] | None = None) -> int:
    """Return how to turn the pixels, by EXIF, unless the annotated size tells that nobody did."""
    orientation, stored_hw = header.getexif().get(_ORIENTATION), (header.height, header.width)
    if orientation in _TRANSPOSED and annotated_hw == stored_hw != stored_hw[::-1]:
        return 1
    return orientation if orientation in _TURNS else 1


def _is_plain_jpeg(header: PilImage.Image, content: bytes) -> bool:
    """Tell whether OpenCV decodes it right; it would silently paint what is cut off in gray."""
    return header.format == "JPEG" and header.mode in ("RGB", "L") and content.endswith(_JPEG_END)


def _decode_fast(content: bytes, orientation: int) -> Image:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # OpenCV reads strange EXIF otherwise
    if (image := cv2.imdecode(np.frombuffer(content, np.uint8), flags)) is None:
        raise ValueError("broken JPEG data")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    if orientation in _TRANSPOSED:
        image = cv2.transpose(image)
    return as_uint8(cv2.flip(image, _FLIPS[orientation]) if orientation in _FLIPS else image)


def _has_exif_chunk(file: BinaryIO) -> bool:
    """Tell whether a PNG file has EXIF, which may be behind its pixels; rewind it."""
    file.seek(0)
    is_png, found = file.read(len(_PNG)) == _PNG, False
    while is_png and not found and len(chunk := file.read(8)) == 8:
        found = chunk[4:] == b"eXIf"
        file.seek(int.from_bytes(chunk[:4], "big") + 4, io.SEEK_CUR)
    file.seek(0)
    return found


def _is_deep(header: PilImage.Image) -> bool:
    """Tell whether a channel has more than 8 bits; of three, Pillow would keep the upper 8."""
    return header.mode[0] in "IF" or any(
        ";16" in str(tile[3]) for tile in getattr(header, "tile", ())
    )


def _decode_careful(image: PilImage.Image, orientation: int, deep_file: bytes = b"") -> Image:
    """Decode a picture; of a file with more than 8 bits a channel, which Pillow cuts, anew."""
    if image.mode[0] in "IF":
        image = PilImage.fromarray(to_8_bits(np.asarray(image)))
    elif deep_file:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        if (deep := cv2.imdecode(np.frombuffer(deep_file, np.uint8), flags)) is None:
            raise ValueError("broken image data")
        image = PilImage.fromarray(to_8_bits(deep)[..., ::-1])
    if orientation != 1:
        image = image.transpose(_TURNS[orientation])
    return _pixels_of(image if image.mode == "RGB" else image.convert("RGB"))


def _pixels_of(image: PilImage.Image) -> Image:
    """Copy an RGB picture in bands: Pillow's way copies a large one thrice, as a whole."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(_BAND // image.width, 1)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.asarray(band)
    return pixels
