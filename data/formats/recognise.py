"""Recognises the format of a folder of annotations, and finds its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from .convert import Converted
from .data_yaml import read_class_names, read_folders
from .labelme import read_labelme
from .via import read_via
from .yolo import read_yolo

Format = Literal["coco", "yolo", "labelme", "via"]

READERS: dict[Format, Callable[[Path, Path], Converted]] = {
    "yolo": read_yolo,
    "labelme": read_labelme,
    "via": read_via,
}
"""For each format but COCO's own: image folder, annotations -> content in COCO's form."""

EXPECTED = (
    "one JSON file of COCO or VIA, YOLO's data.yaml with images/ and labels/, or labelme files"
)

_NAMES = re.compile(rb"^(\xef\xbb\xbf)?names\s*:", re.MULTILINE)  # perhaps behind a byte order mark
_HEAD = 1 << 16  # bytes of a JSON file, enough to see which keys it has
_SUB_FOLDERS = ("", "annotations", "labels", "images")
_VAL = ("val", "valid", "validation")


class SplitPaths(NamedTuple):
    """The files of one split.

    Attributes:
        format: how to read it.
        images: folder of the images.
        annotations: a file, for labelme a folder.
    """

    format: Format
    images: Path
    annotations: Path


def recognise(folder: Path) -> tuple[SplitPaths | None, SplitPaths | None]:
    """Find the training and the validation split of a folder in any of the formats.

    They are in `train` and `val` (or `valid`), or where a YOLO file says. A folder without such
    folders serves as both.

    Returns:
        The two splits, None for what is not there.

    Raises:
        ValueError: there are several annotation files where one is expected, two formats, or a
            YOLO file that cannot be read.
    """
    names_file = _names_file(folder)
    if names_file is not None:
        return yolo_splits(names_file)
    train = _json_part(folder / "train")
    val = next(filter(None, (_json_part(folder / name) for name in _VAL)), None)
    if train is None and val is None:
        train = val = _json_part(folder)
    if train is None and val is None and _has_labels(folder):
        raise ValueError(f"{folder} has labels but no data.yaml that names their classes")
    if train and val and train.format != val.format:
        raise ValueError(f"{folder}: {train.format} for training but {val.format} for validation")
    return train, val


def yolo_splits(names_file: Path) -> tuple[SplitPaths | None, SplitPaths | None]:
    """Find the image folders of a YOLO dataset: those that its file names, else the usual ones.

    Raises:
        ValueError: the file cannot be read, or there are no images.
    """
    read_class_names(names_file)
    root = names_file.parent
    named = read_folders(names_file) if names_file.suffix != ".txt" else {}
    roots = [root / named.get("path", ""), root]
    train, val = (
        _first_folder(roots, [named[key]] if key in named else usual)
        for key, usual in (
            ("train", ("images/train", "train/images")),
            ("val", ("images/val", "images/valid", "val/images", "valid/images")),
        )
    )
    if train is None and val is None and not {"train", "val"} & named.keys():
        train = val = _first_folder(roots, ("images",))
    if train is None and val is None:
        listed = [named[key] for key in ("train", "val") if key in named]
        listed = listed or ["images/train", "train/images", "images"]
        raise ValueError(f"{names_file}: no such folder: {', '.join(listed)}")
    return (
        SplitPaths("yolo", train, names_file) if train else None,
        SplitPaths("yolo", val, names_file) if val else None,
    )


def format_of_json(file: Path) -> Format | None:
    """Guess whose JSON file this is by the keys in its first 64 KiB."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
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
    beside = annotation_file.parent
    split = annotation_file.stem.rpartition("_")[2]
    places = [split, f"images/{split}", "images"]
    folders = [beside / place for place in places]
    if beside.name == "annotations":
        above = [beside.parent / place for place in places]
        folders = [*above[:2], *folders, above[2]]
    return next((folder for folder in folders if folder.is_dir()), beside)


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
        return _NAMES.search(file.read_bytes()) is not None
    except OSError:
        return False


def _first_folder(roots: Iterable[Path], names: Iterable[str]) -> Path | None:
    """Find a folder under one of the roots, also if its path was written on another machine."""
    for name in names:
        parts = Path(name.replace("\\", "/")).parts
        for root in roots:
            for start in range(max(1, len(parts) - 1)):
                folder = root.joinpath(*parts[start:])
                if folder.is_dir():
                    return folder
    return None


def _json_part(folder: Path) -> SplitPaths | None:
    """Find one file of COCO or VIA, or a folder of labelme's."""
    for name in _SUB_FOLDERS:
        others: dict[Path, Format] = {}
        for file in sorted((folder / name).glob("*.json")):
            kind = format_of_json(file)
            if kind == "labelme":
                beside = folder / "images"
                images = beside if beside.is_dir() else folder / name
                return SplitPaths(kind, images, folder / name)
            if kind is not None:
                others[file] = kind
        if len(others) > 1:
            raise _several(list(others))
        for file, kind in others.items():
            return SplitPaths(kind, image_folder_of(file), file)
    return None


def _several(files: list[Path]) -> ValueError:
    names = ", ".join(file.name for file in files[:4])
    return ValueError(f"{files[0].parent} has several annotation files: {names}; name one of them")
