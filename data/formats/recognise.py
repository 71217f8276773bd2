"""Recognises the format of a folder of annotations, and finds its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from data.files import open_file
from data.formats.label_maps.find import label_map_splits
from data.formats.label_maps.numbered import read_numbered
from data.formats.label_maps.panoptic import read_panoptic
from data.formats.label_maps.pngs import read_pngs
from data.formats.label_maps.voc import read_voc

from .builder import ConversionResult
from .cvat import cvat_files, is_cvat, read_cvat, subsets
from .data_yaml import MAX_BYTES, read_class_names
from .label_studio import read_label_studio
from .labelme import json_files_below, read_labelme
from .sam import read_sam
from .splits import Format, SplitName, SplitPaths, annotation_places, images_beside, split_of
from .via import read_via
from .yolo import read_yolo
from .yolo_files import common_folder, find_places

READERS: dict[Format, Callable[..., ConversionResult]] = {
    "yolo": read_yolo,
    "labelme": read_labelme,
    "via": read_via,
    "cvat": read_cvat,
    "label_studio": read_label_studio,
    "sam": read_sam,
    "panoptic": read_panoptic,
    "voc": read_voc,
    "numbered": read_numbered,
    "pngs": read_pngs,
}
"""For each format but COCO's own: image folder, annotations, and the part where there are parts."""

OF_ONE_IMAGE = ("labelme", "sam")
"""Formats with a file for each image, so that a folder is a split."""

EXPECTED = (
    "one JSON file of COCO (also panoptic), VIA or Label Studio, CVAT's XML, YOLO's data.yaml with "
    "images/ and labels/, files of labelme or SA-1B, VOC's SegmentationObject, images/ and masks/ "
    "of numbered objects with the same names, or a PNG for each object in a folder for each image"
)

_NAMES = re.compile(rb"^(\xef\xbb\xbf)?names\s*:", re.MULTILINE)  # perhaps behind a byte order mark
_HEAD = 1 << 16  # bytes of a JSON file, enough to see which keys it has
_LABEL_STUDIO = {
    *(b"original_width", b"polygonlabels", b"brushlabels", b"annotation_id", b"completed_by"),
    *(b"file_upload", b"was_cancelled", b"completions"),
}
_SAM = re.compile(rb'"image"\s*:\s*\{')
_LOOKED_AT = 9  # JSON files that tell whether a folder is labelme's
_COCO_NAME = re.compile(r"annotations|instances", re.IGNORECASE)


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
    found = _annotation_parts(folder)
    train, val = _only(found.get("train")), _only(found.get("val"))
    if train is None and val is None:
        train = val = _only(found.get(None))
    if train is None and val is None:
        train, val = label_map_splits(folder)
    if train is None and val is None and (tasks := cvat_files(folder, 2)):
        train = val = SplitPaths("cvat", folder, folder if len(tasks) > 1 else tasks[0])
    if train is None and val is None and _has_labels(folder):
        raise ValueError(f"{folder} has labels but no data.yaml that names their classes")
    if train is None and val is None and "test" in found:
        test = found["test"][0].annotations
        raise ValueError(f"{folder} has a test split alone: give {test} to take it for what it is")
    if train and val and train.format != val.format:
        raise ValueError(f"{folder}: {train.format} for training but {val.format} for validation")
    return train, val


def read_split(split: SplitPaths) -> ConversionResult:
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
    """Guess whose JSON file this is by the keys at its beginning and its end."""
    try:
        with open_file(file) as stream:
            head = stream.read(_HEAD).replace(b"\0", b"")  # as UTF-16 has them
            stream.seek(max(0, file.stat().st_size - _HEAD))
            tail = stream.read()
    except OSError:
        return None
    keys = set(re.findall(rb'"(\w{4,18})"\s*:', head))
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        return "label_studio" if keys & _LABEL_STUDIO else None
    if keys & {b"_via_settings", b"_via_img_metadata"} or {b"filename", b"regions"} <= keys:
        return "via"
    if b'"segments_info"' in head + tail:
        return "panoptic"
    if b"images" not in keys and _SAM.search(head):
        return "sam"
    if keys & {b"images", b"annotations", b"categories"}:
        return "coco"
    return "labelme" if keys & {b"shapes", b"imagePath", b"imageData"} else None


