"""The parts of tiling: views, pieces of one object, masks on one grid."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.rectangles import Box, Recorder

from layers.native import Window
from yolact.results.detections import Detections
from yolact.tiles.agreement import agreement
from yolact.tiles.matching import group_pieces
from yolact.tiles.merging import best_pieces, merge_masks
from yolact.tiles.pieces import Piece, pieces_of, trim_mask
from yolact.tiles.views import read_view, tile_windows

HW = (260, 300)
NO_MASK = torch.zeros((1, 1))
LEFT, RIGHT, ALL = (0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 180, 100)
"""Two tiles that have 20 columns in common, and the overview of both."""


# --- views -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "side", "overlap", "starts"),
    [
        (1, 100, 0.2, [0]),
        (100, 100, 0.2, [0]),
        (101, 100, 0.2, [0, 1]),
        (180, 100, 0.2, [0, 80]),
        (181, 100, 0.2, [0, 40, 81]),
        (300, 100, 0.0, [0, 100, 200]),
        (3, 1, 0.9, [0, 1, 2]),
    ],
)
def test_tiles_are_spread_and_never_leave_the_image(
    size: int, side: int, overlap: float, starts: list[int]
) -> None:
    across, down = tile_windows((1, size), side, overlap), tile_windows((size, 1), side, overlap)
    assert across == [(start, 0, min(start + side, size), 1) for start in starts]
    assert down == [(0, start, 1, min(start + side, size)) for start in starts]


def test_tiles_overlap_enough() -> None:
    for size, side, overlap in itertools.product((200, 777, 2000), (50, 128), (0, 0.2, 0.5)):
        views = tile_windows((side, size), side, overlap)
        assert (views[0][0], views[-1][2]) == (0, size)
        for one, other in itertools.pairwise(views):
            assert one[2] - other[0] >= side * overlap - 1  # rounded to pixels


@pytest.mark.parametrize("view", [(0, 0, 40, 40), (3, 5, 43, 25), (0, 0, 300, 260), (7, 0, 207, 9)])
def test_a_view_is_read_in_small_parts(view: Window) -> None:
    image = Recorder(np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8))
    x1, y1, x2, y2 = view
    exact = image.image[y1:y2, x1:x2]
    shown = read_view(image, view, 40)
    assert image.largest <= 40
    if max(exact.shape) <= 40:
        assert np.array_equal(shown, exact)
        return
    assert max(shown.shape) == 40
    smooth = cv2.resize(exact, shown.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(int) - smooth).mean() < 12  # of noise: rounded to whole pixels


# --- which pieces are of one object ----------------------------------------------------------


def piece(
    view: Window, box: Box, score: float = 0.5, label: int = 0, cut: bool = False, mask: bool = True
) -> Piece:
    corners = torch.tensor(box, dtype=torch.float32)
    cells = torch.ones((box[3] - box[1], box[2] - box[0])) if mask else NO_MASK
    return Piece(view, label, score, score, corners, cells, corners, box, cut)


GROUPS: dict[str, tuple[list[Piece], list[list[int]]]] = {
    "nothing": ([], []),
    "one": ([piece(LEFT, (0, 0, 9, 9))], [[0]]),
    "seen twice": ([piece(LEFT, (85, 5, 95, 9)), piece(RIGHT, (85, 5, 95, 9))], [[0, 1]]),
    "two classes": (
        [piece(LEFT, (85, 5, 95, 9)), piece(RIGHT, (85, 5, 95, 9), label=1)],
        [[0], [1]],
    ),
    "one view": ([piece(LEFT, (5, 5, 9, 9)), piece(LEFT, (5, 5, 9, 9))], [[0], [1]]),
    "halves": ([piece(LEFT, (9, 5, 100, 9)), piece(RIGHT, (80, 5, 150, 9))], [[0, 1]]),
    "halves without masks": (
        [piece(LEFT, (9, 5, 100, 9), mask=False), piece(RIGHT, (80, 5, 150, 9), mask=False)],
        [[0, 1]],
    ),
    "halves at two heights": (
        [piece(LEFT, (9, 0, 100, 9), cut=True), piece(RIGHT, (80, 6, 150, 15), cut=True)],
        [[0], [1]],
    ),
    "neighbours that only touch": (
        [piece(LEFT, (60, 5, 90, 9)), piece(RIGHT, (90, 5, 120, 9))],
        [[0], [1]],
    ),
    "a cut sliver": (
        [piece(LEFT, (60, 0, 95, 9), 0.9), piece(RIGHT, (80, 1, 83, 5), cut=True)],
        [[0, 1]],
    ),
    "a sliver that is whole": (
        [piece(LEFT, (60, 0, 95, 9), 0.9), piece(RIGHT, (85, 1, 88, 5))],
        [[0], [1]],
    ),
    "a cut sliver that scores higher": (
        [piece(LEFT, (60, 0, 95, 9), 0.4), piece(RIGHT, (80, 1, 83, 5), cut=True)],
        [[0], [1]],
    ),
    "a sliver between two": (
        [
            piece(LEFT, (60, 0, 95, 9), 0.9),
            piece(ALL, (70, 0, 84, 9), 0.9),
            piece(RIGHT, (80, 0, 86, 4), cut=True),
        ],
        [[0], [1, 2]],
    ),
    "a sliver between two, the nearer one before": (
        [
            piece(LEFT, (75, 0, 95, 9), 0.9),
            piece(ALL, (59, 0, 84, 8), 0.9),
            piece(RIGHT, (80, 0, 86, 4), cut=True),
        ],
        [[0], [1, 2]],
    ),
    "a small one in a clump": (
        [piece(ALL, (0, 0, 180, 90), 0.9), piece(LEFT, (20, 20, 30, 30))],
        [[0], [1]],
    ),
    "a part of what only the overview shows": (
        [piece(ALL, (0, 0, 180, 90), 0.9), piece(LEFT, (20, 20, 100, 80), cut=True)],
        [[0, 1]],
    ),
    "a chain": (
        [
            piece((0, 0, 100, 9), (0, 0, 100, 9)),
            piece((80, 0, 180, 9), (80, 0, 180, 9)),
            piece((160, 0, 260, 9), (160, 0, 200, 9)),
        ],
        [[0, 1, 2]],
    ),
}


@pytest.mark.parametrize(("pieces", "expected"), GROUPS.values(), ids=GROUPS)
def test_pieces_of_one_object(pieces: list[Piece], expected: list[list[int]]) -> None:
    for order in itertools.permutations(range(len(pieces))):
        groups = group_pieces([pieces[index] for index in order])
        found = [sorted(order[index] for index in _indices(pieces, order, g)) for g in groups]
        assert sorted(found) == expected


def _indices(pieces: list[Piece], order: tuple[int, ...], group: list[Piece]) -> list[int]:
    return [place for place, index in enumerate(order) if any(pieces[index] is p for p in group)]


@pytest.mark.parametrize(
    ("view", "box", "is_cut"),
    [
        ((0, 0, 128, 128), (9, 9, 50, 50), False),
        ((0, 0, 128, 128), (0, 0, 50, 50), False),  # at the border of the image
        ((0, 0, 128, 128), (9, 9, 122, 50), True),
        ((0, 0, 128, 128), (9, 9, 121, 50), False),
        ((0, 0, 128, 128), (9, 9, 140, 50), True),  # a box that goes on beyond the border
        ((0, 0, 128, 128), (-9, 9, 50, 50), False),
        ((100, 0, 228, 128), (2, 9, 50, 50), True),
        ((172, 132, 300, 260), (40, 40, 128, 128), False),
        ((172, 132, 300, 260), (40, 0, 128, 128), True),
        ((0, 0, 300, 260), (0, 0, 300, 260), False),
    ],
)
def test_a_piece_is_cut_by_borders_inside_the_image(view: Window, box: Box, is_cut: bool) -> None:
    x1, y1, x2, y2 = view
    corners, one = torch.tensor([box], dtype=torch.float32), torch.ones(1)
    frame = torch.tensor([(0.0, 0.0, x2 - x1, y2 - y1)])
    found = Detections(corners, one, one.long(), one[:, None, None], frame, one, (y2 - y1, x2 - x1))
    (only,) = pieces_of(found, view, HW)
    assert only.is_cut == is_cut
    assert only.box.tolist() == [box[0] + x1, box[1] + y1, box[2] + x1, box[3] + y1]


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        ([], []),
        ([piece(LEFT, (5, 5, 9, 9))], [0]),
        ([piece(LEFT, (60, 5, 95, 9), 0.5), piece(RIGHT, (80, 5, 95, 9), 0.9, cut=True)], [0]),
        ([piece(LEFT, (60, 5, 99, 9), 0.5), piece(RIGHT, (80, 5, 105, 9), 0.9, cut=True)], [0]),
        ([piece(LEFT, (60, 5, 99, 9), 0.5), piece(RIGHT, (80, 5, 106, 9), 0.9, cut=True)], [0, 1]),
        ([piece(LEFT, (9, 5, 100, 9), 0.5, cut=True), piece(RIGHT, (80, 5, 99, 9))], [1, 0]),
        ([piece(ALL, (82, 5, 95, 9), 0.9), piece(LEFT, (85, 5, 95, 9), 0.5)], [1]),
        ([piece((0, 0, 99, 999), (9, 5, 30, 40), 0.9), piece(LEFT, (9, 5, 30, 40), 0.5)], [1]),
        ([piece(ALL, (9, 5, 150, 9), 0.5), piece(LEFT, (9, 5, 100, 9), 0.9, cut=True)], [0]),
        ([piece(LEFT, (85, 5, 95, 9), 0.5), piece(RIGHT, (85, 5, 95, 9), 0.9)], [1]),
    ],
)
def test_the_pieces_that_tell(pieces: list[Piece], kept: list[int]) -> None:
    assert [next(i for i, p in enumerate(pieces) if p is k) for k in best_pieces(pieces)] == kept


# --- what the views say together --------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "tile", "share"),
    [
        ([piece(LEFT, (5, 5, 9, 9), 0.8)], 180, 0.5),  # in LEFT and ALL, of one scale
        ([piece(LEFT, (5, 5, 9, 9), 0.8)], 100, 1 / (1 + (100 / 180) ** 2)),
        ([piece(ALL, (5, 5, 9, 9), 0.8)], 180, 0.5),  # which LEFT does not find
        ([piece(LEFT, (87, 5, 93, 9), 0.8), piece(RIGHT, (87, 5, 93, 9), 0.4)], 180, 0.5),
        ([piece(v, (87, 5, 93, 9), 0.8) for v in (LEFT, RIGHT, ALL)], 100, 1.0),
        ([piece(v, (102, 5, 106, 9), 0.8) for v in (RIGHT, ALL)], 100, 1.0),  # beside LEFT
        ([piece(v, (90, 5, 110, 9), 0.8) for v in (RIGHT, ALL)], 100, 1.0),  # half in LEFT
        ([piece(RIGHT, (82, 5, 110, 9), 0.8, cut=True)], 100, 1 / (1 + (100 / 180) ** 2)),
        ([piece(ALL, (9, 5, 150, 9), 0.8), piece(LEFT, (9, 5, 100, 9), 0.4, cut=True)], 100, 1.0),
        ([piece(LEFT, (5, 5, 9, 9), 0.8), piece(LEFT, (5, 5, 9, 9), 0.2)], 1000, 0.5),
        ([piece(LEFT, (5, 5, 9, 9), 0.0)], 100, 1.0),
    ],
)
def test_views_agree_about_an_object(pieces: list[Piece], tile: int, share: float) -> None:
    views = torch.tensor([LEFT, RIGHT, ALL], dtype=torch.float32)
    for order in itertools.permutations(pieces):
        assert agreement(
            order, best_pieces(order)[0].box, views, tile, (100, 180)
        ) == pytest.approx(share)


def test_what_no_view_shows_whole_keeps_its_score() -> None:
    views = torch.tensor([LEFT, RIGHT], dtype=torch.float32)
    halves = (
        piece(LEFT, (9, 5, 100, 9), 0.8, cut=True),
        piece(RIGHT, (80, 5, 150, 9), 0.4, cut=True),
    )
    assert agreement(halves, halves[0].box, views, 100, (100, 180)) == 1.0


# --- masks on one grid -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_cells_that_are_cut_off_decide_about_no_pixel(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    soft_mask = torch.zeros((40, 50))
    part = soft_mask[9 * seed : 20 + 7 * seed - seed, 5 * seed : 30]
    part.copy_(torch.rand(part.shape, generator=generator))
    frame = torch.tensor((10.0, 20.0, 210.0, 180.0))
    both = [trim_mask(soft_mask, frame), (soft_mask, frame)]
    small, full = (
        Detections(f[None], s[:1, 0], s[:1, 0].long(), s[None], f[None], s[:1, 0], (200, 220))
        for s, f in both
    )
    assert small.soft_masks.numel() < full.soft_masks.numel()
    assert full.masks.any()
    assert torch.equal(small.masks, full.masks)


def disc(width: int, height: int, margin: int = 1) -> Piece:
    """An ellipse with soft edges, in cells of 4 pixels, of which some are left free around it."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    across, along = (2 * x - width) / (width - 2 * margin), (2 * y - height) / (height - 2 * margin)
    cells = torch.sigmoid(20 * (1 - across**2 - along**2))
    window = (0, 0, 4 * width, 4 * height)
    frame = torch.tensor(window, dtype=torch.float32)
    return Piece(window, 0, 0.5, 0.5, frame, cells, frame, window, False)


