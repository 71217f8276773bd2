"""Large images in tiles: every object comes once and whole, in memory for tiles."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.rectangles import CUT, WHOLE, Box, Recorder, RectangleDetector, drawing

from data.images import Image
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.sources.pixels import Pixels
from yolact.tiles.segment import Tiling, segment_tiled

HW = (260, 300)
TILES = Tiling(tile=100, overlap=0.2, overview=False)
EVERY = Thresholds(drop_empty=True)


def look(image: Pixels, tiling: Tiling = TILES, **changes: object) -> Detections:
    return segment_tiled(RectangleDetector(), image, tiling, replace(EVERY, **changes))


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(
    "tiling", [TILES, replace(TILES, overview=True), Tiling(100, 0.0), Tiling(1000)]
)
def test_nothing_is_found_in_nothing(tiling: Tiling) -> None:
    found = look(drawing(HW), tiling)
    assert (len(found), found.image_hw, found.masks.shape) == (0, HW, (0, *HW))
    assert found.class_names == ("red", "green")


@pytest.mark.parametrize(
    ("tile", "image_hw", "side"),
    [
        *((320, hw, 320) for hw in [(1, 1), (260, 300), (4000, 100)]),
        *((0.5, hw, side) for hw, side in [((1, 1), 1), ((260, 300), 150), ((4001, 100), 2000)]),
        (np.float32(0.25), (100, 200), 50),
    ],
)
def test_a_tile_below_one_is_a_part_of_the_longer_side(
    tile: float, image_hw: tuple[int, int], side: int
) -> None:
    tiling, pixels = Tiling(tile), Tiling(side)
    assert tiling.side(image_hw) == pixels.side(image_hw) == side
    assert tiling.views(image_hw) == pixels.views(image_hw)


RECTANGLES: dict[str, list[Box]] = {
    "inside a tile": [(20, 30, 50, 60)],
    "in the overlap": [(85, 30, 95, 50)],
    "across a border": [(70, 30, 130, 60)],
    "at a corner of four tiles": [(60, 50, 130, 140)],
    "across three tiles": [(40, 20, 290, 50)],
    "larger than a tile": [(20, 30, 280, 240)],
    "the whole image": [(0, 0, 300, 260)],
    "at the borders of the image": [(0, 0, 90, 30), (270, 0, 300, 260), (100, 250, 240, 260)],
    "neighbours": [(60, 30, 88, 60), (92, 30, 130, 60), (60, 64, 130, 80)],
    "many": [(x, y, x + 20, y + 20) for x in range(4, 280, 30) for y in range(4, 240, 30)],
}


@pytest.mark.parametrize("boxes", RECTANGLES.values(), ids=RECTANGLES)
@pytest.mark.parametrize("overlap", [0.2, 0.5])
def test_every_rectangle_comes_once_and_whole(boxes: list[Box], overlap: float) -> None:
    """Also to the pixel, since a cell of the detector is one."""
    image = drawing(HW, *((number % 2, box) for number, box in enumerate(boxes)))
    found = look(image, replace(TILES, overlap=overlap)).sort("left")
    assert sorted(map(tuple, found.boxes.int().tolist())) == sorted(boxes)
    labels = {box: number % 2 for number, box in enumerate(boxes)}
    for index, box in enumerate(map(tuple, found.boxes.int().tolist())):
        assert int(found.labels[index]) == labels[box]
        assert np.array_equal(found.masks[index], drawing(HW, (0, box))[..., 0] > 0)


def test_the_best_view_gives_score_and_order() -> None:
    image = drawing(HW, (0, (10, 10, 250, 30)), (0, (70, 40, 95, 60)), (1, (250, 200, 270, 220)))
    found = look(image)
    assert found.scores.tolist() == pytest.approx([WHOLE, WHOLE, CUT])
    assert found.boxes[2].tolist() == [10, 10, 250, 30]  # seen whole by no tile
    assert torch.equal(found.box_scores, found.scores)


@pytest.mark.parametrize(
    ("scores", "threshold", "expected"),
    [
        ((0.9, 0.9), 0.5, [0.9]),
        ((0.9, 0.4), 0.5, [0.65]),
        ((0.4, 0.9), 0.5, [0.65]),
        ((0.9, 0.4), 0.7, []),
        ((0.9, 0.2), 0.5, []),  # 0.2 is too little to be heard: 0.45
        ((0.9, 0.2), 0.4, [0.55]),
        ((0.9, 0.0), 0.0, [0.45]),
    ],
)
def test_views_have_to_agree(
    scores: tuple[float, float], threshold: float, expected: list[float]
) -> None:
    """Two tiles show the rectangle, and are sure of it to two degrees."""

    class Unsure(RectangleDetector):
        def find(self, image: NDArray[np.uint8]) -> Detections:
            found = super().find(image)  # the left tile has it at 86, the right one at 6
            score = torch.full_like(found.scores, scores[0 if image[10, 90, 0] else 1])
            return replace(found, scores=score, box_scores=score)

    image = drawing((100, 180), (0, (86, 5, 94, 20)))
    found = segment_tiled(Unsure(), image, TILES, Thresholds(threshold))
    assert found.scores.tolist() == pytest.approx(expected)
    assert torch.equal(found.box_scores, found.scores)


def test_an_overview_shows_what_is_larger_than_a_tile() -> None:
    """Where a detector sees no halves at all, as trained ones often do not."""

    class Whole(RectangleDetector):
        def find(self, image: NDArray[np.uint8]) -> Detections:
            found = super().find(image)
            return found[found.scores == WHOLE]

    image = drawing((600, 500), (0, (60, 50, 400, 460)), (1, (10, 10, 40, 30)))
    large = [60, 50, 400, 460]
    for tiling, expected in ((replace(TILES, overview=True), 2), (TILES, 1)):
        found = segment_tiled(Whole(), image, tiling, EVERY)
        assert len(found) == expected
        assert found.labels.sum() == 1
        if expected == 2:
            red = found["red"]
            assert (red.boxes[0] - torch.tensor(large)).abs().max() <= 6  # a pixel of the overview
            truth = drawing((600, 500), (0, tuple(large)))[..., 0] > 0
            assert overlap(red.masks[0].numpy(), truth) > 0.95


def test_a_clump_in_the_overview_swallows_nothing() -> None:
    boxes = [(x, 40, x + 12, 60) for x in range(30, 270, 20)]
    image = drawing(HW, *((0, box) for box in boxes))
    found = segment_tiled(RectangleDetector(reach=2), image, replace(TILES, overview=True), EVERY)
    assert set(boxes) <= set(map(tuple, found.boxes.int().tolist()))


def test_boxes_alone() -> None:
    image = drawing(HW, (0, (60, 50, 130, 140)), (0, (200, 50, 220, 70)))
    thresholds = Thresholds()  # a predictor in this mode keeps what has no mask
    found = segment_tiled(RectangleDetector(masks=False), image, TILES, thresholds)
    assert sorted(found.boxes.int().tolist()) == [[60, 50, 130, 140], [200, 50, 220, 70]]
    assert not found.has_pixels().any()


def test_thresholds_count_in_the_whole_image() -> None:
    image = drawing(HW, (0, (60, 20, 130, 30)), (1, (10, 200, 20, 210)))
    assert len(look(image, min_area=700)) == 1  # of which no tile shows more than 400
    assert look(image, top_k=1).labels.tolist() == [1]
    assert look(image, labels=(0,)).labels.tolist() == [0]
    assert len(look(image, score=0.7)) == 1


def test_tiles_keep_what_the_whole_image_may_need() -> None:
    """The piece of an object may be the last of its tile, and yet the object one of the best."""

    class Asked(RectangleDetector):
        def segment(self, images: Sequence[Image], thresholds: Thresholds) -> list[Detections]:
            assert thresholds == Thresholds(0.15, labels=(0,), drop_empty=True)
            return super().segment(images, thresholds)

    asked = Thresholds(0.3, top_k=1, labels=(0,), drop_empty=True, min_area=50)
    image = drawing(HW, (0, (60, 50, 130, 140)), (0, (200, 50, 220, 70)))
    assert len(segment_tiled(Asked(), image, TILES, asked)) == 1


def test_smooth_masks_end_with_their_boxes() -> None:
    class Smooth(RectangleDetector):
        def find(self, image: NDArray[np.uint8]) -> Detections:
            found = super().find(image)
            return replace(found, soft_masks=torch.ones_like(found.soft_masks), crop_to_boxes=True)

    image = drawing(HW, (0, (60, 50, 130, 140)), (0, (200, 50, 220, 70)))
    found = segment_tiled(Smooth(), image, TILES, EVERY)
    assert sorted(found.areas.tolist()) == [20 * 20, 70 * 90]


# --- memory ----------------------------------------------------------------------------------


class Blind(RectangleDetector):
    """Takes no time and finds nothing."""

    def find(self, image: Image) -> Detections:
        return replace(super().find(image[:1, :1]), image_hw=image.shape[:2])


@pytest.mark.parametrize("overview", [False, True])
def test_memory_is_that_of_tiles(overview: bool) -> None:
    """No part larger than a tile is read or held, however large the image."""
    blank = np.broadcast_to(np.uint8(0), (8000, 8000, 3))  # which takes no memory itself
    image, detector = Recorder(blank), Blind()
    tracemalloc.start()
    found = segment_tiled(detector, image, Tiling(800, 0.0, overview), EVERY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.image_hw == (8000, 8000)
    assert image.largest == 800
    assert detector.most_at_once == 800**2
    assert peak < 10 * 800**2 * 3  # a few for each thread; the image has 100


def test_masks_take_what_their_objects_need() -> None:
    boxes = [(x, y, x + 12, y + 9) for x in range(0, 900, 40) for y in range(0, 600, 40)]
    found = look(drawing((600, 900), *((0, box) for box in boxes)), replace(TILES, tile=200))
    assert len(found) == len(boxes)
    assert found.soft_masks.shape[1:] == (11, 14)  # a cell around
