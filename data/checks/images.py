"""Problems of the images of a COCO-style dataset."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from data.annotations.entries import parse_images
from data.files import is_file
from data.formats.convert import header_hw, unreadable
from data.images import Image, read_image
from data.problems import Problem, Unusable

_ENDS = (b"\xff\xd9", b"\x00IEND\xaeB`\x82")  # of JPEG and PNG files that are not cut short
_END_LENGTH = max(map(len, _ENDS))


class CheckedImage(NamedTuple):
    """An image that annotations may refer to.

    Attributes:
        file_name: relative to the image folder.
        image_hw: height and width in pixels, of the entry or else of the file.
    """

    file_name: str
    image_hw: tuple[int, int]


def check_images(
    entries: list[object], folder: Path
) -> tuple[dict[int, CheckedImage], list[Problem]]:
    """Look at the head and the end of every image file; decode those that look cut short.

    Args:
        entries: `images` of a COCO file, whatever they are.
        folder: where the image files are.

    Returns:
        The images whose size is known, by id, and the problems, at most one for each entry.
    """
    images: dict[int, CheckedImage] = {}
    problems: list[Problem] = []
    names: set[str] = set()
    for number, (name, stated_hw) in parse_images(entries, problems.append).items():
        if stated_hw is not None:
            images[number] = CheckedImage(name, stated_hw)
        try:
            actual_hw = _read_hw(folder / name)
            images.setdefault(number, CheckedImage(name, actual_hw))
            if name in names:
                raise Unusable("an image that is listed twice", "join the two entries")
            names.add(name)
            if stated_hw == actual_hw[::-1] and not _is_unrotated(folder / name, actual_hw):
                images[number] = CheckedImage(name, actual_hw)
                raise Unusable("an image with height and width swapped", "swap them in its entry")
            if stated_hw is not None and sorted(stated_hw) != sorted(actual_hw):
                raise _other_size(stated_hw, actual_hw)
        except Unusable as error:
            problems.append(Problem(error.what, name, error.mend))
    return images, problems


def _read_hw(path: Path) -> tuple[int, int]:
    if not is_file(path):
        raise Unusable("a missing image", f"put it into {path.parent}, or delete its entry")
    image_hw = header_hw(path)
    if not _ends_well(path):
        _decode(path)
    return image_hw


def _decode(path: Path, stated_hw: tuple[int, int] | None = None) -> Image:
    try:
        return read_image(path, stated_hw)
    except (ValueError, OSError):
        raise unreadable() from None


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _END_LENGTH))
        return file.read().endswith(_ENDS)


def _is_unrotated(path: Path, actual_hw: tuple[int, int]) -> bool:
    """Tell whether an annotator who ignores the rotation noted in the file sees height as width."""
    height, width = actual_hw
    return height == width or _decode(path, (width, height)).shape[:2] == (width, height)


def _other_size(stated_hw: tuple[int, int], actual_hw: tuple[int, int]) -> Unusable:
    (height, width), (other_height, other_width) = actual_hw, stated_hw
    return Unusable(
        "an image of another size than annotated",
        f"it has {width} x {height} pixels, annotated are {other_width} x {other_height}: "
        "annotate this file, or put the annotated one in its place",
    )