@pytest.mark.parametrize(
    ("sizes", "most_cells", "least"),
    [
        ([], 100, 1.0),
        ([(30, 20)], 600, 1.0),
        ([(30, 20), (9, 12)], 1200, 1.0),
        ([(30, 20), (9, 12)], 800, 0.98),
        ([(120, 90), (100, 110), (9, 12)], 4800, 0.97),
        ([(100, 8)] * 4, 400, 0.9),
        ([(50, 50)], 0, 0.5),
        ([(30, 20), (9, 12, 0)], 1200, 0.95),  # reaches both borders of its view
    ],
)
def test_all_masks_together_have_a_limit(
    sizes: list[tuple[int, ...]], most_cells: int, least: float
) -> None:
    pieces = [disc(*size) for size in sizes]
    soft_masks, frames = merge_masks([[piece] for piece in pieces], most_cells)
    assert len(soft_masks) == len(frames) == len(sizes)
    assert soft_masks.numel() <= max(most_cells, len(sizes))
    for own, soft_mask, frame in zip(pieces, soft_masks, frames, strict=True):
        expected = own.pixels(own.window)
        mask = replace(own, soft_mask=soft_mask, frame=frame).pixels(own.window)
        kept = (mask & expected).sum() / (mask | expected).sum()
        assert kept >= least


