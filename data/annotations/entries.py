"""The parts of a COCO file, checked: its lists, classes and images.

What is wrong with an image is told to a `Report`: training refuses the file, the checker goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from data.classes import Categories
from data.files import is_file, is_positive, read_json
from data.images import MAX_PIXELS, read_image_hw
from data.problems import Problem, Unusable

from .table import ImageTable

_logger = logging.getLogger(__name__)

MAX_ID = 2**63 - 1
"""The largest identifier that fits into a table."""

Report = Callable[[Problem], object]


class ImageEntry(NamedTuple):
    """An image of a COCO file.

    Attributes:
        file_name: relative to the image folder.
        image_hw: height and width in pixels, None if not both are given.
    """

    file_name: str
    image_hw: tuple[int, int] | None


def read_content(file: Path) -> dict[str, object]:
    """Read a COCO file without a look at its lists.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a JSON file with an object.
    """
    if not file.exists():
        raise FileNotFoundError(f"no such annotation file: {file}")
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(
            f"{file}: expected an object with 'images', 'annotations' and 'categories', "
            f"found a {type(content).__name__}"
        )
    return content


def entries_of(content: Mapping[str, object], key: str) -> list[object]:
    """Return a list of the file.

    Raises:
        ValueError: there is none.
    """
    entries = content.get(key)
    if not isinstance(entries, list):
        raise ValueError(f"expected a list {key!r}, found {', '.join(content) or 'nothing'}")
    return entries


def read_categories(
    content: Mapping[str, object], wanted: Categories | None
) -> tuple[Categories, dict[int, int]]:
    """Return the classes, and the label of each category id in the file.

    Args:
        content: of the file.
        wanted: the classes of a trained model, whose labels are taken over.

    Raises:
        ValueError: there are none, or none that is wanted.
    """
    if wanted is not None and "categories" not in content:
        return wanted, wanted.label_of
    own = Categories.from_coco_json(entries_of(content, "categories"))
    return (own, own.label_of) if wanted is None else _matched(own, wanted)


def _matched(own: Categories, wanted: Categories) -> tuple[Categories, dict[int, int]]:
    matched, label_of = own.matched_to(wanted)
    if len(own) and not label_of:
        raise ValueError(f"none of its classes is known to the model: {', '.join(own.names)}")
    if not {name.lower() for name in own.names} & {name.lower() for name in wanted.names}:
        _logger.warning("no class name agrees with the model's: classes are matched by id")
    return matched, label_of


def parse_images(entries: list[object], report: Report) -> dict[int, ImageEntry]:
    """Return the images by id, but for entries with a problem, which are reported."""
    images: dict[int, ImageEntry] = {}
    for position, entry in enumerate(entries, start=1):
        try:
            number, image = _parsed(entry)
            if number in images:
                raise Unusable("an image id that occurs twice", f"give it another than {number}")
            images[number] = image
        except Unusable as error:
            report(Problem(error.what, f"entry {position} of 'images'", error.mend))
    return images


def read_images(entries: list[object], folder: Path) -> ImageTable:
    """Read the images of a dataset to train on; a size that is missing is that of the file.

    Raises:
        FileNotFoundError: the folder or an image is missing.
        ValueError: an entry has a problem.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such image folder: {folder}")
    images = parse_images(entries, _refuse)
    listed = {path.name for path in folder.iterdir()}  # faster than to ask for each
    names = [image.file_name for image in images.values()]
    missing = [name for name in names if name not in listed and not is_file(folder / name)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(entries)} images are not in {folder}, "
            f"such as {missing[0]:.300}"
        )
    sizes = [image.image_hw or read_image_hw(folder / image.file_name) for image in images.values()]
    return ImageTable.of(list(images), sizes, names)


def stated_hw(
    entry: Mapping[str, object], height_key: str = "height", width_key: str = "width"
) -> tuple[int, int] | None:
    """Return the size that a file states for an image, None if it does not.

    Raises:
        Unusable: no image is as large.
    """
    height, width = entry.get(height_key), entry.get(width_key)
    if not (is_positive(height) and is_positive(width)):
        return None
    if height * width > MAX_PIXELS:
        raise Unusable(
            "an image of impossible size", f"correct its {height_key!r} and {width_key!r}"
        )
    return height, width


def _refuse(problem: Problem) -> None:
    raise ValueError(str(problem))


def _parsed(entry: object) -> tuple[int, ImageEntry]:
    """Return the id and the rest of an entry."""
    if not isinstance(entry, dict) or type(entry.get("id")) is not int:
        raise Unusable("an image without a whole number as its 'id'", "number it")
    if abs(entry["id"]) > MAX_ID:
        raise Unusable("an image 'id' that is too large", "give it one of at most 63 bits")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise Unusable("an image without a 'file_name'", "name its file")
    image_hw = stated_hw(entry)
    return entry["id"], ImageEntry(entry["file_name"], image_hw)
