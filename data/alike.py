"""Images that belong together: copies, and frames of one video."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path, PurePath

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from .images import read_image

Prints = NDArray[np.float32]
"""(N, 256) gray values of tiny versions of images, 0..255; NaN where there is nothing to see."""

_SIDE = 16  # of a print, in pixels
_FLATTEST = 3.0  # gray levels; the print of a flatter image tells nothing
# Measured: at most 0.5 between frames half a second apart, of three clips; 1.6 between photographs
# of COCO, and of 5400 pairs ten below 0.7.
_NEXT_FRAME = 0.7
_COPY = 0.1  # how far all of a print differs, as a share of its contrast
_NOISE = 0.5  # gray levels that a print differs by after another compression
_BLOCK = 1024  # prints that are compared at once

_EXPORTED = re.compile(r"[_.](jpe?g|png|bmp|webp|tiff?)\.rf\.\w+$", re.IGNORECASE)  # by Roboflow
_NUMBER = re.compile(r"(\d+)(?!.*\d)")  # the last one of a name
_VIDEO = re.compile(  # also as in clipA_1
    r"(?<![A-Za-z])"
    r"(?i:video|vid|clip|frame|seq|sequence|scene|shot|cam|camera|mov|movie|track)s?(?![a-z])"
)


def groups_of(names: Sequence[str], files: Sequence[Path]) -> NDArray[np.int64]:
    """Group images that are alike, or that are frames of one video.

    Frames follow one another by name and look alike; or their names differ in the last number, and
    say "video", "clip", "frame" or the like, or their folder does. Copies belong together whatever
    they are called, and augmented ones as Roboflow names them.

    Args:
        names: of N images, relative to their folder, each once.
        files: where they are.

    Returns:
        (N,) for each image the index of the first one that it belongs to.
    """
    prints = prints_of(tuple(files))
    first = list(range(len(names)))  # of the images that each belongs to, one that came earlier

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = index = first[first[index]]
        return index

    for pair in chain(_neighbours(names, prints), _called_alike(names), _copies(prints)):
        earlier, later = sorted(map(root, pair))
        first[later] = earlier
    return np.array([root(index) for index in range(len(names))], np.int64)


@lru_cache(maxsize=4)
def prints_of(files: tuple[Path, ...]) -> Prints:
    """Make a print of each image; unreadable ones have none."""
    with ThreadPoolExecutor() as pool:
        prints = [*pool.map(_print, files)]
    return np.array(prints, np.float32).reshape(-1, _SIDE**2)


def difference(prints: Prints, others: Prints) -> NDArray[np.float32]:
    """Compare N prints with N others: (N,) how far pixels differ, as a share of the contrast.

    A camera that moves a little, or adapts its exposure, makes little difference.
    """
    coarse, other = (_coarse(each) for each in (prints, others))
    contrast = np.sqrt(coarse.std(axis=1) * other.std(axis=1))
    apart: NDArray[np.float32] = np.sqrt(((coarse - other) ** 2).mean(axis=1)) / contrast
    return apart


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts frame 9 before frame 10; texts and numbers take turns in it."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _neighbours(names: Sequence[str], prints: Prints) -> Iterator[tuple[int, int]]:
    """Yield pairs of images that follow one another by name, or the next but one, and are alike."""
    order = np.array(sorted(range(len(names)), key=lambda index: natural_key(names[index])), int)
    for step in (1, 2):
        pairs = np.column_stack((order[:-step], order[step:]))
        alike = difference(prints[pairs[:, 0]], prints[pairs[:, 1]]) < _NEXT_FRAME
        yield from map(tuple, pairs[alike].tolist())


def _called_alike(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield pairs of frames that follow one another in a video, and of exports of one image."""
    sequences: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, name in enumerate(names):
        path = PurePath(name.replace("\\", "/"))
        stem = _EXPORTED.sub("", path.stem)
        number = _NUMBER.search(stem)
        key = stem if number is None else f"{stem[: number.start()]}#{stem[number.end() :]}"
        place = (path.parent / key).as_posix()
        sequences[place].append((int(number[1]) if number else 0, index))
    for place, members in sequences.items():
        is_video = "#" in place and _VIDEO.search(place) is not None
        for (frame, index), (later_frame, later) in pairwise(sorted(members)):
            if is_video or frame == later_frame:
                yield index, later


def _copies(prints: Prints) -> Iterator[tuple[int, int]]:
    """Yield pairs of images that look the same: of all with nearly the same mean brightness."""
    means, contrasts = prints.mean(axis=1), prints.std(axis=1)
    seen = np.flatnonzero(~np.isnan(means))
    seen = seen[np.argsort(means[seen], kind="stable")]
    reach = _COPY * contrasts[seen] + _NOISE
    brightest = np.searchsorted(means[seen], means[seen] + reach, "right")
    for first in range(0, len(seen), _BLOCK):
        block = slice(first, min(first + _BLOCK, len(seen)))
        for start in range(first, int(brightest[block].max()), _BLOCK):
            others = slice(start, start + _BLOCK)
            apart = _distances(prints[seen[block]], prints[seen[others]])
            near = apart < np.minimum(reach[block, None], reach[None, others])
            for row, column in np.argwhere(near).tolist():
                if first + row < start + column:
                    yield int(seen[first + row]), int(seen[start + column])


def _coarse(prints: Prints) -> Prints:
    """Return the gray values in (N, 64), without their mean."""
    half = _SIDE // 2
    coarse = prints.reshape(-1, half, 2, half, 2).mean(axis=(2, 4)).reshape(-1, half**2)
    centred: Prints = coarse - coarse.mean(axis=1, keepdims=True)
    return centred


def _distances(prints: Prints, others: Prints) -> NDArray[np.float32]:
    """Return the (N, M) root mean squares of differences in gray levels."""
    a, b = prints - np.float32(128), others - np.float32(128)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    apart: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0) / a.shape[1])
    return apart


def _print(file: Path) -> NDArray[np.float32]:
    try:
        gray = _gray(file)
    except Exception:  # decoders of hostile bytes raise nearly every type there is
        return np.full(_SIDE**2, np.nan, np.float32)
    small = cv2.resize(gray.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    flat = small.std() < _FLATTEST
    return np.full(_SIDE**2, np.nan, np.float32) if flat else small.reshape(-1).astype(np.float32)


def _gray(file: Path) -> NDArray[np.uint8]:
    with PilImage.open(file) as image:
        if image.format == "JPEG":
            image.draft("L", (4 * _SIDE, 4 * _SIDE))  # decodes an eighth of the pixels
            return np.asarray(image.convert("L"))
    return np.asarray(cv2.cvtColor(read_image(file), cv2.COLOR_RGB2GRAY), np.uint8)
