from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from data.annotations.run_lengths import (
    check_counts,
    compress,
    decode,
    encode,
    encode_regions,
    from_outline,
    measure,
    merge,
)
from data.sample import RunLengths

SIZES = [(0, 0), (0, 5), (5, 0), (1, 1), (9, 1), (17, 23)]
SQUARE = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]


def random_masks(image_hw: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random(image_hw) < density for density in (0, 0.02, 0.5, 0.9, 1)]


def coco_text(mask: np.ndarray) -> str:
    counts: bytes = mask_utils.encode(np.asfortranarray(mask, np.uint8))["counts"]
    return counts.decode()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("image_hw", SIZES)
def test_round_trip(image_hw: tuple[int, int]) -> None:
    for mask in random_masks(image_hw):
        for bitmap in (mask, mask.astype(np.uint8), np.asfortranarray(mask)):
            found = encode(bitmap)
            assert found == {"size": list(image_hw), "counts": coco_text(mask)}
            assert from_outline(bitmap, (0, 0)) == from_outline(found, (0, 0)) == found
        assert (decode(found, (0, 0)) == mask).all()
        assert (decode(mask, (0, 0)) == mask).all()
        assert measure(found)[1] == mask.sum()


@pytest.mark.parametrize("numbers", [1, 2, 300])
@pytest.mark.parametrize("image_hw", SIZES)
def test_regions_of_a_picture(image_hw: tuple[int, int], numbers: int) -> None:
    ids = np.random.default_rng(0).integers(-1, numbers, image_hw) * 70_000
    ids[1:, ::2] = ids[:1, ::2]  # some runs are long
    for picture in (ids, np.asfortranarray(ids), ids.astype(np.int32)):
        found = encode_regions(picture)
        assert list(found) == np.unique(ids).tolist()
        assert all(pixels == encode(ids == number) for number, pixels in found.items())


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("image_hw", [(1, 1), (1, 9), (9, 1), (8, 8), (17, 23), (64, 40), (3, 300)])
def test_windows(image_hw: tuple[int, int]) -> None:
    """A part of a mask, wherever it lies, gives the text of the whole."""
    height, width = image_hw
    rng = np.random.default_rng(height)
    for number, density in product(range(20), (0, 0.02, 0.3, 0.5, 0.9, 1)):
        x1, x2 = sorted(rng.integers(0, width + 1, 2).tolist()) if number % 4 else (0, width)
        y1, y2 = sorted(rng.integers(0, height + 1, 2).tolist()) if number % 3 else (0, height)
        full = np.zeros(image_hw, np.bool_)
        full[y1:y2, x1:x2] = rng.random((y2 - y1, x2 - x1)) < density
        part = full[y1:y2, x1:x2]  # rows with a stride
        assert encode(part, image_hw, (x1, y1))["counts"] == coco_text(full), (number, density)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (5, 0), (0, 5), (2**40, 0), (0, -(2**62))])
def test_windows_outside_the_image(corner: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="4 x 4 pixels at .* leaves the image of 8 x 8"):
        encode(np.ones((4, 4), np.bool_), (8, 8), corner)


def test_polygons() -> None:
    parts = [SQUARE, [8.0, 1.0, 11.0, 1.0, 11.0, 9.0]]
    whole = from_outline(parts, (10, 12))
    expected = mask_utils.merge(mask_utils.frPyObjects(parts, 10, 12))
    assert whole == {"size": [10, 12], "counts": expected["counts"].decode()}
    assert merge(from_outline([part], (10, 12)) for part in parts) == whole
    assert measure(from_outline([SQUARE], (10, 12))) == ([2, 2, 4, 4], 16)
    assert decode(parts, (10, 12)).sum() == measure(whole)[1]


BROKEN: list[Any] = [
    None,
    b"5",
    5,
    [120],
    "",
    "~",
    "\x00",
    "é",
    "\ud800",
    "o",  # a number without end
    "ooooooooo0",  # a number beyond all sizes
    "hS" + "P" * 12 + "0",  # 120, and zeros where no 64 bits reach
    "00",  # too few pixels
    "50O",  # a run of -1
]


@pytest.mark.parametrize("counts", BROKEN)
def test_broken_text_never_reaches_the_decoder(counts: Any) -> None:
    hostile: RunLengths = {"size": [10, 12], "counts": counts}
    for use in (decode, from_outline):
        with pytest.raises(ValueError, match="run lengths"):
            use(hostile, (10, 12))
    with pytest.raises(ValueError, match="run lengths"):
        check_counts(counts, 120)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, "a list of whole numbers, not None"),
        ("5", "a list"),
        ([8.0, 8], "a list"),
        ([True, 15], "a list"),
        ([20, -4], "a list"),
        ([], "add up to 4 x 4"),
        ([3], "add up to 4 x 4"),
        ([9, 9], "add up to 4 x 4"),
        ([2**40], "add up to 4 x 4"),
    ],
)
def test_wrong_counts(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compress(counts, (4, 4))


@pytest.mark.usefixtures("path")
def test_long_runs() -> None:
    """A count may need seven letters."""
    found = encode(np.ones((2, 3), np.bool_), (40_000, 40_000), (30_000, 29_999))
    check_counts(found["counts"], 40_000**2)
    assert measure(found) == ([30_000, 29_999, 3, 2], 6)
