"""Problems of a dataset: in its splits, and between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from data.annotations.entries import entries_of, read_content
from data.catalog import SHAPES, Split, resolve_dataset
from data.classes import Categories
from data.formats.recognise import READERS, SplitPaths
from data.problems import Problem

from .images import check_images
from .objects import check_objects
from .pictures import exact_twins

BOTH = "train and val"
"""The name under which problems between two splits are filed."""


def check_dataset(name: str, root: Path = Path("data")) -> dict[str, list[Problem]]:
    """Look for what is wrong in the splits of a dataset, and between them.

    Args:
        name: see `data.catalog.resolve_dataset`.
        root: the folder of the catalogued datasets.

    Returns:
        The problems of "train", "val" and `BOTH`, as far as there are such splits. One that serves
        as both is "train".

    Raises:
        ValueError: no such dataset.
    """
    if name == SHAPES:  # generated, right by construction
        return {}
    paths = resolve_dataset(name, root)
    problems: dict[str, list[Problem]] = {}
    contents: list[dict[str, object]] = []
    files: list[list[Path]] = []
    splits: tuple[Split, ...] = ("train",) if paths.is_shared else ("train", "val")
    for split in splits:
        if not paths.has(split):
            continue
        part = paths.split(split)
        content, problems[split] = _read(part)
        if content is None:
            continue
        problems[split] += check_annotations(content, part.images)
        contents.append(content)
        names = _values(content, "images", "file_name")
        files.append([part.images / str(name) for name in names])
        problems[split] += find_copies(files[-1])
    if len(contents) == 2:
        problems[BOTH] = [*find_leaks(*files), *_unknown_classes(*contents)]
    return problems


def check_annotations(content: dict[str, object], image_folder: Path) -> list[Problem]:
    """Look for what is wrong in COCO-style annotations and their images.

    Args:
        content: `images`, `annotations` and `categories`; whatever a JSON file may hold.
        image_folder: where the images are.

    Returns:
        At most one problem for each image, class and annotation, and each pair of duplicates.
    """
    problems = [
        Problem("a list that is missing", repr(key), "a COCO file has all three")
        for key in ("images", "annotations", "categories")
        if not isinstance(content.get(key), list)
    ]
    if problems:
        return problems
    try:
        categories = Categories.from_coco_json(entries_of(content, "categories"))
    except ValueError as error:
        return [Problem("classes that cannot be read", str(error), "correct 'categories'")]
    for name, count in Counter(categories.names).items():
        if count > 1:
            problems.append(Problem("a class that is listed twice", name, "give it one id"))
    images, image_problems = check_images(entries_of(content, "images"), image_folder)
    object_problems = check_objects(entries_of(content, "annotations"), images, categories)
    return [*problems, *image_problems, *object_problems]


def find_copies(files: Iterable[Path]) -> list[Problem]:
    """Find the files of one split whose content is that of an earlier one."""
    names = list(dict.fromkeys(files))
    mend = "delete it, with its objects: it counts twice"
    return [
        Problem("an image that is there twice", f"{names[copy]} is {names[first]}", mend)
        for (first, *copies), _ in exact_twins(names)
        for copy in copies
    ]


def find_leaks(train: Iterable[Path], val: Iterable[Path]) -> list[Problem]:
    """Find the files of one list whose content is also in the other."""
    known = list(train)
    names, count = [*known, *val], len(known)
    mend = "take it out of one: what was trained on cannot validate"
    return [
        Problem("an image in both splits", f"{names[copy]} is {names[first]}", mend)
        for (first, *copies), _ in exact_twins(names)
        for copy in copies
        if first < count <= copy
    ]


def _read(split: SplitPaths) -> tuple[dict[str, object] | None, list[Problem]]:
    """Read the annotations; None, and a problem, if that cannot be done."""
    try:
        if split.format == "coco":
            return read_content(split.annotations), []
        return READERS[split.format](split.images, split.annotations)
    except (ValueError, OSError) as error:
        return None, [Problem("annotations that cannot be read", str(error), "mend that first")]


def _unknown_classes(train: dict[str, object], val: dict[str, object]) -> list[Problem]:
    """Find classes that have validation objects but are not those of the training split."""
    known = {str(name).lower() for name in _values(train, "categories", "name")}
    used = set(map(str, _values(val, "annotations", "category_id")))
    entries = val.get("categories")
    problems = []
    for entry in entries if isinstance(entries, list) else []:
        name = str(entry.get("name")) if isinstance(entry, dict) else ""
        if name and name.lower() not in known and str(entry.get("id")) in used:
            mend = "call it the same in both, or add training images of it"
            problems.append(Problem("a class that only val has", name, mend))
    return problems


def _values(content: dict[str, object], key: str, name: str) -> list[object]:
    """Return one value of each entry of a list, as far as they are there."""
    entries = content.get(key)
    if not isinstance(entries, list):
        return []
    return [entry[name] for entry in entries if isinstance(entry, dict) and name in entry]
