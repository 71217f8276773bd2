import math
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from support.coco_rectangles import (
    CATEGORY_IDS,
    LARGE,
    MEDIUM,
    SMALL,
    TRUTH,
    Box,
    annotation,
    detections,
    evaluated,
    ground_truth,
    perfect,
    random_detections,
)

from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.confusion import Outcome, best_threshold, match_outcome, recall_by_size
from yolact.evaluation.matches import Matches
from yolact.results.detections import Detections

CROWD = (100, 60, 150, 110)
BACKGROUND = MISSED = 3


def matches_of(coco: COCO, found: dict[int, Detections]) -> tuple[CocoEvaluator, Matches]:
    evaluator = evaluated(coco, found)
    return evaluator, evaluator.summarize().mask.matches


def outcome_of(coco: COCO, found: dict[int, Detections], threshold: float = 0.0) -> Outcome:
    evaluator, matches = matches_of(coco, found)
    truth, results = evaluator.ground_truth(), evaluator.results

    def overlaps(found: Any, objects: Any) -> Any:
        masks = [results.run_lengths(results.detections[n - 1]) for n in found]
        return mask_utils.iou(
            masks, [truth.annToRLE(truth.anns[n]) for n in objects], [0] * len(objects)
        )

    return match_outcome(matches, threshold, overlaps)


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        ((), {}),
        ((), {1: detections()}),
        (TRUTH, {}),
    ],
)
def test_nothing(truth: tuple[dict[str, Any], ...], found: dict[int, Detections]) -> None:
    outcome = outcome_of(ground_truth(truth), found)
    assert outcome.confusion.shape == (4, 4)
    assert outcome.confusion.sum() == 0
    assert outcome.errors() == []
    assert recall_by_size(outcome) == []
    assert best_threshold(matches_of(ground_truth(truth), found)[1]) == 0.5


# What lies where in image 1, and the cells of the confusion matrix that it fills.
@pytest.mark.parametrize(
    ("objects", "found", "cells"),
    [
        ([(0, SMALL)], [], {(0, MISSED): 1}),
        ([], [(2, SMALL)], {(BACKGROUND, 2): 1}),
        ([(0, SMALL)], [(0, SMALL)], {(0, 0): 1}),
        ([(0, SMALL)], [(0, LARGE)], {(0, MISSED): 1, (BACKGROUND, 0): 1}),
        ([(0, SMALL)], [(1, SMALL)], {(0, 1): 1}),
        # a class of its own is found whatever else lies there, and the rest is false
        ([(0, SMALL)], [(1, SMALL), (0, SMALL)], {(0, 0): 1, (BACKGROUND, 1): 1}),
        ([(0, SMALL)], [(0, SMALL), (0, SMALL)], {(0, 0): 1, (BACKGROUND, 0): 1}),
        # the closer pair is the confusion
        (
            [(0, (0, 0, 50, 50)), (0, (0, 0, 50, 40))],
            [(1, (0, 0, 50, 40))],
            {(0, 1): 1, (0, MISSED): 1},
        ),
        ([(0, SMALL), (1, MEDIUM)], [(1, SMALL), (0, MEDIUM)], {(0, 1): 1, (1, 0): 1}),
        # half of it is enough, less is not
        ([(0, (0, 0, 50, 50))], [(1, (0, 0, 50, 25))], {(0, 1): 1}),
        ([(0, (0, 0, 50, 50))], [(1, (0, 0, 50, 24))], {(0, MISSED): 1, (BACKGROUND, 1): 1}),
    ],
)
def test_cells(
    objects: list[tuple[int, Box]],
    found: list[tuple[int, Box]],
    cells: dict[tuple[int, int], int],
) -> None:
    truth = [annotation(n, 1, label, box) for n, (label, box) in enumerate(objects, start=1)]
    labels, boxes = [label for label, _ in found], [box for _, box in found]
    one = detections(boxes, labels, np.linspace(0.9, 0.8, len(found)).tolist())
    outcome = outcome_of(ground_truth(truth), {1: one, 2: detections()})
    counts = outcome.confusion
    assert {(int(i), int(j)): int(counts[i, j]) for i, j in np.argwhere(counts)} == cells
    wrong = {cell: n for cell, n in cells.items() if cell[0] != cell[1]}
    missed = sum(n for (true, _), n in wrong.items() if true != BACKGROUND)
    false = sum(n for (_, seen), n in wrong.items() if seen != MISSED)
    assert outcome.errors() == ([(1, missed, false)] if wrong else [])


