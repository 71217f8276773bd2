"""Splits of a dataset as tools and people spell them, in names of files and folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

SplitName = Literal["train", "val", "test"]
Format = Literal[
    "coco",
    "yolo",
    "labelme",
    "via",
    "cvat",
    "label_studio",
    "sam",
    "panoptic",
    "voc",
    "numbered",
    "pngs",
]


class SplitPaths(NamedTuple):
    """The files of one split.

    Attributes:
        format: how to read it.
        images: folder of the images.
        annotations: a file, or a folder of such files.
        part: which of the splits that one file describes; "" for all of it.
    """

    format: Format
    images: Path
    annotations: Path
    part: str = ""


_SPELLINGS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainset"),
    "val": ("val", "valid", "validation", "validate", "valset", "eval", "evaluation", "dev"),
    "test": ("test", "testing", "tst", "testset"),
}
_SPLIT_OF = {word: split for split, words in _SPELLINGS.items() for word in words}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of snake_case, CamelCase, and before digits

_IMAGES = ("images", "image", "imgs", "img")
_ANNOTATIONS = ("annotations", "annotation", "labels", "label", "json", "jsons")
PLACES = (*_ANNOTATIONS, *_IMAGES)  # folders that no split and no class is named after


def split_of(name: str) -> SplitName | None:
    """Tell which split a file or folder is named after.

    Args:
        name: without suffix, such as "instances_val2017", "TrainSet" or "Validation".

    Returns:
        None if it names none, or several, as "trainval" and "train_val" do.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    splits = {_SPLIT_OF[word] for word in words if word in _SPLIT_OF}
    if splits == {"val", "test"} and "dev" in words:  # COCO's test-dev
        return "test"
    return splits.pop() if len(splits) == 1 else None


def split_folder(folder: Path, split: SplitName) -> Path | None:
    """Find the folder of a split: of train and train_masks, the one with the shorter name."""
    named = [child for child in _folders_in(folder) if split_of(child.name) == split]
    return min(named, key=lambda child: (len(child.name), child.name), default=None)


def find_test_split(folder: Path) -> Path | None:
    """Find the folder that a dataset has to test on, which all else leaves alone."""
    places = (folder, *_called(folder, _IMAGES), *_called(folder, _ANNOTATIONS))
    return next(filter(None, (split_folder(place, "test") for place in places)), None)


def image_places(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder that are called `images`, or alike."""
    yield from _called(folder, _IMAGES)


def annotation_places(folder: Path) -> Iterator[tuple[Path, SplitName | None]]:
    """Yield where annotations may be, the likeliest place first, each with the split it names.

    First the folder, and `annotations` and alike in it; then the folders of splits in all of these,
    with `annotations` and alike in them.
    """
    shared = [folder, *_called(folder, PLACES)]
    yield from ((place, None) for place in shared)
    for place in shared:
        for child in _folders_in(place):
            split = split_of(child.name)
            if split is not None:
                yield from ((each, split) for each in (child, *_called(child, PLACES)))


def images_beside(folder: Path, name: str, split: SplitName | None) -> Path:
    """Guess where the images of annotations are.

    Args:
        folder: of the annotations.
        name: that the image folder may have, too: the last part of the annotation file's.
        split: that the annotation file is named after; None leaves it to the folder.

    Returns:
        A folder called so or of this split, itself or in `images`; else `images`; else the folder;
        looked for beside `annotations` rather than in it.
    """
    split = split or split_of(folder.name)
    bases = [folder]
    while _is_place(bases[-1]) or (split_of(bases[-1].name) and _is_place(bases[-1].parent)):
        bases.append(bases[-1].parent)
    bases.sort(key=_is_for_annotations)
    for base in bases:
        for place in (base, *image_places(base)):
            exact = place / name
            if exact.is_dir() and not _is_place(exact):
                return exact
            of_split = split and split_folder(place, split)
            if of_split:
                return next(image_places(of_split), of_split)
        images = next(image_places(base), None)
        if images is not None:
            return images
    return bases[0]


def _is_place(folder: Path) -> bool:
    return folder.name.lower() in PLACES


def _is_for_annotations(folder: Path) -> bool:
    return not {folder.name.lower(), folder.parent.name.lower()}.isdisjoint(_ANNOTATIONS)


def _called(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the folders of these names, in any case, in the order of the names."""
    named = [child for child in _folders_in(folder) if child.name.lower() in names]
    return sorted(named, key=lambda child: names.index(child.name.lower()))


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:  # does not ask for each of many images
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        return []
