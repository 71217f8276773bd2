"""Pictures whose pixels are numbers of objects: read, and painted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from data.annotations.run_lengths import decode, encode_regions
from data.files import is_file, open_file, read_bytes
from data.formats.builder import header_hw
from data.formats.output import Output, Picture
from data.images import readable_formats
from data.problems import Unusable
from data.sample import Annotation, RunLengths

Ids = NDArray[np.int64]
"""(H, W) of an image, a number for each pixel."""


_MOST_IDS = 20_000  # in one picture
_NO_PHOTOGRAPH = "it seems to be a photograph: put masks there"


class IdMap(NamedTuple):
    """The pixels of a picture as they are stored.

    Attributes:
        ids: of a palette or of grey, as it is; of colours, red + 256 green + 65536 blue.
        palette: (P, 3) uint8 colours of the numbers; None if there is none.
        has_colours: whether the numbers are made of colours.
    """

    ids: Ids
    palette: NDArray[np.uint8] | None
    has_colours: bool


def mask_file(folder: Path, name: str) -> Path:
    """Return the path of a picture that a file names.

    Raises:
        Unusable: it would leave the folder.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise Unusable("a mask outside the dataset", f"put it into {folder}")
    return folder / path


def read_lines(file: Path) -> list[str]:
    """Return the lines of a list of images or classes that are not empty.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        lines = read_bytes(file).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{file} is not a text file in UTF-8") from None
    return list(filter(None, map(str.strip, lines)))


def read_ids(file: Path, image_hw: tuple[int, int]) -> IdMap:
    """Read the numbers of an image's pixels without loss.

    Raises:
        Unusable: the file is missing, cut short, no picture, one of more numbers than objects, or
            of another size than the image.
    """
    if not is_file(file):
        raise Unusable("a missing mask", f"put it into {file.parent}, or delete its entry")
    header_hw(file)  # refuses what is too large
    try:
        with (
            open_file(file) as stream,
            PilImage.open(stream, formats=readable_formats()) as picture,
        ):
            picture.load()
            palette = picture.getpalette() if picture.mode == "P" else None
            has_colours = picture.mode in ("RGB", "RGBA")
            values = np.asarray(picture)
    except (OSError, ValueError, SyntaxError):  # Pillow's for broken PNG
        raise Unusable("a mask that cannot be read", f"write {file.name} anew") from None
    if has_colours:
        values = ids_of_colours(values)
    elif values.ndim == 3:  # grey with transparency
        values = values[..., 0]
    values = values.astype(np.int64, copy=False)
    if values.max() > _MOST_IDS and len(np.unique(values)) > _MOST_IDS:
        raise Unusable("a mask of too many objects", _NO_PHOTOGRAPH)
    if values.shape != image_hw:
        raise Unusable("a mask of another size than its image", "export it again")
    colours = None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)
    return IdMap(values, colours, has_colours)


def ids_of_colours(colours: NDArray[np.integer]) -> Ids:
    """Return red + 256 green + 65536 blue of (..., 3 or 4) colours."""
    ids = np.asarray(colours[..., 2], np.int32)
    for channel in (1, 0):  # one at a time: of a large picture, all at once take gigabytes
        ids = (ids << 8) + colours[..., channel]
    return ids.astype(np.int64)


def colours_of_ids(ids: Ids) -> NDArray[np.uint8]:
    """Return the (..., 3) colours that stand for numbers below 2^24."""
    channels = [(ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)]
    return np.stack(channels, axis=-1)


def regions(ids: Ids) -> dict[int, RunLengths]:
    """Return the pixels of each number that occurs, in rising order.

    Raises:
        Unusable: the picture is noise.
    """
    try:
        return encode_regions(ids)
    except ValueError:
        raise Unusable("a mask of noise", _NO_PHOTOGRAPH) from None


def paint(output: Output, picture: Picture, most: int) -> tuple[Ids, Sequence[Annotation]]:
    """Paint objects into one picture, smaller ones over larger ones.

    What is lost by that is noted: objects that overlap, or are too many.

    Args:
        output: where the objects go.
        picture: the image with its objects.
        most: the largest number of an object.

    Returns:
        The numbers from 1 on, 0 where nothing is; and the objects in the order of their numbers.
    """
    objects = picture.annotations[:most]
    if more := picture.annotations[most:]:
        mend = f"{len(more)} are left out: choose another format"
        output.leave_out(f"more than {most} objects in an image", picture.name, mend)
    masks = [decode(found["segmentation"], picture.image_hw).astype(np.bool_) for found in objects]
    ids: Ids = np.zeros(picture.image_hw, np.int64)
    covered = 0
    order = [(not o["iscrowd"], -np.count_nonzero(m)) for o, m in zip(objects, masks, strict=True)]
    for index in sorted(range(len(masks)), key=order.__getitem__):
        covered += int(np.count_nonzero(ids[masks[index]]))
        ids[masks[index]] = index + 1
    if covered:
        what = "objects that overlap, of which a pixel can have one"
        output.leave_out(
            what, picture.name, f"{covered} pixels are those of the smaller objects alone"
        )
    return ids, objects


def save(file: Path, picture: PilImage.Image) -> None:
    """Write a PNG, and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, format="PNG")
