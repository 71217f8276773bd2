"""Names of the pictures and videos to write, never that of an input."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import cv2

from data.images import Image
from data.video.writer import check_suffix

from .inputs import parse_source

logger = logging.getLogger(__name__)

RESULTS = Path("results")
"""The folder for what nobody named."""


def image_and_picture(text: str, has_display: Callable[[], bool]) -> tuple[Path, Path | None]:
    """Split --image into the image to read and the picture to write, None for a window.

    Raises:
        ValueError: a picture cannot be written there, or would replace the image.
    """
    source, target = parse_source(text)
    image = Path(source).expanduser()
    picture = _output(target, image, RESULTS / f"{image.stem}.png", has_display)
    if picture is not None:
        check_picture(picture)
    return image, picture


def source_and_video(text: str, has_display: Callable[[], bool]) -> tuple[str, Path | None]:
    """Split --video into a file, camera or stream and the video to write, None for a window.

    Raises:
        ValueError: a video cannot be written there, or would replace the source.
    """
    source, target = parse_source(text)
    file = Path(source).expanduser()
    video = _output(target, file, RESULTS / f"{Path(source).stem}.mp4", has_display)
    if video is not None:
        check_suffix(video)
    return source, video


def name_pictures(images: Sequence[Path], folder: Path) -> list[Path]:
    """Choose a PNG file for each image; what cannot have the name of its image is told.

    Args:
        images: existing files; the first of a name keeps it.
        folder: of the pictures, none of which replaces an image.

    Returns:
        As many different files, always the same ones for the same images.
    """
    taken: set[str] = set()
    inputs = {_identity(image) for image in images} - {None}
    pictures = []
    for image in images:
        names = (name for name in _names(image) if name.casefold() not in taken)
        picture = next(folder / name for name in names if _identity(folder / name) not in inputs)
        if picture.stem != image.stem:
            logger.warning("%s is written as %s, since its own name is taken", image, picture)
        taken.add(picture.name.casefold())
        pictures.append(picture)
    return pictures


def check_picture(path: Path) -> None:
    """Refuse the name of a picture whose suffix names no format.

    Raises:
        ValueError: so it is.
    """
    if not cv2.haveImageWriter(str(path)):
        raise ValueError(f"cannot write {path}: expected a name that ends in .png or .jpg")


def write_image(path: Path, picture: Image) -> Path:
    """Write a picture; the suffix tells the format.

    Raises:
        ValueError: no such format, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    try:
        written = cv2.imwrite(str(path), bgr)
    except cv2.error:
        written = False
    if not written:
        raise ValueError(
            f"cannot write {path}: expected a folder that can be written, and .png or .jpg"
        )
    return path


def _output(
    target: str | None, source: Path, default: Path, has_display: Callable[[], bool]
) -> Path | None:
    """Return what the user named, or without a display the default; never the source itself."""
    if target is None:
        if has_display():
            return None
        names = (default, *(default.with_stem(f"{default.stem}_{n}") for n in (2, 3)))
        return next(path for path in names if not _is_same_file(path, source))
    output = Path(target).expanduser()
    if _is_same_file(output, source):
        raise ValueError(f"{output} would be replaced by its own result: name another output")
    return output


def _names(image: Path) -> Iterator[str]:
    """Yield a.png for a.jpg, then a_jpg.png, a_jpg_2.png and so on."""
    yield f"{image.stem}.png"
    full = image.name.replace(".", "_")
    yield f"{full}.png"
    yield from (f"{full}_{number}.png" for number in count(2))


def _is_same_file(path: Path, other: Path) -> bool:
    found = _identity(path)
    return found is not None and found == _identity(other)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what all names of one file have in common, links included; None without a file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
