"""Findings that are not certainly mistakes, but deserve a look before training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from data.annotations.coco import CocoInstances
from data.annotations.run_lengths import from_outline
from data.checks.dataset import BOTH
from data.checks.duplicates import duplicate_pairs
from data.duplicates import DuplicateGroup, exact_duplicates, near_duplicates
from data.problems import Problem, some_of
from data.sample import Annotation, Dataset, RunLengths

SMALLEST = 8
"""Smallest side in pixels of the network input: the stride of the finest features, C3 and P3."""

FEW = 10
"""Classes with fewer objects are reported."""

HELD = 0.95
"""Share of the objects that should not be smaller than `SMALLEST` at the advised input size."""

_STEP, _LARGEST = 32, 1024  # of advised input sizes
_EXAMPLES = 6


class Place(NamedTuple):
    """An image to show, and the annotations concerned.

    Attributes:
        split: split of the dataset.
        image: index of the image in the split.
        objects: positions in `Dataset.annotations(index)`.
    """

    split: str
    image: int
    objects: tuple[int, ...] = ()


class SizedObject(NamedTuple):
    """An object and its size.

    Attributes:
        place: its place.
        name: name of its class.
        side: square root of its mask's area, if the image is a square of side 1.
    """

    place: Place
    name: str
    side: float


@dataclass(frozen=True)
class Notice(Problem):
    """Something that deserves a look.

    Attributes:
        places: examples.
    """

    places: tuple[Place, ...] = ()


def find_image_duplicates(
    splits: Mapping[str, CocoInstances],
) -> Iterator[tuple[DuplicateGroup, tuple[Place, ...]]]:
    """Yield duplicate images, in one split or in two, exact copies first.

    Args:
        splits: the splits of the dataset.
    """
    places = [Place(split, i) for split, dataset in splits.items() for i in range(len(dataset))]
    flat = [splits[place.split].image_path(place.image) for place in places]
    exact = exact_duplicates(flat)
    for group in (*exact, *near_duplicates(flat, exact)):
        yield group, tuple(places[index] for index in group.indices)


def near_duplicate_notice(
    group: DuplicateGroup, places: tuple[Place, ...], names: list[str]
) -> Notice:
    """Describe pictures that look the same."""
    across = len({place.split for place in places}) > 1
    what = "nearly the same image in both splits" if across else "nearly the same image twice"
    mend = "keep them in one split, or what was trained on validates" if across else "keep one"
    return Notice(
        what, f"{names[0]} is like {some_of(names[1:], 3)}", mend, places=places[:_EXAMPLES]
    )


def split_of(places: tuple[Place, ...]) -> str:
    """Return the split that images are in, or the name for both splits."""
    splits = {place.split for place in places}
    return splits.pop() if len(splits) == 1 else BOTH


def sized_objects(split: str, dataset: Dataset) -> list[SizedObject]:
    """Collect the objects of a split, without crowds."""
    names = dataset.categories.name_of
    found = []
    for index in range(len(dataset)):
        info = dataset.image_info(index)
        pixels = info["height"] * info["width"]
        for place, part in enumerate(dataset.annotations(index)):
            if not part["iscrowd"]:
                side = math.sqrt(part["area"] / pixels)
                found.append(
                    SizedObject(Place(split, index, (place,)), names[part["category_id"]], side)
                )
    return found


def find_object_duplicates(split: str, dataset: Dataset) -> Iterator[Place]:
    """Yield pairs of objects of one image in the same place, of the same class or not."""
    for index in range(len(dataset)):
        info = dataset.image_info(index)
        for pair in find_duplicate_pairs(
            dataset.annotations(index), (info["height"], info["width"])
        ):
            yield Place(split, index, pair)


def find_duplicate_pairs(
    annotations: Sequence[Annotation], image_hw: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield the earlier and the later of two objects in the same place, without crowds."""
    kept = [place for place, part in enumerate(annotations) if not part["iscrowd"]]
    boxes = [_corners(annotations[place]) for place in kept]
    masks = [cache(partial(_mask, annotations[place], image_hw)) for place in kept]
    for one, other in duplicate_pairs(boxes, masks):
        yield kept[one], kept[other]


def two_classes(dataset: CocoInstances, duplicates: Iterable[Place]) -> Iterator[Notice]:
    """Describe objects in the same place with two different classes."""
    names = dataset.categories.name_of
    for place in duplicates:
        info = dataset.image_info(place.image)
        one, other = (dataset.annotation(place.image, number) for number in place.objects)
        if one["category_id"] != other["category_id"]:
            first, second = (names[part["category_id"]] for part in (one, other))
            x, y, *_ = other["bbox"]
            where = f"{info['file_name']}, annotation {other['id']}"
            yield Notice(
                "an object that is annotated as two classes",
                f"{where} ({first} and {second} at {x:.0f}, {y:.0f})",
                "delete one, unless it is both",
                places=(place,),
            )


def few_objects(objects: Iterable[SizedObject], names: Sequence[str]) -> Iterator[Notice]:
    """Find classes of which there are few objects, or none.

    Args:
        objects: all that there are to learn from.
        names: of the classes.
    """
    counts = Counter(found.name for found in objects)
    for name in dict.fromkeys(names):
        count = counts[name]
        if count < FEW:
            mend = "add images of it, or leave it out" if count else "take it out of the list"
            number = f"{count} object{'' if count == 1 else 's'}"
            yield Notice(f"a class of fewer than {FEW} objects", f"{name} has {number}", mend)


def names_alike(names: Iterable[str]) -> Iterator[Notice]:
    """Find names that differ in case, blanks and signs alone, and so may be of one class."""
    spellings: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        key = "".join(filter(str.isalnum, name.casefold())) or name
        spellings.setdefault(key, []).append(name)
    for alike in spellings.values():
        if len(alike) > 1:
            mend = "if they are one, call it the same everywhere"
            yield Notice("classes of nearly the same name", ", ".join(map(repr, alike)), mend)


def too_small(objects: Sequence[SizedObject], image_size: int) -> Iterator[Notice]:
    """Tell of objects too small at an input size if there are more than a few.

    Args:
        objects: of one split.
        image_size: side of the network input in pixels.
    """
    sides = image_size * np.array([found.side for found in objects])
    small = np.flatnonzero(sides < SMALLEST)
    if len(small) <= (1 - HELD) * len(sides):
        return
    size = held_at(objects)
    mend = f"--set model.image_size={size} holds {HELD:.0%} of all"
    if size > _LARGEST:
        mend = f"{HELD:.0%} of all would need {size} px: cut the images into tiles"
    where = f"{len(small)} of {len(sides)} cover less than {SMALLEST} x {SMALLEST} px there"
    smallest = small[np.argsort(sides[small], kind="stable")][:_EXAMPLES].tolist()
    yield Notice(
        f"objects too small at {image_size} x {image_size}",
        f"{where} ({len(small) / len(sides):.0%})",
        mend,
        places=tuple(objects[number].place for number in smallest),
    )


def held_at(objects: Sequence[SizedObject]) -> int:
    """Return the input size, a multiple of 32, at which nearly all objects are large enough."""
    typical = float(np.quantile([found.side for found in objects], 1 - HELD, method="lower"))
    return _STEP * math.ceil(SMALLEST / max(typical, 1e-4) / _STEP)


def _mask(part: Annotation, image_hw: tuple[int, int]) -> RunLengths | None:
    outline = part["segmentation"]
    return from_outline(outline, image_hw) if outline else None


def _corners(part: Annotation) -> tuple[float, float, float, float]:
    x, y, width, height = part["bbox"]
    return x, y, x + width, y + height
