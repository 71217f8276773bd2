"""What is wrong with the images of a COCO-style dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from data.files import is_file
from data.images import MAX_PIXELS, read_image, read_image_hw
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


def check_images(entries: list[Any], folder: Path) -> tuple[dict[int, CheckedImage], list[Problem]]:
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
    for position, entry in enumerate(entries, start=1):
        where = f"entry {position} of 'images'"
        try:
            number, name, annotated_hw = _parsed(entry)
            where = name
            if number in images:
                raise Unusable("an image id that occurs twice", f"give it another than {number}")
            if annotated_hw is not None:
                images[number] = CheckedImage(name, annotated_hw)
            actual_hw = _read_hw(folder / name)
            images.setdefault(number, CheckedImage(name, actual_hw))
            if name in names:
                raise Unusable("an image that is listed twice", "join the two entries")
            names.add(name)
            if annotated_hw == actual_hw[::-1] and not _is_unrotated(folder / name, actual_hw):
                images[number] = CheckedImage(name, actual_hw)
                raise Unusable("an image with height and width swapped", "swap them in its entry")
            if annotated_hw is not None and sorted(annotated_hw) != sorted(actual_hw):
                raise _other_size(annotated_hw, actual_hw)
        except Unusable as error:
            problems.append(Problem(error.what, where, error.mend))
    return images, problems


def _parsed(entry: Any) -> tuple[int, str, tuple[int, int] | None]:
    """Return id, file name, and height and width if both are given."""
    if not isinstance(entry, dict) or type(entry.get("id")) is not int:
        raise Unusable("an image without a whole number as its id", "number it")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise Unusable("an image without a file_name", "name its file")
    if abs(entry["id"]) >= 2**63:
        raise Unusable("an image id that is too large", "give it one of at most 63 bits")
    height, width = entry.get("height"), entry.get("width")
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        return entry["id"], entry["file_name"], None
    if height * width > MAX_PIXELS:
        raise Unusable("an image of impossible size", "correct its height and width")
    return entry["id"], entry["file_name"], (height, width)


def _read_hw(path: Path) -> tuple[int, int]:
    if not is_file(path):
        raise Unusable("a missing image", f"put it into {path.parent}, or delete its entry")
    try:
        height, width = read_image_hw(path)
        if not _ends_well(path):
            read_image(path)
    except (ValueError, OSError):
        raise Unusable("an image that cannot be read", "replace the file, or delete it") from None
    if height * width > MAX_PIXELS:
        raise Unusable("an image that is too large", f"shrink it to {MAX_PIXELS:,} pixels")
    return height, width


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _END_LENGTH))
        return file.read().endswith(_ENDS)


def _is_unrotated(path: Path, actual_hw: tuple[int, int]) -> bool:
    """Tell whether an annotator who ignores the rotation noted in the file sees height as width."""
    height, width = actual_hw
    return height == width or read_image(path, (width, height)).shape[:2] == (width, height)


def _other_size(annotated_hw: tuple[int, int], actual_hw: tuple[int, int]) -> Unusable:
    (height, width), (other_height, other_width) = actual_hw, annotated_hw
    return Unusable(
        "an image of another size than annotated",
        f"it has {width} x {height} pixels, annotated are {other_width} x {other_height}: "
        "annotate this file, or put the annotated one in its place",
    )
