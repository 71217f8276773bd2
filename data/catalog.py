"""Datasets by name: where their files are, and how to open them."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from data.annotations.coco import CocoInstances
from data.formats.cvat import is_cvat
from data.formats.recognise import (
    EXPECTED,
    OF_ONE_IMAGE,
    cvat_splits,
    format_of_json,
    image_folder_of,
    read_split,
    recognise,
    yolo_splits,
)
from data.formats.splits import PLACES, SplitPaths, split_of

from .classes import Categories
from .files import IMAGE_SUFFIXES
from .held_out import held_out
from .options import DEFAULT_OPTIONS, DataOptions
from .problems import UnknownDataset, log_problems
from .sample import Dataset

_logger = logging.getLogger(__name__)

SHAPES = "shapes"
"""The name of the generated scenes."""

Split = Literal["train", "val"]

_ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")
_LOOKED_INTO = 20  # folders in one without annotations, to find those that are meant


@dataclass(frozen=True)
class DatasetPaths:
    """The files of a dataset.

    Attributes:
        name: the user's name for it, or the last part of the path.
        train: training split; None if there is none.
        val: validation split; None if there is none.
        val_share: share of the training images that is held out as the validation split.
    """

    name: str
    train: SplitPaths | None
    val: SplitPaths | None
    val_share: float | None = None

    @property
    def is_shared(self) -> bool:
        """Whether training and validation are the same images."""
        return self.train == self.val and self.val_share is None

    def has(self, split: Split) -> bool:
        """Tell whether there is such a split."""
        return (self.train if split == "train" else self.val) is not None

    def split(self, name: Split) -> SplitPaths:
        """Return one split.

        Raises:
            ValueError: there is none of this name.
        """
        paths = self.train if name == "train" else self.val
        if paths is None:
            raise ValueError(f"dataset {self.name!r} has no {name} split")
        return paths


# For each catalogued dataset its folder, and image folder and annotation file of each split.
_CATALOG: dict[str, tuple[str, dict[Split, tuple[str, str]]]] = {
    "coco2017": (
        "coco",
        {
            "train": ("train2017", "annotations/instances_train2017.json"),
            "val": ("val2017", "annotations/instances_val2017.json"),
        },
    ),
    "coco2014": (
        "coco",
        {
            "train": ("train2014", "annotations/instances_train2014.json"),
            "val": ("val2014", "annotations/instances_val2014.json"),
        },
    ),
    "coco2017_testdev": (
        "coco",
        {"val": ("test2017", "annotations/image_info_test-dev2017.json")},
    ),
    "pascal_sbd": (
        "sbd",
        {"train": ("img", "pascal_sbd_train.json"), "val": ("img", "pascal_sbd_val.json")},
    ),
}


def open_dataset(
    name: str,
    split: Split,
    categories: Categories | None = None,
    length: int | None = None,
    options: DataOptions = DEFAULT_OPTIONS,
) -> Dataset:
    """Open one split of a dataset.

    Args:
        name: as in `resolve_dataset`; "shapes" for generated scenes.
        split: "train" or "val". A dataset with a single split uses it for both.
        categories: classes of a trained model, to which labels are matched.
        length: number of scenes to generate, for "shapes" only.
        options: how to use the annotations of the dataset.

    Raises:
        ValueError: no such dataset, or it lacks this split.
        FileNotFoundError: its files do not exist.
    """
    if name == SHAPES:
        if options.val:
            raise ValueError(f"val={options.val}: dataset {SHAPES!r} has a val split of its own")
        return _generated(split, categories, length)
    paths = resolve_dataset(name, options)
    part = paths.split(split)
    content = _content_of(part)
    if paths.val_share is None:
        return _opened(part, content, categories, options)
    whole = _opened(part, content, None, options)
    held = {whole.image_ids[index] for index in held_out(whole, paths.val_share)}
    # The remaining images may depend on the classes that count, so the ids are kept.
    data = whole if categories is None else _opened(part, content, categories, options)
    wanted = split == "val"
    return data.part([i for i, key in enumerate(data.image_ids) if (key in held) == wanted])


def _content_of(paths: SplitPaths) -> dict[str, object] | None:
    """Read annotations of any format except COCO's, which its own reader reads."""
    if paths.format == "coco":
        return None
    content, problems = read_split(paths)
    log_problems(lambda line: _logger.warning("%s: %s", paths.annotations, line), problems)
    return content


def _opened(
    paths: SplitPaths,
    content: dict[str, object] | None,
    categories: Categories | None,
    options: DataOptions,
) -> CocoInstances:
    return CocoInstances(
        paths.images, paths.annotations, categories, content=content, options=options
    )


def has_one_split(name: str, options: DataOptions = DEFAULT_OPTIONS) -> bool:
    """Tell whether training and validation use the same images; see `open_dataset`.

    Raises:
        ValueError: no such dataset.
    """
    return name != SHAPES and resolve_dataset(name, options).is_shared


