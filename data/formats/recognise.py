"""Recognises the format of a folder of annotations, and finds its files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from .convert import Converted
from .data_yaml import MAX_BYTES, read_class_names
from .labelme import read_labelme
from .splits import (
    SplitName,
    annotation_places,
    images_beside,
    split_of,
)
from .via import read_via
from .yolo import read_yolo
from .yolo_files import common_folder, find_places

Format = Literal["coco", "yolo", "labelme", "via"]

READERS: dict[Format, Callable[..., Converted]] = {
    "yolo": read_yolo,
    "labelme": read_labelme,
    "via": read_via,
}
"""For each format but COCO's own: image folder, annotations, and the part where there are parts."""

EXPECTED = (
    "one JSON file of COCO or VIA, YOLO's data.yaml with images/ and labels/, or labelme files"
)

_NAMES = re.compile(rb"^(\xef\xbb\xbf)?names\s*:", re.MULTILINE)  # perhaps behind a byte order mark
_HEAD = 1 << 16  # bytes of a JSON file, enough to see which keys it has
_COCO_NAME = re.compile(r"annotations|instances", re.IGNORECASE)


class SplitPaths(NamedTuple):
    """The files of one split.

    Attributes:
        format: how to read it.
        images: folder of the images.
        annotations: a file, for labelme a folder.
        part: which of the splits that one file describes; "" for all of it.
    """

    format: Format
    images: Path
    annotations: Path
    part: str = ""


def recognise(folder: Path) -> tuple[SplitPaths | None, SplitPaths | None]:
    """Find the training and the validation split of a folder in any of the formats.

    Files and folders are named after their split, as `data.formats.splits` spells it, or a YOLO
    file says where they are. A folder where nothing is named so serves as both.

    Returns:
        The two splits, None for what is not there.

    Raises:
        ValueError: there are several annotation files where one is expected, two formats, or a
            YOLO file that cannot be read; or the only split is one to test on.
    """
    names_file = _names_file(folder)
    if names_file is not None:
        return yolo_splits(names_file)
    found = _json_parts(folder)
    train, val = _only(found.get("train")), _only(found.get("val"))
    if train is None and val is None:
        train = val = _only(found.get(None))
    if train is None and val is None and _has_labels(folder):
        raise ValueError(f"{folder} has labels but no data.yaml that names their classes")
    if train is None and val is None and "test" in found:
        test = found["test"][0].annotations
        raise ValueError(f"{folder} has a test split alone: give {test} to take it for what it is")
    if train and val and train.format != val.format:
        raise ValueError(f"{folder}: {train.format} for training but {val.format} for validation")
    return train, val


def read_split(split: SplitPaths) -> Converted:
    """Read a split of any format but COCO's own.

    Raises:
        ValueError: it cannot be read, or nothing can be used.
    """
    return READERS[split.format](split.images, split.annotations, *filter(None, [split.part]))


def yolo_splits(names_file: Path) -> tuple[SplitPaths | None, SplitPaths | None]:
    """Find the images of a YOLO dataset: in the folders that its file names, else the usual ones.

    Raises:
        ValueError: the file cannot be read, or a folder is not there.
    """
    read_class_names(names_file)
    splits: dict[str, SplitPaths] = {}
    for name, places in find_places(names_file).items():
        if len(places) == 1 and places[0].is_dir():
            splits[name] = SplitPaths("yolo", places[0], names_file)
        else:
            splits[name] = SplitPaths("yolo", common_folder(names_file, places), names_file, name)
    return splits.get("train"), splits.get("val")


def format_of_json(file: Path) -> Format | None:
    """Guess whose JSON file this is by the keys in its first 64 KiB."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD).replace(b"\0", b"")  # as UTF-16 has them
    except OSError:
        return None
    keys = set(re.findall(rb'"(\w{4,18})"\s*:', head))
    if keys & {b"_via_settings", b"_via_img_metadata"} or {b"filename", b"regions"} <= keys:
        return "via"
    if keys & {b"images", b"annotations", b"categories"}:
        return "coco"
    return "labelme" if keys & {b"shapes", b"imagePath", b"imageData"} else None


def image_folder_of(annotation_file: Path) -> Path:
    """Guess the image folder: named like the split, else `images`, else where the file is."""
    name = annotation_file.stem
    return images_beside(annotation_file.parent, name.rpartition("_")[2], split_of(name))


def _names_file(folder: Path) -> Path | None:
    """Find the file with the names of YOLO's classes."""
    files = [file for file in sorted(folder.glob("*.y*ml")) if _names_classes(file)]
    if len(files) > 1 and folder / "data.yaml" not in files:
        raise _several(files)
    if files:
        return folder / "data.yaml" if folder / "data.yaml" in files else files[0]
    classes = folder / "classes.txt"
    return classes if classes.is_file() and _has_labels(folder) else None


def _has_labels(folder: Path) -> bool:
    return next((folder / "labels").rglob("*.txt"), None) is not None


def _names_classes(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return _NAMES.search(stream.read(MAX_BYTES)) is not None
    except OSError:
        return False


def _json_parts(folder: Path) -> dict[SplitName | None, list[SplitPaths]]:
    """Find files of COCO and VIA and folders of labelme's by their split, None for no split.

    Of each split, all that is in the likeliest place.
    """
    found: dict[SplitName | None, list[SplitPaths]] = {}
    for place, split in annotation_places(folder):
        here: dict[SplitName | None, list[SplitPaths]] = {}
        for file in sorted(place.glob("*.json")):
            kind = format_of_json(file) or ("coco" if _COCO_NAME.search(file.stem) else None)
            if kind == "labelme":
                images = images_beside(place, "images", split)
                here = {split: [SplitPaths(kind, images, place)]}
                break
            if kind is not None:
                part = SplitPaths(kind, image_folder_of(file), file)
                here.setdefault(_agreed(split_of(file.stem), split, file), []).append(part)
        for name, parts in here.items():
            found.setdefault(name, parts)
    return found


def _agreed(own: SplitName | None, folder: SplitName | None, file: Path) -> SplitName | None:
    if own and folder and own != folder:
        raise ValueError(f"{file}: named after {own!r}, but in a folder named after {folder!r}")
    return own or folder


def _only(parts: list[SplitPaths] | None) -> SplitPaths | None:
    """Return the only part, or the only one of COCO's instances beside its captions and others."""
    if parts and len(parts) > 1:
        instances = [part for part in parts if "instances" in part.annotations.stem.lower()]
        parts = instances if len(instances) == 1 else parts
        if len(parts) > 1:
            raise _several([part.annotations for part in parts])
    return parts[0] if parts else None


def _several(files: list[Path]) -> ValueError:
    names = ", ".join(file.name for file in files[:4])
    return ValueError(f"{files[0].parent} has several annotation files: {names}; name one of them")
