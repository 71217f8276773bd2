"""Pictures and objects that are there twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data.annotations.run_lengths import encode
from data.checks.dataset import find_copies
from data.checks.duplicates import Box, box_iou, duplicate_pairs
from data.duplicates import DuplicateGroup, exact_duplicates, near_duplicates
from data.sample import RunLengths

Pixels = NDArray[np.uint8]


def scene(seed: int, side: int = 160) -> Pixels:
    """A smooth random picture, which no other resembles."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (side * 4 // 3, side)), np.uint8)


def write(path: Path, pixels: Pixels, quality: int = 95) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return path


def test_of_nothing() -> None:
    assert exact_duplicates([]) == near_duplicates([]) == []
    nowhere = [Path("gone"), Path("x" * 5000), Path("\0")]
    assert exact_duplicates(nowhere) == near_duplicates(nowhere) == []
    assert find_copies([]) == find_copies(nowhere) == []


def test_equal_files(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abcdef"]
    middle = b"1" * 4500 + b"2" + b"1" * 4499
    for file, content in zip(files, (b"1" * 9000, middle, b"1" * 9000), strict=False):
        file.write_bytes(content)
    files[3].write_bytes(b"1" * 9000)
    files[4].write_bytes(b"2" + b"1" * 8999)  # the same size and end
    files[5].write_bytes(b"")
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert exact_duplicates([*files, empty]) == [DuplicateGroup((0, 2, 3), True)]
    problems = find_copies([*files, files[0]])
    assert [problem.where for problem in problems] == [
        f"{files[2]} is {files[0]}",
        f"{files[3]} is {files[0]}",
    ]


CHANGES: dict[str, Callable[[Pixels], tuple[Pixels, int]]] = {
    "encoded": lambda pixels: (pixels, 30),
    "half as large": lambda pixels: (np.asarray(pixels[::2, ::2]), 95),
    "square": lambda pixels: (np.asarray(cv2.resize(pixels, (200, 200))), 90),
    "brighter": lambda pixels: (cv2.convertScaleAbs(pixels, alpha=0.8, beta=30), 90),
    "grey": lambda pixels: (np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)), 90),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_pictures_that_look_the_same(
    tmp_path: Path, change: Callable[[Pixels], tuple[Pixels, int]]
) -> None:
    files = [write(tmp_path / f"{seed}.jpg", scene(seed)) for seed in range(8)]
    files += [write(tmp_path / f"{seed}_again.jpg", *change(scene(seed))) for seed in (2, 5)]
    assert near_duplicates(files) == [DuplicateGroup((2, 8), False), DuplicateGroup((5, 9), False)]


def test_pictures_that_do_not(tmp_path: Path) -> None:
    mirrored = np.ascontiguousarray(scene(1)[:, ::-1])
    flat = [np.full((90, 90, 3), value, np.uint8) for value in (0, 0, 128, 255)]
    dark = [(scene(9) // 24 + value).astype(np.uint8) for value in (0, 3)]
    pictures = [scene(0), scene(1), mirrored, *flat, *dark]
    files = [write(tmp_path / f"{i}.jpg", pixels) for i, pixels in enumerate(pictures)]
    (tmp_path / "text.jpg").write_text("no picture")
    files += [tmp_path / "text.jpg"]
    assert near_duplicates(files) == []
    assert exact_duplicates(files) == [DuplicateGroup((3, 4), True)]


def test_of_equal_files_one_is_compared(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{i}.jpg", scene(3)) for i in range(3)]
    files.append(write(tmp_path / "other.jpg", scene(3), quality=50))
    exact = exact_duplicates(files)
    assert exact == [DuplicateGroup((0, 1, 2), True)]
    assert near_duplicates(files, exact) == [DuplicateGroup((0, 3), False)]


def mask(box: Box, hole: float = 0.0) -> RunLengths:
    bitmap = np.zeros((100, 100), np.uint8)
    x1, y1, x2, y2 = (round(value) for value in box)
    bitmap[y1:y2, x1:x2] = 1
    across, down = round((x2 - x1) * hole / 2), round((y2 - y1) * hole / 2)
    middle = (x1 + x2) // 2, (y1 + y2) // 2
    bitmap[middle[1] - down : middle[1] + down, middle[0] - across : middle[0] + across] = 0
    return encode(bitmap)


PLATE: Box = (10, 10, 60, 60)
NEAR: Box = (10, 10, 60, 61)
OTHER: Box = (15, 10, 65, 60)


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([], []),
        ([(PLATE, mask(PLATE))], []),
        ([(PLATE, mask(PLATE)), (PLATE, mask(PLATE))], [(0, 1)]),
        ([(NEAR, mask(NEAR)), (OTHER, mask(OTHER)), (PLATE, mask(PLATE))], [(0, 2)]),
        ([(PLATE, mask(PLATE)), (PLATE, mask(PLATE, hole=0.8))], []),  # a ring around a disc
        ([(PLATE, None), (NEAR, None), (OTHER, None)], [(0, 1)]),
        ([(PLATE, None), (PLATE, mask(PLATE))], []),
    ],
)
def test_objects(objects: list[Any], expected: list[tuple[int, int]]) -> None:
    boxes = [box for box, _ in objects]
    outlines = [lambda found=found: found for _, found in objects]
    assert list(duplicate_pairs(boxes, outlines)) == expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [(PLATE, 1.0), ((60, 60, 70, 70), 0.0), ((200, 0, 300, 9), 0.0), ((10, 10, 60, 35), 0.5)],
)
def test_overlap_of_boxes(other: Box, expected: float) -> None:
    assert box_iou(PLATE, other) == expected
