"""Pascal VOC segmentation: for each image one picture of its classes and one of its objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from data.annotations.locate import MISSING_IMAGE
from data.annotations.run_lengths import encode
from data.classes import PASCAL_CLASSES
from data.formats.builder import CocoBuilder, ConversionResult, Object, header_hw
from data.formats.output import Output, Picture, write
from data.formats.yolo_files import images_below
from data.problems import Unusable

from .ids import IdMap, Ids, ids_of_colours, mask_file, paint, read_ids, read_lines, regions, save

CLASSES, OBJECTS, IMAGES = "SegmentationClass", "SegmentationObject", "JPEGImages"
"""The folders of a dataset."""

_LISTS = "ImageSets/Segmentation"
_LABEL_MAP = "labelmap.txt"
_VOID = 255
_CHANNEL = re.compile(r"\s*[0-9]{1,3}\s*")  # of a colour
_BORDER = 11  # pixels: the lines around objects, which are void too, are thinner


class _Classes(NamedTuple):
    """The classes of a dataset.

    Attributes:
        names: by number; 0 is the background.
        numbers: by colour, as `ids_of_colours` counts them.
        are_listed: whether a file lists them.
    """

    names: dict[int, str]
    numbers: dict[int, int]
    are_listed: bool


def read_voc(image_folder: Path, source: Path) -> ConversionResult:
    """Read the objects, each of the class that most of its pixels have.

    The classes are those of `labelmap.txt`, as CVAT writes it, else Pascal's 20. What is void is a
    crowd of its class, or of every class; but not the lines around objects, in Pascal's own files.

    Args:
        image_folder: where the images are.
        source: a list of names without suffix in ImageSets/Segmentation, or the folder of it all.

    Raises:
        ValueError: a list cannot be read, or nothing can be used.
    """
    root = next(
        (folder for folder in (source, *source.parents) if (folder / OBJECTS).is_dir()), source
    )
    classes = _classes(root / _LABEL_MAP)
    images = {
        path.relative_to(image_folder).with_suffix("").as_posix(): path
        for path in images_below(image_folder)
    }
    found = CocoBuilder()
    for name in _listed(source, root):
        with found.leaving_out(f"{root / OBJECTS / name}.png"):
            if name not in images:
                raise Unusable(MISSING_IMAGE, f"put it into {image_folder}, or take it out")
            image_hw = header_hw(images[name])
            objects_map, class_map = (
                read_ids(mask_file(root / folder, f"{name}.png"), image_hw)
                for folder in (OBJECTS, CLASSES)
            )
            numbers = _class_numbers(class_map, classes)
            ids = _with_void(objects_map)
            masks = {key: mask for key, mask in regions(ids).items() if key not in (0, _VOID)}
            labels = _labels(ids, numbers)
            objects: list[Object] = []
            for number, mask in masks.items():
                with found.leaving_out(f"{name}, object {number}"):
                    objects.append(Object(_name(labels[number], classes), mask))
            crowds = list(_crowds(ids == _VOID, numbers, classes))
            file_name = images[name].relative_to(image_folder).as_posix()
            found.add(file_name, image_hw, [*objects, *crowds], len(masks))
    names = [name for number, name in sorted(classes.names.items()) if number]
    return found.finish(source, listed=names if classes.are_listed else ())


def write_voc(output: Output, pictures: Iterable[Picture]) -> None:
    """Write the pictures, the list of the split, and the classes in `labelmap.txt`."""
    names = output.categories.names
    if len(names) >= _VOID:
        raise ValueError(f"{len(names)} classes: voc has at most {_VOID - 1}, coco any number")
    stems = []
    for picture in pictures:
        ids, objects = paint(output, picture, _VOID - 1)
        labels = [output.categories.label_of[found["category_id"]] + 1 for found in objects]
        numbers = [_VOID if found["iscrowd"] else i for i, found in enumerate(objects, start=1)]
        for folder, values in ((CLASSES, labels), (OBJECTS, numbers)):
            pixels = np.array([0, *values], np.uint8)[ids]
            png = PilImage.fromarray(pixels)
            png.putpalette(colour_map().tobytes())
            save(output.folder / folder / f"{picture.stem}.png", png)
        stems.append(picture.stem)
    listing = output.folder / _LISTS / f"{output.split or 'trainval'}.txt"
    write(listing, "".join(f"{stem}\n" for stem in stems))
    colours = colour_map().tolist()
    lines = [
        f"{name}:{','.join(map(str, colour))}::\n"
        for name, colour in zip(("background", *names), colours, strict=False)
    ]
    text = "# label:color_rgb:parts:actions\n" + "".join(lines)
    write(output.folder / _LABEL_MAP, text)


def voc_lists(root: Path) -> list[Path]:
    """Return the lists of images of a dataset."""
    return sorted((root / _LISTS).glob("*.txt"))


def colour_map() -> NDArray[np.uint8]:
    """Return Pascal's (256, 3) colours: the bits of a number, dealt to red, green and blue."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> 3 * bit + channel & 1) << 7 - bit
    return colours.astype(np.uint8)


