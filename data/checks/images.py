"""Problems of the images of a COCO-style dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.annotations.images import Images, read_images
from data.annotations.locate import image_path
from data.bit_depth import scale_of
from data.files import open_file
from data.images import image_content, read_head, read_image
from data.problems import Problem, Unusable, counted, unreadable

_ENDS = (b"\xff\xd9", b"\x00IEND\xaeB`\x82")  # of JPEG and PNG files that are not cut short
_END_LENGTH = max(map(len, _ENDS))
_READERS = 4  # threads
_SHRUNK = 4  # times, for a quick look: of smaller pictures nothing is left
_FLAT = 2  # levels of 255 between the darkest and the brightest pixel
_SHOWN = 6  # scales
_DARK = 12  # of 255, which hardly a pixel reaches


def check_images(
    entries: list[object], folder: Path, annotations: Path
) -> tuple[Images, list[Problem]]:
    """Look at every image file, roughly at the pixels; decode those that look cut short.

    Those of more than 8 bits are decoded, too, and a notice tells if they get several scales.

    Args:
        entries: `images` of a COCO file, whatever they are.
        folder: where the image files are.
        annotations: the file that names them.

    Returns:
        The images that training would use, and the problems, at most one for each entry.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    problems: list[Problem] = []
    images = read_images(entries, folder, annotations, problems.append)
    problems += images.problems
    told = {problem.where for problem in images.problems}
    table, rows = images.table, range(len(images.table))
    paths = [image_path(folder, table.paths.text(row)) for row in rows]
    scales: dict[tuple[float, float], list[str]] = defaultdict(list)
    with ThreadPoolExecutor(_READERS) as readers:
        for row, (flaw, scale) in zip(rows, readers.map(_looked_at, paths), strict=True):
            name = table.file_names.text(row)
            if scale:
                scales[scale].append(name)
            if flaw and name not in told:
                problems.append(Problem(flaw.what, name, flaw.mend))
    if len(scales) > 1:
        problems.append(_several(scales))
    order = {name: row for row, name in enumerate(_names(entries))}
    return images, sorted(problems, key=lambda problem: order.get(problem.where, -1))


def _names(entries: list[object]) -> list[str]:
    return [str(entry.get("file_name")) for entry in entries if isinstance(entry, dict)]


def _several(scales: Mapping[tuple[float, float], Sequence[str]]) -> Problem:
    """Tell that images of equal values are not equally bright."""
    told = [
        f"{bottom:g} to {top:g}: {counted(len(names), 'image')}, such as {names[0]}"
        for (bottom, top), names in sorted(scales.items())
    ]
    where = ", ".join(told[:_SHOWN]) + (f", {len(told) - _SHOWN} more" * (len(told) > _SHOWN))
    mend = "if one camera took them, scale all alike and save them with 8 bits"
    return Problem("images of more than 8 bits with several scales", where, mend, is_notice=True)


def _looked_at(path: Path) -> tuple[Unusable | None, tuple[float, float] | None]:
    """Return what is wrong with a file, if anything, and the scale of one of more than 8 bits."""
    flaw, scale = _flaw(path), None
    with suppress(ValueError, OSError, cv2.error):
        if read_head(path).is_deep:
            content = np.frombuffer(image_content(path), np.uint8)
            values = cv2.imdecode(content, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
            scale = None if values is None else scale_of(values)
    return flaw, scale


def _flaw(path: Path) -> Unusable | None:
    """Return what is wrong with a file, if anything."""
    try:
        gray = _grays(path)
    except (ValueError, OSError):
        return unreadable()
    if not np.ptp(gray) > _FLAT:
        return Unusable(
            "an image of one colour", "look at it: it may be broken, or of another kind"
        )
    if np.percentile(gray, 99) < _DARK:
        mend = "look at it, and make it brighter, or delete it"
        return Unusable("an image that is nearly black", mend)
    return None


def _grays(path: Path) -> NDArray[np.uint8]:
    """Return the brightness of an image, a quarter as large if that is quick to read."""
    is_sound = path.suffix.lower() != ".json" and _ends_well(path)
    head = read_head(path)
    if is_sound and not head.is_deep and min(head.image_hw) >= _SHRUNK:
        content = np.frombuffer(image_content(path), np.uint8)
        small = cv2.imdecode(content, cv2.IMREAD_REDUCED_GRAYSCALE_4)
        if small is not None:
            return small.astype(np.uint8)
    brightest: NDArray[np.uint8] = read_image(path).max(axis=2)
    return brightest


def _ends_well(path: Path) -> bool:
    with open_file(path) as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _END_LENGTH))
        return file.read().endswith(_ENDS)
