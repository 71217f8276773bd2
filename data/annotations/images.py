"""The images of a COCO file: found, measured, and each given one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from data.images import ImageHead, read_head
from data.problems import Problem, Unusable, printable, summarize, unreadable

from .entries import MAX_ID, Key, id_key, numbers_of, stated_hw
from .locate import ImageFinder, image_path
from .table import ImageTable

_NAMES = ("file_name", "filename", "path", "coco_url")  # of the file; the last one is LVIS's
_LEAST_SIDE = 10  # pixels: of smaller pictures no proportion tells anything
_READERS = 8  # threads: they wait for the disk

HW = tuple[int, int]
"""Height and width in pixels."""

Report = Callable[[Problem], object]


class ImageEntry(NamedTuple):
    """An image of a COCO file.

    Attributes:
        file_name: as it is written.
        image_hw: None if not both sides are given.
    """

    file_name: str
    image_hw: HW | None


class Images(NamedTuple):
    """The images of a dataset.

    Attributes:
        table: of those that can be used.
        row_of: the row of each in the table, by the id that annotations give, or the file name.
        left_out: the ids of the others.
        problems: of images that were left out, or whose size is not the stated one.
        deep: how many have more than 8 bits a channel.
    """

    table: ImageTable
    row_of: dict[Key, int]
    left_out: frozenset[Key]
    problems: list[Problem]
    deep: int


def parse_images(entries: list[object], report: Report) -> dict[Key, ImageEntry]:
    """Return the images by id, but for entries with a problem, which are reported."""
    images: dict[Key, ImageEntry] = {}
    for position, entry in enumerate(entries, start=1):
        try:
            number, image = _parsed(entry)
            if number in images:
                raise Unusable("an image id that occurs twice", f"give it another than {number}")
            images[number] = image
        except Unusable as error:
            report(Problem(error.what, f"entry {position} of 'images'", error.mend))
    return images


def read_images(entries: list[object], folder: Path, annotations: Path, report: Report) -> Images:
    """Find the images, and read the heads of their files.

    Args:
        entries: `images` of a COCO file.
        folder: of the images.
        annotations: the file that names them.
        report: is told of entries that are no images.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such image folder: {folder}")
    images = parse_images(entries, report)
    names = [image.file_name for image in images.values()]
    paths = ImageFinder(folder, annotations).find_all(names)
    problems: list[Problem] = []
    rows: list[tuple[Key, HW, HW, str, str]] = []
    row_of: dict[Key, int] = {}
    row_of_path: dict[str, int] = {}
    deep = 0
    for (key, (name, stated)), path, head in zip(
        images.items(), paths, _heads(folder, paths), strict=True
    ):
        where = f"{name:.300}"
        try:
            if isinstance(path, Unusable):
                raise path
            if isinstance(head, Unusable):
                raise head
            image_hw, annotated, told = settled_size(stated, head)
            row = row_of_path.setdefault(path, len(rows))
            if row < len(rows):
                told = _listed_twice(rows[row][2] == annotated)
            else:
                rows.append((key, image_hw, annotated, name, path))
                deep += head.is_deep
            row_of[key] = row
            problems += [Problem(told.what, where, told.mend, is_used=True)] if told else []
        except Unusable as error:
            problems.append(Problem(error.what, where, error.mend))
    numbers = numbers_of(images)
    keys, sizes, annotated_sizes, file_names, found = zip(*rows, strict=True) if rows else [()] * 5
    return Images(
        table=ImageTable.of(
            [numbers[key] for key in keys], sizes, annotated_sizes, list(file_names), list(found)
        ),
        row_of={name: row for row, name in enumerate(file_names)} | row_of,
        left_out=frozenset(images.keys() - row_of.keys()),
        problems=problems,
        deep=deep,
    )


def _listed_twice(is_same_size: bool) -> Unusable:
    """Say that an image has a second entry; of one size, both are taken as one image."""
    what = "an image that is listed twice"
    if not is_same_size:
        raise Unusable(what, "the entries differ in size: delete one")
    return Unusable(what, "all objects of both are taken: join the two entries")


def check_enough(images: Images) -> None:
    """Refuse a dataset of whose images more than half cannot be used.

    Raises:
        FileNotFoundError: they are missing.
        ValueError: there is another reason.
    """
    lost, total = len(images.left_out), len(images.left_out) + len(images.table)
    if 2 * lost <= total:
        return
    first = images.problems[0]
    message = (
        f"{lost} of {total} images cannot be used: {summarize(images.problems)}; {first.mend:.300}"
    )
    raise (FileNotFoundError if "missing" in first.what else ValueError)(printable(message))


def settled_size(stated: HW | None, head: ImageHead) -> tuple[HW, HW, Unusable | None]:
    """Decide on the one size of an image.

    Where the annotated size is that of the pixels without the rotation noted in EXIF, the annotator
    did not rotate, and neither does `read_image`.

    Args:
        stated: the size that the annotations give, if any.
        head: of the file.

    Returns:
        The size of the image as it is read, the size that its objects refer to, which is as large
        or has the same proportion, and what to tell of a difference.

    Raises:
        Unusable: the sizes have nothing to do with each other.
    """
    own = head.image_hw
    if stated is None or stated == own:
        return own, own, None
    if stated == head.stored_hw:
        return stated, stated, None
    if stated == own[::-1]:
        told = Unusable("an image with height and width swapped", "swap them in its entry")
        return own, own, told
    for actual in (own, head.stored_hw):
        if are_alike(stated, actual):
            mend = f"{_sizes(actual, stated)}: its objects are scaled"
            told = Unusable("an image of another size than annotated", mend)
            return actual, stated, told
    raise Unusable(
        "an image of another shape than annotated",
        f"{_sizes(own, stated)}: put the annotated one in its place, or annotate this one",
    )


def are_alike(image_hw: HW, other_hw: HW) -> bool:
    """Tell whether two sizes have the same proportion, up to the rounding of a side."""
    (height, width), (other_height, other_width) = image_hw, other_hw
    slack = max(height, width, other_height, other_width)
    is_told = slack * _LEAST_SIDE <= min(height * other_width, width * other_height)
    return is_told and abs(height * other_width - width * other_height) < slack


def _sizes(actual: HW, stated: HW) -> str:
    return f"it has {actual[1]} x {actual[0]} pixels, annotated are {stated[1]} x {stated[0]}"


def _parsed(entry: object) -> tuple[Key, ImageEntry]:
    """Return the id and the rest of an entry."""
    key = id_key(entry.get("id")) if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or key is None:
        raise Unusable("an image without a whole number as its 'id'", "number it")
    if isinstance(key, int) and abs(key) > MAX_ID:
        raise Unusable("an image 'id' that is too large", "give it one of at most 63 bits")
    names = (entry.get(name) for name in _NAMES)
    name = next((name for name in names if isinstance(name, str) and name), None)
    if name is None:
        raise Unusable("an image without a 'file_name'", "name its file")
    return key, ImageEntry(name, stated_hw(entry))


def _heads(folder: Path, paths: Sequence[str | Unusable]) -> Iterator[ImageHead | Unusable]:
    def head(path: str | Unusable) -> ImageHead | Unusable:
        if isinstance(path, Unusable):
            return path
        try:
            return read_head(image_path(folder, path))
        except (ValueError, OSError):
            return unreadable()

    with ThreadPoolExecutor(_READERS) as readers:
        yield from readers.map(head, paths)
