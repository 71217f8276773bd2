"""What a dataset is called, where it lives, and which classes it has.

COCO's sparse category ids and our contiguous labels meet here and nowhere else.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.annotations.coco import CocoInstances
from data.formats.recognise import (
    EXPECTED,
    READERS,
    Format,
    Part,
    format_of_json,
    image_folder_of,
    recognise,
    yolo_parts,
)

from .classes import Categories
from .problems import summarize
from .sample import Dataset


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


_logger = logging.getLogger(__name__)

SHAPES = "shapes"

Split = Literal["train", "val"]


def has_one_split(name: str, root: Path = Path("data")) -> bool:
    """Tell whether the same images serve for training and validation; `name` as in `open_dataset`.

    Raises:
        ValueError: no such dataset.
    """
    return name != SHAPES and resolve_dataset(name, root).is_shared


def open_dataset(
    name: str,
    split: Split,
    categories: Categories | None = None,
    root: Path = Path("data"),
    length: int | None = None,
) -> Dataset:
    """Open one split of a dataset.

    Args:
        name: see `data.catalog.resolve_dataset`; "shapes" for generated scenes.
        split: which part. A dataset that has only one serves it for both.
        categories: classes of a trained model, to which labels are matched.
        root: the folder of the catalogued datasets.
        length: scenes to generate, for "shapes" alone.

    Raises:
        ValueError: no such dataset, or it lacks this split.
        FileNotFoundError: its files are not there.
    """
    if name == SHAPES:
        from data.shapes.scenes import shapes_split

        scenes = shapes_split(split, length)
        if categories is not None and categories.names != scenes.categories.names:
            raise ValueError(
                f"dataset 'shapes' has other classes than the model's {len(categories)}"
            )
        return scenes
    paths = resolve_dataset(name, root)
    images, annotations = paths.split(split)
    content = None
    if paths.format != "coco":
        content, problems = READERS[paths.format](images, annotations)
        if problems:
            _logger.warning("%s: left out %s", annotations, summarize(problems))
    return CocoInstances(images, annotations, categories, content=content)