def resolve_dataset(name_or_path: str, options: DataOptions = DEFAULT_OPTIONS) -> DatasetPaths:
    """Find a dataset by its catalogued name, its folder, or its annotation file.

    A folder in COCO's format contains `annotations/instances_train.json` and `instances_val.json`,
    with the images in `train` and `val`, or similar names, see `data.formats.splits`; or one
    annotation file with the images beside it or in `images`; for other formats see
    `data.formats.recognise`. Annotations without a split are used for training and validation.

    Args:
        name_or_path: a catalogued name, a folder, a JSON file, CVAT's XML, or YOLO's data.yaml.
        options: may name a validation split, or a share of the training images to use as one.

    Raises:
        ValueError: nothing is found; the message lists what was expected.
    """
    paths = _found(name_or_path)
    if options.val_share is not None:
        return replace(paths, val=paths.train, val_share=options.val_share)
    if options.val:
        other = _found(options.val)
        return replace(paths, val=other.val or other.train)
    return paths


def _found(name_or_path: str) -> DatasetPaths:
    name = name_or_path.removesuffix("_dataset")  # as the original calls them
    if name in _CATALOG:
        return _catalogued(name)
    path = Path(name_or_path)
    if path.is_file() and path.suffix.lower() == ".json":
        split = _of_json(path)
        return DatasetPaths(path.stem, split, split)
    if path.is_file() and path.suffix.lower() == ".xml" and is_cvat(path):
        parts = cvat_splits(path)
        whole = parts.get(None)
        return DatasetPaths(path.stem, parts.get("train", whole), parts.get("val", whole))
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return DatasetPaths(path.resolve().parent.name, *yolo_splits(path))
    if path.is_dir():
        return _in_folder(path)
    if path.is_file() and path.suffix.lower() in _ARCHIVES:
        raise ValueError(f"{path} is an archive: unpack it, and give the folder")
    close = difflib.get_close_matches(name_or_path, _CATALOG, n=1, cutoff=0.6)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UnknownDataset(
        name_or_path,
        f"{hint}: expected {SHAPES}, {', '.join(_CATALOG)}, "
        "a folder, a .json file, CVAT's .xml, or a data.yaml that exists",
    )


def _generated(split: Split, categories: Categories | None, length: int | None) -> Dataset:
    from data.shapes.scenes import shapes_split  # so that few ever load it

    scenes = shapes_split(split, length)
    if categories is not None and categories.names != scenes.categories.names:
        raise ValueError(f"dataset {SHAPES!r} has other classes than the model's {len(categories)}")
    return scenes


def _catalogued(name: str) -> DatasetPaths:
    folder, splits = _CATALOG[name]
    base = Path("data") / folder
    paths = {
        split: SplitPaths("coco", _own_or_shared(base, images), base / annotations)
        for split, (images, annotations) in splits.items()
    }
    return DatasetPaths(name, paths.get("train"), paths.get("val"))


def _own_or_shared(base: Path, images: str) -> Path:
    """Choose COCO's own folder for a split, or `images`, where the original keeps all of them."""
    own, shared = base / images, base / "images"
    return shared if shared.is_dir() and not own.is_dir() else own


def _in_folder(folder: Path) -> DatasetPaths:
    splits = recognise(folder)
    if splits == (None, None):
        raise ValueError(f"no annotations in {str(folder)!r}{_advice(folder)}")
    return DatasetPaths(folder.resolve().name, *splits)


def _advice(folder: Path) -> str:
    """Say what to give instead of a folder without annotations, which may not be unpacked."""
    children = sorted(folder.iterdir())
    archive = next((each for each in children if each.suffix.lower() in _ARCHIVES), None)
    if archive is not None:
        return f": unpack {archive.name} first"
    if os.sep == "/" and any("\\" in child.name for child in children):
        return ": its files have folders in their names, so unpack it with another program"
    near = [child for child in children if child.is_dir()][:_LOOKED_INTO]
    here = folder.absolute()
    if here.name.lower() in PLACES or split_of(here.name):
        near.append(here.parent)
    for other in near:
        with contextlib.suppress(ValueError):
            if recognise(other) != (None, None):
                return f": did you mean {str(other)!r}?"
    images = sum(child.suffix.lower() in IMAGE_SUFFIXES for child in children)
    found = f", which has {images} images and nothing about them" if images else ""
    return (
        f"{found}: expected annotations/instances_train.json and instances_val.json, {EXPECTED}; "
        f"catalogued names: {', '.join(_CATALOG)}"
    )


def _of_json(file: Path) -> SplitPaths:
    kind = format_of_json(file) or "coco"
    if kind in OF_ONE_IMAGE:
        raise ValueError(f"{file} is {kind}'s file of one image: give the folder of all of them")
    return SplitPaths(kind, image_folder_of(file, kind), file)
