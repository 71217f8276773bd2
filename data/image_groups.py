"""Images that belong together: copies, and frames of one video."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from .duplicates import DisjointSets, Thumbnails, grey_thumbnails, near_duplicates
from .files import natural_key

_SIDE = 8  # of what is compared of frames, in pixels
# Measured: at most 0.5 between frames half a second apart, of three clips; 1.6 between photographs
# of COCO, and of 5400 pairs ten below 0.7.
_NEXT_FRAME = 0.7

_EXPORTED = re.compile(r"[_.](jpe?g|png|bmp|webp|tiff?)\.rf\.\w+$", re.IGNORECASE)  # by Roboflow
_NUMBER = re.compile(r"(\d+)(?!.*\d)")  # the last one of a name
_VIDEO = re.compile(  # also as in clipA_1
    r"(?<![A-Za-z])"
    r"(?i:video|vid|clip|frame|seq|sequence|scene|shot|cam|camera|mov|movie|track)s?(?![a-z])"
)


def group_images(names: Sequence[str], files: Sequence[Path]) -> NDArray[np.int64]:
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
    greys = grey_thumbnails(tuple(files))
    copies = (pairwise(duplicates.indices) for duplicates in near_duplicates(files))
    groups = DisjointSets(len(names))
    for pair in chain(_neighbours(names, greys), _same_sequence(names), *copies):
        groups.union(*pair)
    return np.array([groups.find(index) for index in range(len(names))], np.int64)


def difference(greys: Thumbnails, others: Thumbnails) -> NDArray[np.float64]:
    """Compare N pictures with N others: (N,) how far pixels differ, as a share of the contrast.

    A camera that moves a little, or adapts its exposure, makes little difference. Where there is
    nothing to see, it is no finite number.
    """
    coarse, other = (_coarse(each) for each in (greys, others))
    contrast = np.sqrt(coarse.std(axis=1) * other.std(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        apart: NDArray[np.float64] = np.sqrt(((coarse - other) ** 2).mean(axis=1)) / contrast
    return apart


def _neighbours(names: Sequence[str], greys: Thumbnails) -> Iterator[tuple[int, int]]:
    """Yield pairs of images that follow one another by name, or the next but one, and are alike."""
    order = np.array(sorted(range(len(names)), key=lambda index: natural_key(names[index])), int)
    for step in (1, 2):
        pairs = np.column_stack((order[:-step], order[step:]))
        alike = difference(greys[pairs[:, 0]], greys[pairs[:, 1]]) < _NEXT_FRAME
        yield from map(tuple, pairs[alike].tolist())


def _same_sequence(names: Sequence[str]) -> Iterator[tuple[int, int]]:
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


def _coarse(greys: Thumbnails) -> NDArray[np.float64]:
    """Return the gray values in (N, 64), without their mean."""
    part = greys.shape[1] // _SIDE
    coarse = greys.reshape(-1, _SIDE, part, _SIDE, part).mean(axis=(2, 4)).reshape(-1, _SIDE**2)
    centred: NDArray[np.float64] = coarse - coarse.mean(axis=1, keepdims=True)
    return centred