@pytest.mark.parametrize("sides", [(0, 0, 30, 12), (0, 8, 30, 20), (0, 0, 18, 20), (12, 0, 30, 20)])
def test_a_mask_keeps_the_border_that_it_reaches(sides: Window) -> None:
    """Whatever larger grid it is put on: half an ellipse, cut at each of the four borders."""
    x1, y1, x2, y2 = sides
    whole, frame = disc(30, 20), torch.tensor(sides, dtype=torch.float32) * 4
    window = (4 * x1, 4 * y1, 4 * x2, 4 * y2)
    half = replace(whole, soft_mask=whole.soft_mask[y1:y2, x1:x2], frame=frame, window=window)
    soft_masks, frames = merge_masks([[whole], [half]])
    alone, together = (
        Detections(f, f[:, 0], f[:, 0].long(), s, f, f[:, 0], (80, 120)).masks[-1]
        for s, f in ((half.soft_mask[None], frame[None]), (soft_masks, frames))
    )
    assert torch.equal(together, alone)


def test_joined_masks_show_all_that_their_pieces_show() -> None:
    one = disc(30, 20)
    moved = one.frame + torch.tensor((60.0, 32.0, 60.0, 32.0))  # over a corner of the first
    other = replace(one, frame=moved, window=(60, 32, 180, 112))
    for pieces in ([one, other], [other, one]):
        soft_masks, frames = merge_masks([pieces])
        mask = replace(one, soft_mask=soft_masks[0], frame=frames[0]).pixels((0, 0, 180, 112))
        expected = np.zeros((112, 180), np.bool_)
        for part in pieces:
            x1, y1, x2, y2 = part.window
            expected[y1:y2, x1:x2] |= part.pixels(part.window)
        assert (mask & expected).sum() / (mask | expected).sum() > 0.995