def _classes(file: Path) -> _Classes:
    colours = ids_of_colours(colour_map()).tolist()
    if not file.is_file():
        names = {0: "background", **dict(enumerate(PASCAL_CLASSES.names, start=1))}
        return _Classes(names, {colour: n for n, colour in enumerate(colours)}, False)
    classes = _Classes({}, {colours[_VOID]: _VOID}, True)
    for line in read_lines(file):
        if line.startswith("# label:color"):
            continue
        name, colour = [*line.rsplit(":", 3), ""][:2]
        is_first = name == "background" and 0 not in classes.names
        number = 0 if is_first else len(classes.names.keys() - {0}) + 1
        classes.names[number] = name
        channels = [int(channel) for channel in colour.split(",") if _CHANNEL.fullmatch(channel)]
        is_given = len(channels) == 3
        code = int(ids_of_colours(np.array(channels))) if is_given else colours[number % _VOID]
        classes.numbers[code] = number
    return classes


def _listed(source: Path, root: Path) -> Iterator[str]:
    """Yield the names of a list, else of all pictures."""
    if source.is_dir():
        for path in sorted((root / OBJECTS).rglob("*.png")):
            yield path.relative_to(root / OBJECTS).with_suffix("").as_posix()
        return
    yield from read_lines(source)


def _class_numbers(class_map: IdMap, classes: _Classes) -> Ids:
    """Return the number of the class of each pixel, 0 for the background and `_VOID`."""
    if not class_map.has_colours and (class_map.palette is None or not classes.are_listed):
        return class_map.ids
    colours = class_map.ids
    if class_map.palette is not None:
        known = ids_of_colours(class_map.palette)
        colours = known[class_map.ids.clip(max=len(known) - 1)]
    values, inverse = np.unique(colours, return_inverse=True)
    if class_map.palette is not None and not classes.numbers.keys() >= set(values.tolist()):
        return class_map.ids  # of a palette without meaning
    numbers = np.array([classes.numbers.get(value, 0) for value in values.tolist()], np.int64)
    return numbers[inverse].reshape(colours.shape)


def _with_void(objects_map: IdMap) -> Ids:
    """Return the numbers of the objects, void being `_VOID` also where they are colours."""
    if not objects_map.has_colours:
        return objects_map.ids
    void = int(ids_of_colours(colour_map()[_VOID]))
    ids = np.where(objects_map.ids == _VOID, 1 << 24, objects_map.ids)  # a red object
    return np.where(ids == void, _VOID, ids)


def _labels(ids: Ids, numbers: Ids) -> dict[int, int]:
    """Return the class number that most pixels of each object have, 0 where none has one."""
    values, inverse = np.unique(ids, return_inverse=True)
    pairs = inverse.reshape(-1) * (_VOID + 1) + numbers.clip(0, _VOID).ravel()
    counts = np.bincount(pairs, minlength=len(values) * (_VOID + 1)).reshape(len(values), -1)
    counts = counts[:, :_VOID]
    counts[:, 0] = 0
    return dict(zip(values.tolist(), counts.argmax(1).tolist(), strict=True))


def _name(label: int, classes: _Classes) -> str:
    if not label or label not in classes.names:
        raise Unusable("an object without a class", f"give it one of {_LABEL_MAP}")
    return classes.names[label]


def _crowds(void: NDArray[np.bool_], numbers: Ids, classes: _Classes) -> Iterator[Object]:
    for number in np.unique(numbers[void]).tolist():
        part = void & (numbers == number)
        if not classes.are_listed:
            opened = cv2.morphologyEx(
                part.astype(np.uint8), cv2.MORPH_OPEN, np.ones((_BORDER, _BORDER), np.uint8)
            )
            part = opened.astype(np.bool_)
        of_one = [classes.names[number]] if number in classes.names and number else []
        for name in of_one or [name for other, name in classes.names.items() if other]:
            if part.any():
                yield Object(name, encode(part), is_crowd=True)
