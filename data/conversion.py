"""A dataset of any format, written in another one."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from data.annotations.coco import CocoInstances
from data.formats.builder import header_hw
from data.formats.coco_file import write_coco
from data.formats.cvat import write_cvat
from data.formats.label_maps.panoptic import write_panoptic
from data.formats.label_maps.pngs import write_pngs
from data.formats.label_maps.voc import write_voc
from data.formats.labelme import write_labelme
from data.formats.output import Output, Picture
from data.formats.splits import find_test_split, split_of
from data.formats.via import write_via
from data.formats.yolo import write_yolo

from .catalog import SHAPES, Split, open_dataset, resolve_dataset
from .classes import Categories
from .files import IMAGE_SUFFIXES
from .images import format_suffix, image_content, is_embedded
from .problems import Problem, Unusable

Transfer = Literal["copy", "link", "none"]


class _Writer(NamedTuple):
    """How a format is written.

    Attributes:
        write: writes the annotations of a split.
        images: where its images go, with {split}, {stem}, {name} and {file} of an image.
        states_size: whether the annotations can be of another size than the image file.
        holds_crowds: whether it can tell crowds.
        holds_boxes: whether it has a way for objects with a box alone.
        holds_any_name: whether classes may be called anything; elsewhere names stand in lines.
    """

    write: Callable[[Output, Iterable[Picture]], None]
    images: str
    states_size: bool = False
    holds_crowds: bool = False
    holds_boxes: bool = False
    holds_any_name: bool = False


WRITERS = {
    "coco": _Writer(write_coco, "images/{split}/{name}", True, True, True, True),
    "yolo": _Writer(write_yolo, "images/{split}/{name}", holds_boxes=True),
    "labelme": _Writer(write_labelme, "{split}/{name}", states_size=True),
    "via": _Writer(write_via, "{split}/{name}"),
    "cvat": _Writer(write_cvat, "{split}/images/{name}", states_size=True),
    "voc": _Writer(write_voc, "JPEGImages/{name}", holds_crowds=True),
    "panoptic": _Writer(
        write_panoptic, "images/{split}/{name}", True, holds_crowds=True, holds_any_name=True
    ),
    "pngs": _Writer(write_pngs, "{split}/{stem}/images/{file}"),
}
"""The formats that can be written."""


_ALL = PurePosixPath("all")
_UP = ("..", "/", ".")  # parts of names that lead out of a folder
_NO_NAME = re.compile(r"^\.|^\s+|\s+(?=\.\w+$)")  # what lists of files and readers do not keep
_NOT_IN_LINES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


@dataclass
class ImagePlaces:
    """Puts images where a format wants them, under names of their own.

    Attributes:
        folder: of the whole dataset.
        pattern: see `_Writer.images`.
        transfer: what becomes of the files.
    """

    folder: Path
    pattern: str
    transfer: Transfer
    taken: set[str] = field(default_factory=set)

    def put(self, source: Path, name: str, split: str) -> str:
        """Put an image there; return its name, which is new if another one has it.

        Args:
            source: the file.
            name: of the image, which may be anything: it leads nowhere out of the folder.
            split: what it is in.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        path = PurePosixPath(*(self._part(part) for part in parts if part not in _UP))
        if not split and self.pattern.startswith("{split}/") and path.parts[1:]:
            # A folder called like a split would be taken for it, and what is beside it for none.
            path = _ALL / path if split_of(path.parts[0]) else path
        if is_embedded(source):
            path = path.with_suffix(format_suffix(source))
        elif self.transfer != "none" and path.suffix.lower() not in IMAGE_SUFFIXES:
            path = path.with_name(f"{path.name}{format_suffix(source)}")
        stem, number = path.with_suffix(""), 1
        while (key := self._key(stem, path.suffix, split)) in self.taken:
            number += 1
            stem = path.with_name(f"{path.stem}_{number}")
        self.taken.add(key)
        target = self._place(stem, path.suffix, split)
        if self.transfer != "none":
            _transfer(source, target, self.transfer)
        return f"{stem}{path.suffix}"

    def _part(self, part: str) -> str:
        """Return a name that every format can hold, unless the files keep those that they have."""
        if self.transfer == "none":
            return part
        return _NO_NAME.sub("_", _NOT_IN_LINES.sub("_", part))

    def _key(self, stem: PurePosixPath, suffix: str, split: str) -> str:
        """Return what may not be the same for two images: files beside them differ in suffix."""
        return str(self._place(stem, suffix, split).with_suffix("")).lower()

    def _place(self, stem: PurePosixPath, suffix: str, split: str) -> Path:
        place = self.pattern.format(
            split=split,
            name=f"{stem}{suffix}",
            file=f"{stem.name}{suffix}",
            stem=stem,
        )
        return self.folder / place.lstrip("/")


