"""Names for the pictures and videos to write, which never replace an input by mistake."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import cv2

from data.annotations.paths import shared_folder
from data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_numbered, is_url, url_stem
from data.video.formats import format_of
from data.video.writer import free_name
from yolact.files import as_file_name
from yolact.sources.listing import expand_images, local_path

from .inputs import parse_source

logger = logging.getLogger(__name__)

RESULTS = Path("results")
"""The folder for outputs without a name."""


def image_and_picture(
    text: str, has_display: Callable[[], bool], overwrite: bool = False
) -> tuple[str, Path | None]:
    """Split --image into the image to read and the picture to write, None for a window.

    Args:
        text: the flag's value.
        has_display: tells whether a window can be shown.
        overwrite: the picture may replace the image.

    Raises:
        ValueError: a picture cannot be written there, or would replace the image.
    """
    source, target = parse_source(text)
    default = RESULTS / f"{_stem(source) or 'image'}.png"
    picture = _output(target, source, default, has_display, overwrite)
    if picture is not None:
        check_picture(picture)
    return source, picture


def source_and_video(
    text: str, has_display: Callable[[], bool], overwrite: bool = False, resume: bool = False
) -> tuple[str, Path | None]:
    """Split --video into the source for `open_video` and the video to write, None for a window.

    Without a name from the user, the video replaces no existing one, unless it is resumed.

    Args:
        text: the flag's value.
        has_display: tells whether a window can be shown.
        overwrite: the video may replace its source.
        resume: continue the existing video.

    Raises:
        ValueError: a video cannot be written there, or would replace the source.
    """
    source, target = parse_source(text)
    default = RESULTS / f"{_stem(source) or 'video'}.mp4"
    free = default if overwrite or resume else free_name(default)
    video = _output(target, source, free, has_display, overwrite)
    if video is not None:
        format_of(video)
    if video == free != default:
        logger.info("%s is there already: the video is written as %s", default, free)
    return source, video


def images_and_pictures(
    text: str, writes_pictures: bool = True
) -> tuple[Path, list[tuple[str | Path, Path]]]:
    """Split --images into the folder of the results, and the images with a picture for each.

    A web address stands for one image.

    Pictures of an earlier run among the images are left out.

    Args:
        text: the flag's value.
        writes_pictures: False if the names of the pictures are only used to name other files.

    Raises:
        ValueError: there is no image, the pictures would be written among the images, or the output
            is not a folder.
    """
    source, target = parse_source(text)
    folder = local_path(target or RESULTS)
    _check_folder(folder)
    if is_url(source):
        return folder, [(source, folder / f"{_stem(source) or 'image'}.png")]
    images = expand_images(source)
    if not writes_pictures:
        return folder, list(zip(images, name_pictures(images, folder, False), strict=True))
    return folder, [*apart(source, images, folder, ".png", ("images", "pictures"))]


def apart(
    source: str,
    files: Sequence[Path],
    folder: Path,
    suffix: str,
    kinds: tuple[str, str],
    are_listed: bool = False,
) -> list[tuple[Path, Path]]:
    """Name a result for each file, in a separate folder.

    Results of an earlier run among the files found are left out.

    Args:
        source: the user's name of the files.
        files: existing files.
        folder: folder of the results.
        suffix: suffix of each result.
        kinds: names of files and results, for messages.
        are_listed: whether the user named each file.

    Raises:
        ValueError: results would be written among the files.
    """
    inputs, results = kinds
    earlier = [file for file in files if folder.resolve() in file.resolve().parents]
    if earlier and len(earlier) < len(files) and not are_listed:
        logger.info("left out: %d %s in %s, where the %s go", len(earlier), inputs, folder, results)
        files = [file for file in files if file not in set(earlier)]
    named = [picture.with_suffix(suffix) for picture in name_pictures(files, folder)]
    if {path.parent.resolve() for path in named} & {file.parent.resolve() for file in files}:
        raise ValueError(
            f"{folder}: the {results} would land among the {inputs}; name another folder, as in "
            f"{source}:{RESULTS}"
        )
    return list(zip(files, named, strict=True))


def name_pictures(images: Sequence[Path], folder: Path, are_written: bool = True) -> list[Path]:
    """Choose a PNG file for each image; log those that cannot have the name of their image.

    Args:
        images: existing files; the first of several with the same name keeps it.
        folder: folder of the pictures, none of which replaces an image. Its subfolders are those of
            the images below their common folder.
        are_written: False if they only name other files, and may equal the images' names.

    Returns:
        As many different files, always the same ones for the same images.

    Raises:
        ValueError: the images lie on different drives of Windows.
    """
    taken: set[str] = set()
    inputs = {_identity(image) for image in images if are_written} - {None}
    # Resolve "..", which would lead out of the folder.
    parents = [Path(os.path.normpath(image.absolute())).parent for image in images]
    shared = shared_folder(parents) if images else ""
    names: dict[Path, Iterator[str]] = {}  # what is taken stays so, and is not looked at again
    pictures = []
    for image, parent in zip(images, parents, strict=True):
        place = folder / parent.relative_to(shared)
        left = names.setdefault(parent / image.name, _names(image))
        free = (place / n for n in left if str(place / n).casefold() not in taken)
        picture = next(path for path in free if _identity(path) not in inputs)
        if picture.stem != image.stem:
            logger.warning("%s is written as %s, since its own name is taken", image, picture)
        taken.add(str(picture).casefold())
        pictures.append(picture)
    return pictures


def check_picture(path: Path) -> None:
    """Refuse the name of a picture whose suffix is not that of a known format.

    Raises:
        ValueError: the suffix is unknown.
    """
    suffix = path.suffix  # OpenCV crashes at half of a character
    if not suffix.isascii() or not cv2.haveImageWriter(f"picture{suffix}"):
        raise ValueError(f"cannot write {path}: expected a name that ends in .png or .jpg")


def _stem(source: str) -> str:
    """Return the stem for naming results: the last part of an address, the file, the folder."""
    if is_url(source):
        return as_file_name(url_stem(source)).strip("_")
    path = local_path(source)
    return "stdin" if source == "-" else path.parent.name if is_numbered(source) else path.stem


def _output(
    target: str | None,
    source: str,
    default: Path,
    has_display: Callable[[], bool],
    overwrite: bool,
) -> Path | None:
    """Return the user's target, or the default if there is none and no display.

    Raises:
        ValueError: a file cannot be written there, or it is the source itself.
    """
    file = local_path(source)
    if target is None:
        if has_display():
            return None
        names = (default, *(default.with_stem(f"{default.stem}_{n}") for n in (2, 3)))
        return next(path for path in names if overwrite or not _is_same_file(path, file))
    output = local_path(target)
    if output.is_dir():
        raise ValueError(f"{output} is a folder: name a file in it, as {output / default.name}")
    if _is_same_file(output, file) and not overwrite:
        raise ValueError(
            f"{output} would be replaced by its own result: name another output, or add --overwrite"
        )
    _check_parents(output)
    return output


def _check_folder(folder: Path) -> None:
    """Refuse a path that is not a folder, or is named like a file.

    Raises:
        ValueError: it is not a folder, or is named like a file.
    """
    named_like_a_file = folder.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    if folder.is_file() or (named_like_a_file and not folder.is_dir()):
        raise ValueError(f"{folder} names a file: --images writes into a folder")
    _check_parents(folder)


def _check_parents(path: Path) -> None:
    """Refuse a path below a file.

    Raises:
        ValueError: a parent is a file.
    """
    there = next((parent for parent in path.parents if parent.exists()), Path())
    if not there.is_dir():
        raise ValueError(f"cannot write {path}: {there} is a file, not a folder")


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
    """Return an identity that all names of a file share, including links; None without a file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
