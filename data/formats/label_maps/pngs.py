"""Folders of masks: Cityscapes' pictures of numbered objects, or a picture for each object."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from data.annotations.locate import MISSING_IMAGE
from data.annotations.run_lengths import decode, encode
from data.formats.builder import CocoBuilder, ConversionResult, Object, header_hw
from data.formats.output import Output, Picture, write
from data.formats.yolo_files import images_below
from data.problems import Unusable

from .ids import read_ids, read_lines, regions, save

ID_SUFFIX = "_instanceIds.png"
MASKS, OWN_IMAGE = "masks", "images"
"""The folders of one image, where each object has a picture."""

_CITYSCAPES = {
    **{24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 29: "caravan"},
    **{30: "trailer", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
_CLASS_LIST = "classes.txt"
_NUMBERED = re.compile(r"(\d{1,6})_\d+")  # of a mask: its class, from 1, and its own number
_ENDS = re.compile(r"(_gtFine|_gtCoarse)?_instanceIds$|_leftImg8bit$")
_SHARE = 1000  # ids of Cityscapes are a class times this, and the number of the object


def read_pngs(image_folder: Path, source: Path) -> ConversionResult:
    """Read masks as Cityscapes keeps them, or the Data Science Bowl of 2018.

    Cityscapes has `*_instanceIds.png` with 1000 times the class and the number of the object; a
    class alone is a crowd of it. The Bowl has a folder for each image with `images`, where it is,
    and `masks`, a picture for each object: white where the object is. Their class is "object", or
    in a dataset that `write_pngs` wrote what `classes.txt` and the name of the picture say.

    Args:
        image_folder: to which the image names are relative.
        source: the folder of the masks.

    Raises:
        ValueError: nothing can be used.
    """
    found = CocoBuilder()
    id_files = sorted(source.rglob(f"*{ID_SUFFIX}"))
    if id_files:
        _read_cityscapes(found, image_folder, id_files)
        return found.finish(source)
    names = _class_list(source)
    for masks in sorted(path for path in source.rglob(MASKS) if path.is_dir()):
        with found.leaving_out(str(masks)):
            images = list(images_below(masks.parent / OWN_IMAGE))
            if len(images) != 1:
                raise Unusable("masks without an image", f"put it alone into ../{OWN_IMAGE}")
            image_hw = header_hw(images[0])
            files = list(images_below(masks))
            objects: list[Object] = []
            for file in files:
                with found.leaving_out(str(file)):
                    objects.append(_object(file, image_hw, names))
            name = images[0].relative_to(image_folder).as_posix()
            found.add(name, image_hw, objects, len(files))
    return found.finish(source, listed=names)


def write_pngs(output: Output, pictures: Iterable[Picture]) -> None:
    """Write a picture for each object, beside the image, and the classes in `classes.txt`."""
    for picture in pictures:
        folder = output.folder / output.split / picture.stem / MASKS
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()  # of an earlier conversion, which had more objects
        for number, found in enumerate(picture.annotations, start=1):
            label = output.categories.label_of[found["category_id"]] + 1
            pixels = decode(found["segmentation"], picture.image_hw) * np.uint8(255)
            file = folder / f"{label}_{number:04}.png"
            save(file, PilImage.fromarray(np.ascontiguousarray(pixels)))
    lines = "".join(f"{name}\n" for name in output.categories.names)
    write(output.folder / _CLASS_LIST, lines)


def _class_list(source: Path) -> list[str]:
    """Return the classes in the folder or above it, where the splits are."""
    for file in (source / _CLASS_LIST, source.parent / _CLASS_LIST):
        if file.is_file():
            return read_lines(file)
    return []


def _object(file: Path, image_hw: tuple[int, int], names: list[str]) -> Object:
    ids = read_ids(file, image_hw).ids
    pixels = ids > ids.max() // 2  # JPEG spreads a little light around the object
    if not pixels.any():
        raise Unusable("a mask without a pixel", "draw it, or delete it")
    match = _NUMBERED.fullmatch(file.stem)
    label = int(match[1]) if match and names else 0
    if label > len(names):
        raise Unusable("a class number without a name", f"name it in {_CLASS_LIST}")
    return Object(names[label - 1] if label else "object", encode(pixels))


def _read_cityscapes(found: CocoBuilder, image_folder: Path, id_files: Iterable[Path]) -> None:
    images = defaultdict(list)
    for path in images_below(image_folder):
        if not path.name.endswith("Ids.png"):
            images[_ENDS.sub("", path.stem)].append(path)
    for file in id_files:
        with found.leaving_out(str(file)):
            name = _ENDS.sub("", file.stem)
            paths = [path for path in images[name] if path.parent.name == file.parent.name]
            paths = paths or images[name]
            if not paths:
                raise Unusable(MISSING_IMAGE, f"put {name} into {image_folder}, or delete its mask")
            if len(paths) > 1:
                raise Unusable("an image that could be several files", f"keep one {name}")
            image_hw = header_hw(paths[0])
            objects = [
                Object(name, pixels, is_crowd=number < _SHARE)
                for number, pixels in regions(read_ids(file, image_hw).ids).items()
                for name in _thing(number)
            ]
            file_name = paths[0].relative_to(image_folder).as_posix()
            found.add(file_name, image_hw, objects, 0)


def _thing(number: int) -> Iterator[str]:
    """Yield the class of an object or crowd, nothing for what is neither, such as the sky."""
    label = number // _SHARE or number
    if label in _CITYSCAPES:
        yield _CITYSCAPES[label]
    elif number >= _SHARE:
        yield f"class {label}"
