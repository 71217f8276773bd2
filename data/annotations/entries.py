"""Classes and images of a COCO file, checked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from data.classes import Categories
from data.images import MAX_PIXELS, read_image_hw

from .table import ImageTable, Ragged

_logger = logging.getLogger(__name__)

MAX_ID = 2**63 - 1
"""The largest identifier that fits into a table."""


def entries_of(content: dict[str, Any], key: str) -> list[Any]:
    """Return a list of the file.

    Raises:
        ValueError: there is none.
    """
    entries = content.get(key)
    if not isinstance(entries, list):
        raise ValueError(f"expected a list {key!r}, found {', '.join(content) or 'nothing'}")
    return entries


def checked_categories(
    content: dict[str, Any], wanted: Categories | None
) -> tuple[Categories, dict[int, int]]:
    """Return the classes, and the label of each category id in the file.

    Raises:
        ValueError: there are none, or none that is wanted.
    """
    if wanted is not None and "categories" not in content:
        return wanted, wanted.label_of
    own = Categories.from_coco_json(entries_of(content, "categories"))
    return (own, own.label_of) if wanted is None else _matched(own, wanted)


def _matched(own: Categories, wanted: Categories) -> tuple[Categories, dict[int, int]]:
    """Label the file's classes like the model's, and say so if that is a guess."""
    matched, label_of = own.matched_to(wanted)
    if len(own) and not label_of:
        raise ValueError(f"none of its classes is known to the model: {', '.join(own.names)}")
    if not {name.lower() for name in own.names} & {name.lower() for name in wanted.names}:
        _logger.warning("no class name agrees with the model's: classes are matched by id")
    return matched, label_of


def checked_images(entries: list[Any], folder: Path) -> ImageTable:
    """Check that every image has a distinct id, a file, and a size.

    Raises:
        FileNotFoundError: the folder or an image is missing.
        ValueError: an entry is not what was expected.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such image folder: {folder}")
    images: dict[int, tuple[str, int, int]] = {}
    listed = {path.name for path in folder.iterdir()}
    missing = []
    for entry in entries:
        number, name, height, width = _checked_image(entry)
        if number in images:
            raise ValueError(f"image id {number} occurs twice")
        if name not in listed and not (folder / name).is_file():
            missing.append(name)
        elif not height:
            height, width = read_image_hw(folder / name)
        images[number] = name, height, width
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(entries)} images are not in {folder}, such as {missing[0]}"
        )
    return ImageTable(
        ids=np.array(list(images), np.int64),
        sizes=np.array([image[1:] for image in images.values()], np.int64).reshape(-1, 2),
        file_names=Ragged.of_texts([image[0] for image in images.values()]),
    )


def _checked_image(entry: Any) -> tuple[int, str, int, int]:
    """Return id, file name, height and width, these two being 0 if one is missing."""
    if not isinstance(entry, dict) or type(entry.get("id")) is not int:
        raise ValueError(f"an image needs a whole number as its 'id': {entry!r:.80}")
    if not -MAX_ID <= entry["id"] <= MAX_ID:
        raise ValueError(f"an image needs an 'id' of at most 63 bits: {entry!r:.80}")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise ValueError(f"image {entry['id']} needs a text as its 'file_name'")
    height, width = entry.get("height"), entry.get("width")
    if not (is_positive(height) and is_positive(width)):
        height = width = 0
    if height * width > MAX_PIXELS:
        raise ValueError(f"image {entry['id']} is too large: {width} x {height}")
    return entry["id"], entry["file_name"], height, width


def is_positive(value: Any) -> TypeGuard[int]:
    """Tell whether this is a whole number above 0."""
    return type(value) is int and value > 0
