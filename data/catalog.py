"""What a dataset is called, where it lives, and which classes it has.

COCO's sparse category ids and our contiguous labels meet here and nowhere else.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from .formats import EXPECTED, Format, Part, format_of_json, image_folder_of, recognise, yolo_parts


@dataclass(frozen=True)
class Categories:
    """The classes of a dataset; the position of a class is its label.

    Attributes:
        names: one name for each label value.
        category_ids: the annotation file's own id of each.

    Raises:
        ValueError: the two differ in length, or an id occurs twice.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that names and ids pair up."""
        if len(self.names) != len(self.category_ids):
            raise ValueError(f"{len(self.names)} names for {len(self.category_ids)} category ids")
        if len(set(self.category_ids)) < len(self.category_ids):
            raise ValueError(f"a category id occurs twice: {list(self.category_ids)}")

    def __len__(self) -> int:
        """Count the classes."""
        return len(self.names)

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Map from category id to 0-based label."""
        return {category_id: label for label, category_id in enumerate(self.category_ids)}

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Categories:
        """Number the classes 1, 2, 3, ..., as COCO files do."""
        return cls(tuple(names), tuple(range(1, len(names) + 1)))

    @classmethod
    def from_coco_json(cls, categories: list[Any]) -> Categories:
        """Read the `categories` list of an annotation file, sorted by id.

        Raises:
            ValueError: an entry lacks its `id` or `name`, or an id occurs twice.
        """
        for entry in categories:
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
                raise ValueError(f"a category needs a whole number as its 'id': {entry!r:.80}")
            if not isinstance(entry.get("name"), str):
                raise ValueError(f"category {entry['id']} needs a text as its 'name'")
        ordered = sorted(categories, key=lambda entry: int(entry["id"]))
        return cls(
            tuple(entry["name"] for entry in ordered), tuple(entry["id"] for entry in ordered)
        )

    def matched_to(self, other: Categories) -> tuple[Categories, dict[int, int]]:
        """Take over the names and labels of another list of classes, a trained model's.

        Classes are matched by name, whatever their case. Only if not one name agrees, as in a
        translated file, are they matched by id.

        Returns:
            The other's classes with the ids of this file (unused numbers where it has no such
            class), and the label of each category id that both know.
        """
        label_of_name = {name.lower(): label for label, name in enumerate(other.names)}
        pairs = zip(self.category_ids, self.names, strict=True)
        by_name = {number: label_of_name.get(name.lower()) for number, name in pairs}
        known = {number: label for number, label in by_name.items() if label is not None}
        if not known:
            known = {n: other.label_of[n] for n in self.category_ids if n in other.label_of}
        number_of = {label: number for number, label in known.items()}
        unused = max(self.category_ids, default=0) + 1
        numbers = (number_of.get(label, unused + label) for label in range(len(other)))
        return Categories(other.names, tuple(numbers)), known


# fmt: off
COCO_CLASSES = Categories(
    names=(
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
        "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat",
        "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
        "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball",
        "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket",
        "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
        "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake",
        "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop",
        "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
        "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier",
        "toothbrush",
    ),
    category_ids=(
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
        27, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 46, 47, 48, 49, 50, 51,
        52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 67, 70, 72, 73, 74, 75, 76, 77,
        78, 79, 80, 81, 82, 84, 85, 86, 87, 88, 89, 90,
    ),
)
"""COCO's 80 classes, whose ids run from 1 to 90 with gaps."""

PASCAL_CLASSES = Categories.from_names((
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
))
"""Pascal's 20 classes, as the original's conversion of SBD numbers them."""
# fmt: on


@dataclass(frozen=True)
class DatasetPaths:
    """Where the images and annotations of a dataset are; None for a split that it lacks.

    Attributes:
        name: what the user called it, or the last part of the path.
        train_images: folder with the training images.
        train_annotations: what `format` says.
        val_images: folder with the validation images.
        val_annotations: what `format` says.
        format: of the annotations: a COCO-style JSON file; YOLO's data.yaml; a folder of labelme's
            JSON files; VIA's JSON file.
    """

    name: str
    train_images: Path | None
    train_annotations: Path | None
    val_images: Path | None
    val_annotations: Path | None
    format: Format = "coco"

    def has(self, split: Literal["train", "val"]) -> bool:
        """Tell whether there is such a split."""
        images = self.train_images if split == "train" else self.val_images
        return images is not None

    @property
    def is_shared(self) -> bool:
        """Whether training and validation are the same images."""
        train = self.train_images, self.train_annotations
        return train == (self.val_images, self.val_annotations)

    def split(self, name: Literal["train", "val"]) -> tuple[Path, Path]:
        """Return image folder and annotations of a split.

        Raises:
            ValueError: there is no such split.
        """
        if name == "train":
            images, annotations = self.train_images, self.train_annotations
        else:
            images, annotations = self.val_images, self.val_annotations
        if images is None or annotations is None:
            raise ValueError(f"dataset {self.name!r} has no {name} split")
        return images, annotations