def convert_dataset(
    name: str, folder: Path, format: str, transfer: Transfer = "copy"
) -> list[Problem]:
    """Write a dataset in another format.

    Args:
        name: see `data.catalog.resolve_dataset`.
        folder: where it is written; what is there already stays, unless it has the same name.
        format: one of `WRITERS`.
        transfer: whether images are copied, linked (copied where that cannot be), or left alone.

    Returns:
        What the format cannot hold, or could not be read of the images.

    Raises:
        ValueError: no such dataset, none that has files, or classes that would be called the same.
        OSError: something cannot be written.
    """
    if name == SHAPES:
        raise ValueError(f"{SHAPES}: generated scenes have no files: write them by make_shapes.py")
    datasets = _open(name)
    categories = all_classes([dataset.categories for dataset in datasets.values()])
    number_of = categories.id_of
    writer = WRITERS[format]
    problems = [
        Problem("a class that is listed twice", name, "it is written once", is_used=True)
        for dataset in datasets.values()
        for name, count in Counter(dataset.categories.names).items()
        if count > 1
    ]
    problems += _unused_test_split(Path(name), datasets.values())
    if not writer.holds_any_name:
        categories = _in_lines(categories, format, problems)
    images = ImagePlaces(folder, writer.images, transfer)
    for split, dataset in datasets.items():
        holds = writer.holds_crowds, writer.holds_boxes
        output = Output(folder, split, list(datasets), categories, *holds, problems)
        pictures = _pictures(dataset, number_of, output, images, writer.states_size)
        writer.write(output, pictures)
    return problems


def _unused_test_split(source: Path, datasets: Iterable[CocoInstances]) -> Iterator[Problem]:
    """Tell of a split to test on, unless it is one of those that are written."""
    folder = source.parent if source.suffix in (".yaml", ".yml") else source
    test = find_test_split(folder)
    taken = [dataset.image_path(0).absolute() for dataset in datasets if len(dataset)]
    if test is None or any(test.absolute() in path.parents for path in taken):
        return
    mend = "it stays where it is"
    with suppress(ValueError):
        resolve_dataset(str(test))
        mend = "convert that by itself"
    yield Problem("a split to test on", str(test), mend)


def _open(name: str) -> dict[str, CocoInstances]:
    """Open the splits that there are; one that is not split is called ""."""
    paths = resolve_dataset(name)
    wanted: tuple[Split, ...] = ("train",) if paths.is_shared else ("train", "val")
    opened = {split: open_dataset(name, split) for split in wanted if paths.has(split)}
    return {
        "" if paths.is_shared else split: dataset
        for split, dataset in opened.items()
        if isinstance(dataset, CocoInstances)
    }


def all_classes(lists: Sequence[Categories]) -> Categories:
    """Join the classes of all splits by name: those of the first one keep their ids."""
    first, *others = lists
    numbers = dict(first.id_of)
    added = dict.fromkeys(name for other in others for name in other.names if name not in numbers)
    numbers |= zip(added, count(max(numbers.values(), default=0) + 1))
    return Categories.from_numbers((number, name) for name, number in numbers.items())


def _in_lines(categories: Categories, format: str, problems: list[Problem]) -> Categories:
    """Return the classes by names that can stand in a line, and note those that change."""
    names = [_NOT_IN_LINES.sub(" ", name).strip() for name in categories.names]
    counts = Counter(names)
    for name, written in zip(categories.names, names, strict=True):
        if not written or counts[written] > 1:
            raise ValueError(
                f"class {name!r}: {format} would call it {written!r}, as no class or another one "
                "is called; rename it, or choose coco"
            )
        if written != name:
            what = "a class with a name that this format cannot hold"
            problems.append(Problem(what, name, f"it is called {written} now", is_used=True))
    return Categories.from_numbers(zip(categories.category_ids, names, strict=True))


def _pictures(
    dataset: CocoInstances,
    number_of: Mapping[str, int],
    output: Output,
    images: ImagePlaces,
    states_size: bool,
) -> Iterator[Picture]:
    """Yield the images, after each is put where it belongs."""
    names = dataset.categories.name_of
    for index in range(len(dataset)):
        info, source = dataset.image_info(index), dataset.image_path(index)
        image_hw = info["height"], info["width"]
        if not states_size and (wrong := _wrong_size(source, image_hw)):
            output.problems.append(wrong)
            continue
        listed = dataset.annotations(index)
        for found in listed:
            found["category_id"] = number_of[names[found["category_id"]]]
        annotations = list(output.usable(info["file_name"], image_hw, listed))
        if listed and not annotations:  # without objects, it would say that there are none
            mend = "choose another format"
            output.leave_out("an image with none of its objects", info["file_name"], mend)
            continue
        name = images.put(source, info["file_name"], output.split)
        yield Picture(name, source, image_hw, annotations)


def _wrong_size(source: Path, image_hw: tuple[int, int]) -> Problem | None:
    try:
        if header_hw(source) == image_hw:
            return None
    except Unusable as error:
        return Problem(error.what, str(source), error.mend)
    mend = "it is annotated in another size or rotation, which coco, labelme and cvat can state"
    return Problem("an image of another size than annotated", str(source), mend)


def _transfer(source: Path, target: Path, transfer: Transfer) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if target.samefile(source):
            return
        target.unlink()  # rather than to write through a link
    if is_embedded(source):
        target.write_bytes(image_content(source))
        return
    if transfer == "link":
        with suppress(OSError):  # on another disk, or one without links
            os.link(source.resolve(), target)
            return
    shutil.copyfile(source, target)
