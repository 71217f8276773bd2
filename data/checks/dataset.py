"""Problems of a dataset: in its splits, and between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from data.annotations.entries import entries_of, id_key, read_categories, read_content
from data.annotations.locate import ImageFinder, image_path
from data.catalog import SHAPES, Split, resolve_dataset
from data.duplicates import exact_duplicates
from data.formats.recognise import read_split
from data.formats.splits import SplitPaths
from data.options import DEFAULT_OPTIONS, DataOptions
from data.problems import Problem

from .images import check_images
from .objects import check_objects

BOTH = "train and val"
"""The name under which problems between two splits are filed."""


def check_dataset(name: str, options: DataOptions = DEFAULT_OPTIONS) -> dict[str, list[Problem]]:
    """Look for what is wrong in the splits of a dataset, and between them.

    Args:
        name: see `data.catalog.resolve_dataset`.
        options: how it is taken.

    Returns:
        The problems of "train", "val" and `BOTH`, as far as there are such splits. One that serves
        as both, or that is to be split in two, is "train".

    Raises:
        ValueError: no such dataset.
    """
    if name == SHAPES:  # generated, right by construction
        return {}
    paths = resolve_dataset(name, options)
    problems: dict[str, list[Problem]] = {}
    contents: list[dict[str, object]] = []
    files: list[list[Path]] = []
    is_one = paths.is_shared or paths.val_share is not None
    splits: tuple[Split, ...] = ("train",) if is_one else ("train", "val")
    for split in splits:
        if not paths.has(split):
            continue
        part = paths.split(split)
        content, problems[split] = _read(part)
        if content is None:
            continue
        problems[split] += check_annotations(content, part.images, part.annotations)
        contents.append(content)
        names = [str(name) for name in _values(content, "images", "file_name")]
        found = ImageFinder(part.images, part.annotations).find_all(names)
        files.append([image_path(part.images, name) for name in found if isinstance(name, str)])
        problems[split] += find_copies(files[-1])
    if len(contents) == 2:
        problems[BOTH] = [*find_leaks(*files), *_unknown_classes(*contents)]
    return problems


def check_annotations(
    content: dict[str, object], image_folder: Path, file: Path | None = None
) -> list[Problem]:
    """Look for what is wrong in COCO-style annotations and their images.

    Args:
        content: `images`, `annotations` and `categories`; whatever a JSON file may hold.
        image_folder: where the images are.
        file: the file that names them, if it is not among them.

    Returns:
        At most one problem for each image, class and annotation, and each pair of duplicates.
    """
    problems = [
        Problem("a list that is missing", repr(key), "a COCO file has all three")
        for key in ("images", "annotations", "categories")
        if not isinstance(content.get(key), list | dict)
    ]
    if problems:
        return problems
    try:
        categories, label_of = read_categories(content, None)
    except ValueError as error:
        return [Problem("classes that cannot be read", str(error), "correct 'categories'")]
    for name, count in Counter(categories.names).items():
        if count > 1:
            problems.append(Problem("a class that is listed twice", name, "give it one id"))
    try:
        listed = entries_of(content, "images")
        images, image_problems = check_images(listed, image_folder, file or image_folder)
    except FileNotFoundError as error:
        return [*problems, Problem("images that are not there", str(error), "name their folder")]
    objects = entries_of(content, "annotations")
    object_problems = check_objects(objects, images, categories, label_of)
    return [*problems, *image_problems, *object_problems]


def find_copies(files: Iterable[Path]) -> list[Problem]:
    """Find the files of one split whose content is that of an earlier one."""
    names = list(dict.fromkeys(files))
    mend = "keep one of them, the one with the right objects: it counts twice"
    return [
        Problem("an image that is there twice", f"{names[copy]} is {names[first]}", mend)
        for (first, *copies), _ in exact_duplicates(names)
        for copy in copies
    ]


def find_leaks(train: Iterable[Path], val: Iterable[Path]) -> list[Problem]:
    """Find the files of one list whose content is also in the other."""
    known = list(train)
    names, count = [*known, *val], len(known)
    mend = "take it out of one: what was trained on cannot validate"
    return [
        Problem("an image in both splits", f"{names[copy]} is {names[first]}", mend)
        for (first, *copies), _ in exact_duplicates(names)
        for copy in copies
        if first < count <= copy
    ]


def _read(split: SplitPaths) -> tuple[dict[str, object] | None, list[Problem]]:
    """Read the annotations; None, and a problem, if that cannot be done."""
    try:
        if split.format == "coco":
            return read_content(split.annotations), []
        return read_split(split)
    except (ValueError, OSError) as error:
        return None, [Problem.of_error("annotations that cannot be read", error, "mend that first")]


def _unknown_classes(train: dict[str, object], val: dict[str, object]) -> list[Problem]:
    """Find classes that have validation objects but are not those of the training split."""
    try:
        (known, _), (own, label_of) = read_categories(train, None), read_categories(val, None)
    except ValueError:  # which the check of the file itself reports
        return []
    keys = map(id_key, _values(val, "annotations", "category_id"))
    used = {label_of.get(key) for key in keys if key is not None}
    _, shared = own.matched_to(known)
    mend = "call it the same in both, or add training images of it"
    return [
        Problem("a class that only val has", name, mend)
        for label, (name, number) in enumerate(zip(own.names, own.category_ids, strict=True))
        if label in used
        and not (number in shared and known.names[shared[number]].casefold() == name.casefold())
    ]


def _values(content: dict[str, object], key: str, name: str) -> list[object]:
    """Return one value of each entry of a list, as far as they are there."""
    try:
        entries = entries_of(content, key)
    except ValueError:
        return []
    return [entry[name] for entry in entries if isinstance(entry, dict) and name in entry]
