"""Pictures that are there twice: byte for byte, or nearly the same to look at.

Nearly the same is what a perceptual hash (Zauner 2010: signs of the lowest frequencies of a cosine
transform) and the small grey pictures behind it agree in. No picture is compared with all others:
of each hash eight parts are looked up, and two pictures meet where one of them is equal.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .files import is_file, open_file
from .images import read_image

Thumbnails = NDArray[np.uint8]
"""(N, 32, 32) tiny versions of pictures; 0 everywhere where there is nothing to see."""

_SIDE = 32  # of the small grey pictures, in pixels
_PARTS, _BITS = 8, 16  # of a hash
_LEAST_CONTRAST = 4.0  # standard deviation of grey values: flatter pictures have no features
_MOST_FLIPPED = 24  # of the 128 bits
_ALIKE = 0.985  # correlation of the grey pictures
_NEXT = 32  # pictures with an equal part of the hash that each is compared with
_WORKERS = 4
_END = 4096  # bytes of a file that tell most of one size apart


class DuplicateGroup(NamedTuple):
    """Pictures that are the same.

    Attributes:
        indices: of the files, two or more, in order.
        is_exact: whether they are equal byte for byte.
    """

    indices: tuple[int, ...]
    is_exact: bool


class DisjointSets:
    """Disjoint sets of the numbers below `count`, each known by its smallest member."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, item: int) -> int:
        """Return the smallest member of an item's group."""
        while self._parents[item] != item:
            self._parents[item] = item = self._parents[self._parents[item]]
        return item

    def union(self, one: int, other: int) -> None:
        """Make one group of those of two items."""
        earlier, later = sorted((self.find(one), self.find(other)))
        self._parents[later] = earlier

    def members(self) -> dict[int, list[int]]:
        """Return first member -> all members, in order."""
        groups: dict[int, list[int]] = {}
        for item in range(len(self._parents)):
            groups.setdefault(self.find(item), []).append(item)
        return groups


def exact_duplicates(files: Sequence[Path]) -> list[DuplicateGroup]:
    """Group the files that are equal byte for byte; of those that cannot be read there are none.

    Only files of one size with one end are read as a whole.
    """
    alike: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        if is_file(file) and (size := file.stat().st_size):
            alike[size, _digest(file, max(0, size - _END))].append(index)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index in (index for same in alike.values() if len(same) > 1 for index in same):
        if digest := _digest(files[index]):
            groups[digest].append(index)
    found = (DuplicateGroup(tuple(group), True) for group in groups.values() if len(group) > 1)
    return sorted(found)


def near_duplicates(
    files: Sequence[Path], exact: Iterable[DuplicateGroup] = ()
) -> list[DuplicateGroup]:
    """Group the pictures that look the same.

    Pictures without features, such as black ones, are like no other.

    Args:
        files: of the pictures.
        exact: what `exact_duplicates` has found: of each group the first stands for all.
    """
    pictures = grey_thumbnails(tuple(files))
    copies = [index for duplicates in exact for index in duplicates.indices[1:]]
    kept = np.setdiff1d(np.flatnonzero(pictures.any(axis=(1, 2))), copies).tolist()
    groups = _group_similar(pictures[kept])
    return sorted(DuplicateGroup(tuple(kept[place] for place in group), False) for group in groups)


@lru_cache(maxsize=4)
def grey_thumbnails(files: tuple[Path, ...]) -> Thumbnails:
    """Return a tiny version of each picture; of what is unreadable or flat there is none."""
    with ThreadPoolExecutor(_WORKERS) as workers:
        return np.array([*workers.map(_grey_thumbnail, files)], np.uint8).reshape(-1, _SIDE, _SIDE)


def _digest(file: Path, start: int = 0) -> bytes:
    """Return a fingerprint of a file from a byte on; of one that cannot be read, none."""
    try:
        with open_file(file) as stream:
            stream.seek(start)
            return hashlib.blake2b(stream.read()).digest()
    except OSError:
        return b""


def _grey_thumbnail(file: Path) -> Thumbnails:
    nothing = np.zeros((_SIDE, _SIDE), np.uint8)
    try:
        grey = cv2.cvtColor(read_image(file, least_side=2 * _SIDE), cv2.COLOR_RGB2GRAY)
    except (OSError, ValueError):
        return nothing
    small = np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    return small if small.std() >= _LEAST_CONTRAST else nothing


def _hashes(pictures: Thumbnails) -> NDArray[np.uint16]:
    """Return (N, 8) parts of hashes, those of the lowest frequencies first."""
    rows, columns = np.indices((_SIDE, _SIDE))
    order = np.argsort((rows + columns).ravel(), kind="stable")[1 : 1 + _PARTS * _BITS]
    waves = [cv2.dct(picture.astype(np.float32)).ravel()[order] for picture in pictures]
    signs = np.array(waves, np.float32).reshape(-1, _PARTS * _BITS) > 0
    return np.packbits(signs, axis=1).view(np.uint16)


def _near_pairs(hashes: NDArray[np.uint16]) -> Iterator[tuple[int, int]]:
    """Yield pairs of N pictures whose hashes nearly agree: at most 256 N of them."""
    for part in range(_PARTS):
        # Equal parts stand together, and among these what is nearly equal.
        order = np.lexsort((*hashes.T[::-1], hashes[:, part]))
        for step in range(1, _NEXT + 1):
            first, second = order[:-step], order[step:]
            meets = hashes[first, part] == hashes[second, part]
            first, second = first[meets], second[meets]
            flipped = np.unpackbits((hashes[first] ^ hashes[second]).view(np.uint8), axis=1)
            near = flipped.sum(axis=1) <= _MOST_FLIPPED
            yield from zip(first[near].tolist(), second[near].tolist(), strict=True)


def _group_similar(pictures: Thumbnails) -> list[list[int]]:
    """Group N small grey pictures that look the same, two or more in a group."""
    groups = DisjointSets(len(pictures))
    for one, other in _near_pairs(_hashes(pictures)):
        is_new = groups.find(one) != groups.find(other)
        if is_new and _correlation(pictures[one], pictures[other]) >= _ALIKE:
            groups.union(one, other)
    return [group for group in groups.members().values() if len(group) > 1]


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