def test_crowds_and_what_lies_in_them_do_not_count() -> None:
    found = {2: detections([LARGE, CROWD], [0, 0], [0.9, 0.8]), 1: detections()}
    outcome = outcome_of(ground_truth(TRUTH), found)
    assert len(outcome.objects) == 3
    assert outcome.confusion[0, 0] == outcome.confusion[0].sum() - 1 == 1
    assert outcome.confusion[BACKGROUND].sum() == 0


@pytest.mark.parametrize(("threshold", "found"), [(0.0, 3), (0.69, 3), (0.75, 2), (0.95, 0)])
def test_what_scores_less_does_not_count(threshold: float, found: int) -> None:
    outcome = outcome_of(ground_truth(TRUTH), perfect(), threshold)
    assert outcome.is_found.sum() == outcome.is_correct.sum() == len(outcome.detections) == found
    assert outcome.confusion[:, MISSED].sum() == 3 - found


def test_a_score_at_the_threshold_counts() -> None:
    found = {1: detections([SMALL, MEDIUM], [0, 1], [0.5, 0.25])}
    for threshold, count in ((0.25, 2), (0.5, 1), (0.500001, 0)):
        assert len(outcome_of(ground_truth(TRUTH), found, threshold).detections) == count


@pytest.mark.parametrize("seed", range(4))
def test_counts_agree_with_pycocotools(seed: int) -> None:
    evaluator, matches = matches_of(ground_truth(TRUTH), random_detections(seed))
    outcome = outcome_of(ground_truth(TRUTH), random_detections(seed))
    confusion = outcome.confusion
    assert confusion[:-1].sum() == len(outcome.objects) == 3
    assert confusion[:, :-1].sum() == len(outcome.detections)
    assert confusion.diagonal().sum() == outcome.is_correct.sum() == outcome.is_found.sum()
    for label in range(2):
        objects = outcome.objects["label"] == label
        reached = (matches.precision[0, :, label] > 0).sum() - 1  # the last of 101 recalls
        assert reached == math.floor(100 * outcome.is_found[objects].mean())
    sizes = recall_by_size(outcome)
    assert sum(row.objects for row in sizes) == 3
    average = sum(row.recall * row.objects for row in sizes) / 3
    by_class = evaluator.summarize().mask.coco["AR100"] / 100  # of two classes: 2 objects and 1
    shares = [
        outcome.objects["overlaps"][outcome.objects["label"] == k].mean() / 10 for k in (0, 1)
    ]
    assert np.mean(shares) == pytest.approx(by_class)
    assert average == pytest.approx((2 * shares[0] + shares[1]) / 3)


def test_sizes() -> None:
    found = {1: detections([SMALL], [0], [0.3]), 2: detections([LARGE], [0], [0.9])}
    rows = recall_by_size(outcome_of(ground_truth(TRUTH), found, 0.5))
    assert [(row.sides, row.objects, row.found, row.findable, row.recall) for row in rows] == [
        ((16, 32), 1, 0, 1, 1),
        ((32, 64), 1, 0, 0, 0),
        ((96, 128), 1, 1, 1, 1),
    ]


def test_best_threshold_parts_right_from_wrong() -> None:
    far = (0, 0, 9, 9)
    found = perfect() | {5: detections([far] * 3, [0, 1, 2], [0.6, 0.5, 0.4])}
    assert best_threshold(matches_of(ground_truth(TRUTH), found)[1]) == 0.69
    worse = perfect() | {5: detections([far] * 3, [0, 1, 2], [0.99, 0.98, 0.97])}
    assert best_threshold(matches_of(ground_truth(TRUTH), worse)[1]) == 0.69
    assert best_threshold(matches_of(ground_truth(TRUTH), {5: worse[5]})[1]) == 0.5


def test_labels_are_those_of_the_model() -> None:
    """Category ids need not rise with the labels."""
    evaluator = CocoEvaluator(ground_truth(TRUTH), CATEGORY_IDS[::-1])
    for image_id, one in {1: detections([SMALL, MEDIUM], [2, 1], [0.9, 0.8])}.items():
        evaluator.add(image_id, one)
    metrics = evaluator.summarize()
    assert sorted(metrics.mask.matches.objects["label"].tolist()) == [1, 2]
    assert (metrics.mask.matches.precision[:, :, 2] > 0.99).all()
    assert (metrics.mask.matches.precision[:, :, 0] == -1).all()
    assert metrics.mask.per_class[1] == pytest.approx(100)