def image_folder_of(annotation_file: Path, kind: Format) -> Path:
    """Guess the image folder: named like the split, else `images`, else where the file is.

    What is called like a panoptic file that names no split holds its masks.
    """
    name = annotation_file.stem
    split = split_of(name)
    last = "images" if kind == "panoptic" and split is None else name.rpartition("_")[2]
    return images_beside(annotation_file.parent, last, split)


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
        with open_file(file) as stream:
            return _NAMES.search(stream.read(MAX_BYTES)) is not None
    except OSError:
        return False


def _annotation_parts(folder: Path) -> dict[SplitName | None, list[SplitPaths]]:
    """Find files of annotations, and folders of such, by their split, None for no split.

    Of each split, all that is in the likeliest place.
    """
    found: dict[SplitName | None, list[SplitPaths]] = {}
    for place, split in annotation_places(folder):
        for name, parts in (_json_parts(place, split) or _xml_parts(place, split)).items():
            found.setdefault(name, parts)
    return found | _deeper_parts(folder, found)


def _deeper_parts(
    folder: Path, found: Collection[SplitName | None]
) -> dict[SplitName | None, list[SplitPaths]]:
    """Find labelme's files of splits that were not found, if all of them are in sub-folders."""
    deeper: dict[SplitName | None, list[SplitPaths]] = {}
    named = [(place, split) for place, split in annotation_places(folder) if split]
    for place, split in [*named, (folder, None)]:
        if split in (*found, *deeper, "test") or (split is None and (found or deeper)):
            continue
        if any(format_of_json(file) == "labelme" for file in json_files_below(place)[:_LOOKED_AT]):
            parts = [SplitPaths("labelme", images_beside(place, "images", split), place)]
            deeper[split] = parts
    return deeper


def _json_parts(place: Path, split: SplitName | None) -> dict[SplitName | None, list[SplitPaths]]:
    here: dict[SplitName | None, list[SplitPaths]] = {}
    for file in sorted(place.glob("*.json")):
        kind = format_of_json(file) or ("coco" if _COCO_NAME.search(file.stem) else None)
        if kind in OF_ONE_IMAGE:
            return {split: [SplitPaths(kind, images_beside(place, "images", split), place)]}
        if kind is not None:
            part = SplitPaths(kind, image_folder_of(file, kind), file)
            here.setdefault(_agreed(split_of(file.stem), split, file), []).append(part)
    return here


def _xml_parts(place: Path, split: SplitName | None) -> dict[SplitName | None, list[SplitPaths]]:
    """Find CVAT's files: one of a task or project, or those of several tasks."""
    files = [file for file in sorted(place.glob("*.xml")) if is_cvat(file)]
    named = {split_of(file.stem) for file in files}
    if len(files) > 1 and named == {None}:
        return {split: [SplitPaths("cvat", images_beside(place, "images", split), place)]}
    here: dict[SplitName | None, list[SplitPaths]] = {}
    for file in files:
        for name, part in cvat_splits(file).items():
            here.setdefault(name or _agreed(split_of(file.stem), split, file), []).append(part)
    return here


def cvat_splits(file: Path) -> dict[SplitName | None, SplitPaths]:
    """Return the splits that the subsets of a project are named after; None is the key of all."""
    images = image_folder_of(file, "cvat")
    splits = {split_of(name) for name in subsets(file)} & {"train", "val", "test"}
    if splits <= {"train"} or "train" not in splits:
        return {None: SplitPaths("cvat", images, file)}
    names: list[SplitName] = ["train", "val"]
    return {name: SplitPaths("cvat", images, file, name) for name in names if name in splits}


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
