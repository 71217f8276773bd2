"""A picture of numbered objects for each image, as Cellpose, StarDist and ImageJ write it."""

from __future__ import annotations

import re
from pathlib import Path

from data.annotations.locate import MISSING_IMAGE
from data.annotations.run_lengths import measure
from data.formats.builder import UNNAMED, CocoBuilder, ConversionResult, Object, header_hw
from data.formats.yolo_files import images_below
from data.problems import Unusable

from .ids import read_ids, regions

_LOSSY = (".jpg", ".jpeg", ".webp")
_SPECK = 10  # pixels
_END = re.compile(r"(_cp)?_(masks?|labels?)$")  # of a mask's name, behind its image's


def read_numbered(image_folder: Path, source: Path) -> ConversionResult:
    """Read the pixels of every number but 0 as an object; all are of the class "object".

    Args:
        image_folder: to which the image names are relative.
        source: the folder of the masks, which are called like their images, or `*_masks`.

    Raises:
        ValueError: nothing can be used.
    """
    found = CocoBuilder()
    images, single, specks = _images(image_folder), [], []
    masks = {mask: images.pop(_name(mask, source), None) for mask in images_below(source)}
    for mask, image in masks.items():
        with found.leaving_out(str(mask)):
            if image is None:
                raise Unusable(MISSING_IMAGE, f"put {mask.stem} into {image_folder}")
            if mask.suffix.lower() in _LOSSY:
                raise Unusable("a mask that is stored with loss", "export it as PNG or TIFF")
            image_hw = header_hw(image)
            ids = read_ids(mask, image_hw).ids
            masks_of = [pixels for number, pixels in regions(ids).items() if number]
            objects = [Object(UNNAMED, pixels) for pixels in masks_of]
            found.add(image.relative_to(image_folder).as_posix(), image_hw, objects, 0)
            single += [len(objects) == 1] * bool(objects)
            specks += [measure(pixels)[1] < _SPECK for pixels in masks_of]
    if all(single) and len(single) > 1:
        mend = "each object needs a number of its own, or all of an image are learned as one"
        found.notice("masks of one number each", f"{len(single)}, all below {source}", mend)
    if sum(specks) > len(specks) / 2:
        where = f"{sum(specks)} of {len(specks)} objects have fewer than {_SPECK} pixels"
        mend = "a number for each object is expected: smoothed edges are read as objects"
        found.notice("masks of many numbers", f"{where}, below {source}", mend)
    if images:
        where = f"{len(images)}, such as {next(iter(images.values()))}"
        found.notice("images without a mask", where, "they are not used")
    return found.finish(source)


def are_paired(images: Path, masks: Path) -> bool:
    """Tell whether some picture in a folder of masks is called like an image."""
    names = _images(images)
    return any(_name(mask, masks) in names for mask in images_below(masks))


def _images(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in images_below(folder)
    }


def _name(mask: Path, folder: Path) -> str:
    """Return what its image is called, without suffix, relative to the folder of the images."""
    return _END.sub("", mask.relative_to(folder).with_suffix("").as_posix())