@dataclass(frozen=True)
class _Entry:
    """A catalogued dataset: image folders and annotation files, "" for a split that it lacks."""

    folder: str
    train_images: str
    val_images: str
    train_annotations: str
    val_annotations: str


def _coco_of(year: int) -> _Entry:
    files = (f"annotations/instances_{split}{year}.json" for split in ("train", "val"))
    return _Entry("coco", f"train{year}", f"val{year}", *files)


_CATALOG = {
    "coco2017": _coco_of(2017),
    "coco2014": _coco_of(2014),
    "coco2017_testdev": _Entry(
        "coco", "", "test2017", "", "annotations/image_info_test-dev2017.json"
    ),
    "pascal_sbd": _Entry("sbd", "img", "img", "pascal_sbd_train.json", "pascal_sbd_val.json"),
}

_TRAIN_FILES = (
    "annotations/instances_train.json",
    "annotations/instances_train2017.json",
    "train/_annotations.coco.json",
)
_VAL_FILES = (
    "annotations/instances_val.json",
    "annotations/instances_val2017.json",
    "valid/_annotations.coco.json",
)
_ONLY_FILES = ("annotations.json", "_annotations.coco.json")


def resolve_dataset(name_or_path: str, root: Path = Path("data")) -> DatasetPaths:
    """Find a dataset by its catalogued name, its folder, or its annotation file.

    A folder of COCO's format holds `annotations/instances_train.json` and `instances_val.json` with
    the images in `train` and `val`, or one annotation file with the images beside it or in
    `images`; for other formats see `data.formats.recognise`. Annotations that are not split in two
    serve both training and validation.

    Args:
        name_or_path: a catalogued name, a folder, a JSON file, or YOLO's data.yaml.
        root: the folder that holds the catalogued datasets.

    Raises:
        ValueError: none of these is found; the message lists what was expected.
    """
    name = name_or_path.removesuffix("_dataset")  # as the original calls them
    if name in _CATALOG:
        return _catalogued(name, root)
    path = Path(name_or_path)
    if path.is_file() and path.suffix.lower() == ".json":
        part = _json_part(path)
        return _with_parts(path.stem, part, part)
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return _with_parts(path.resolve().parent.name, *yolo_parts(path))
    if path.is_dir():
        return _in_folder(path)
    close = difflib.get_close_matches(name_or_path, _CATALOG, n=1, cutoff=0.6)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(
        f"no dataset {name_or_path!r}{hint}: expected shapes, {', '.join(_CATALOG)}, "
        "a folder, a .json file of COCO or VIA, or a data.yaml that exists"
    )


def _catalogued(name: str, root: Path) -> DatasetPaths:
    entry = _CATALOG[name]
    base = root / entry.folder
    return DatasetPaths(
        name=name,
        train_images=_split_or_shared(base, entry.train_images),
        train_annotations=base / entry.train_annotations if entry.train_annotations else None,
        val_images=_split_or_shared(base, entry.val_images),
        val_annotations=base / entry.val_annotations,
    )


def _split_or_shared(base: Path, split: str) -> Path | None:
    """Choose COCO's own folder for a split, or `images`, where the original keeps all of them."""
    if not split:
        return None
    shared = base / "images"
    return base / split if (base / split).is_dir() or not shared.is_dir() else shared


def _in_folder(folder: Path) -> DatasetPaths:
    train, val = _first_file(folder, _TRAIN_FILES), _first_file(folder, _VAL_FILES)
    if train is None and val is None:
        train = val = _first_file(folder, _ONLY_FILES)
    if train is not None or val is not None:
        parts = _json_part(train) if train else None, _json_part(val) if val else None
    else:
        parts = recognise(folder)
    if parts == (None, None):
        raise ValueError(
            f"no annotations in {str(folder)!r}: expected {_TRAIN_FILES[0]} and {_VAL_FILES[0]}, "
            f"{EXPECTED}; catalogued names: {', '.join(_CATALOG)}"
        )
    return _with_parts(folder.resolve().name, *parts)


def _first_file(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _json_part(file: Path) -> Part:
    kind = format_of_json(file) or "coco"
    if kind == "labelme":
        raise ValueError(f"{file} is labelme's file of one image: give the folder of all of them")
    return Part(kind, image_folder_of(file), file)


def _with_parts(name: str, train: Part | None, val: Part | None) -> DatasetPaths:
    one = train or val
    return DatasetPaths(
        name=name,
        train_images=train and train.images,
        train_annotations=train and train.annotations,
        val_images=val and val.images,
        val_annotations=val and val.annotations,
        format=one.format if one else "coco",
    )
