"""Scores of tracks, against answers known from counting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from yolact.evaluation.tracking import TrackScorer
from yolact.video.overlaps import mask_overlaps, match_pairs


def squares(*corners: tuple[int, int], side: int = 4) -> np.ndarray:
    """Draw masks (N, 12, 12) of squares with these x and y."""
    masks = np.zeros((len(corners), 12, 12), np.bool_)
    for mask, (x, y) in zip(masks, corners, strict=True):
        mask[y : y + side, x : x + side] = True
    return masks


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([], [], np.zeros((0, 0))),
        ([], [(0, 0)], np.zeros((0, 1))),
        ([(0, 0)], [], np.zeros((1, 0))),
        ([(0, 0)], [(0, 0), (2, 0), (4, 0)], [[1, 8 / 24, 0]]),
        ([(0, 0), (0, 2)], [(0, 0)], [[1], [8 / 24]]),
    ],
)
def test_overlaps(first: Any, second: Any, expected: Any) -> None:
    np.testing.assert_allclose(mask_overlaps(squares(*first), squares(*second)), expected)


def test_an_empty_mask_overlaps_nothing() -> None:
    assert mask_overlaps(squares((0, 0), side=0), squares((0, 0), side=0)) == [[0.0]]


@pytest.mark.parametrize(
    ("overlaps", "expected"),
    [
        (np.zeros((0, 3)), []),
        (np.zeros((2, 2)), []),
        ([[0.9, 0.8], [0.8, 0.0]], [(0, 1), (1, 0)]),  # the largest sum, not the largest first
        ([[0.0, 0.2], [0.0, 0.6]], [(1, 1)]),
    ],
)
def test_pairs(overlaps: Any, expected: list[tuple[int, int]]) -> None:
    assert sorted(match_pairs(np.asarray(overlaps))) == expected


def scored(frames: list[tuple[str, str]], overlap: float = 1.0) -> tuple[float, float, int]:
    """Score frames of ("ab", "xy"): object a is found as x, b as y; "." for none."""
    scorer = TrackScorer()
    for truth, found in frames:
        rows = [n for n, name in enumerate(truth) if name != "."]
        columns = [n for n, name in enumerate(found) if name != "."]
        table = np.array([[overlap * (r == c) for c in columns] for r in rows])
        scorer.add(
            [truth[n] for n in rows],
            [found[n] for n in columns],
            table.reshape(len(rows), len(columns)),
        )
    scores = scorer.summarize()
    return scores.idf1, scores.mean_iou, scores.switches


@pytest.mark.parametrize(
    ("frames", "idf1", "mean_iou", "switches"),
    [
        ([("ab", "xy")] * 4, 1, 1, 0),
        ([("ab", "..")] * 2, 0, 0, 0),
        ([("..", "xy")] * 2 + [("ab", "zw")] * 2, 2 * 4 / (4 + 8), 1, 0),
        ([("a", "x")] * 3 + [("a", "y")], 2 * 3 / 8, 1, 1),
        ([("a", "x"), ("a", "."), ("a", "x"), ("a", "x")], 2 * 3 / 7, 0.75, 0),
        ([("a", "x"), (".", "."), ("a", "y"), ("a", "x")], 2 * 2 / 6, 1, 2),
        ([("ab", "xy")] * 3 + [("ab", "yx")] * 2, 2 * 6 / 20, 1, 2),  # a swap
        # x follows a for two frames and b for three: a's best is y, and b's is x.
        ([("ab", "x.")] * 2 + [("ab", "yx")] * 3, 2 * 6 / (10 + 8), 0.8, 1),
    ],
)
def test_identities(
    frames: list[tuple[str, str]], idf1: float, mean_iou: float, switches: int
) -> None:
    assert scored(frames) == pytest.approx((idf1, mean_iou, switches))


def test_what_overlaps_little_is_another() -> None:
    assert scored([("a", "x")], 0.5)[0] == 1
    assert scored([("a", "x")], 0.49) == (0, 0.49, 0)


def test_nothing_to_score() -> None:
    scores = TrackScorer().summarize()
    assert scores.switches == 0
    assert all(math.isnan(number) for number in (scores.idf1, scores.mean_iou, scores.flicker))


@pytest.mark.parametrize(
    ("before", "after", "flicker"),
    [
        ([(0, 0)], [(0, 0)], 0),
        ([(0, 0)], [(2, 0)], 1 - 8 / 24),
        ([(0, 0)], [], 1),
        ([], [(0, 0)], 1),
        ([(0, 0), (8, 8)], [(8, 8)], 0.5),
        ([(0, 0), (8, 8)], [(8, 8), (0, 0)], 0),
    ],
)
def test_flicker(before: Any, after: Any, flicker: float) -> None:
    scorer = TrackScorer()
    scorer.add_step(squares(*before), squares(*after))
    assert scorer.summarize().flicker == pytest.approx(flicker)
