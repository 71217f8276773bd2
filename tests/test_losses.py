import math

import pytest
import torch
from torch import Tensor

from layers.losses import (
    box_loss,
    confidence_loss,
    dice_loss,
    giou_loss,
    mask_iou,
    mask_iou_loss,
    mask_loss,
    semantic_loss,
    shrink_masks,
)

LN2 = math.log(2)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("deltas", "target", "expected"),
    [
        ([], [], 0.0),
        ([[0, 0, 0, 0]], [[0, 0, 0, 0]], 0.0),
        # Smooth L1: half the square below 1, |x| - 1/2 above.
        ([[0.5, -0.5, 0, 0]], [[0, 0, 0, 0]], 2 * 0.125),
        ([[3, 0, 0, 0], [0, 0, 0, 1]], [[0, 0, 0, 0], [0, 0, 0, -1]], 2.5 + 1.5),
    ],
)
def test_box_loss(deltas: list[list[float]], target: list[list[float]], expected: float) -> None:
    first, second = (torch.tensor(x, dtype=torch.float32).reshape(-1, 4) for x in (deltas, target))
    loss = box_loss(first, second)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("boxes", "target", "expected"),
    [
        ([], [], 0.0),
        ([[0, 0, 1, 1]], [[0, 0, 1, 1]], 0.0),
        ([[0, 0, 1, 2]], [[0, 0, 1, 1]], 0.5),
        # Apart by one: no overlap, and a third of what encloses both is empty.
        ([[0, 0, 1, 1]], [[2, 0, 3, 1]], 1 + 1 / 3),
        ([[0, 0, 1, 1], [0, 0, 1, 2]], [[0, 0, 1, 1], [0, 0, 1, 1]], 0.5),
    ],
)
def test_giou_loss(boxes: list[list[float]], target: list[list[float]], expected: float) -> None:
    first, second = (torch.tensor(x, dtype=torch.float32).reshape(-1, 4) for x in (boxes, target))
    assert giou_loss(first, second).item() == pytest.approx(expected, abs=1e-6)


UNIT, LEFT = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("logit", "filled_columns", "box", "expected"),
    [
        (-50.0, 0, UNIT, 0.0),  # nothing there, and nothing found
        (50.0, 8, UNIT, 0.0),
        (-50.0, 8, UNIT, 1 - 1 / 65),
        (50.0, 0, UNIT, 1 - 1 / 65),
        (50.0, 4, UNIT, 1 - 65 / 97),  # half of what is found is right
        (50.0, 5, LEFT, 0.0),  # the box and its margin of a cell end there
        (50.0, 8, LEFT, 0.0),  # what lies beyond is not asked for
        (0.0, 8, UNIT, 1 - (2 * 32 + 1) / (64 / 4 + 64 + 1)),  # squares of 0.5, not 0.5, below
    ],
)
def test_dice_loss(logit: float, filled_columns: int, box: list[float], expected: float) -> None:
    logits, target = torch.full((1, 8, 8), logit), torch.zeros(1, 8, 8)
    target[..., :filled_columns] = 1
    loss = dice_loss(logits, target, torch.tensor([box]))
    assert loss.tolist() == pytest.approx([expected], abs=1e-5)


def test_dice_loss_of_nothing() -> None:
    assert dice_loss(torch.zeros(0, 8, 8), torch.zeros(0, 8, 8), torch.zeros(0, 4)).shape == (0,)


# Four background anchors of rising hardness: the logit of class 1 against a background of 0.
HARDNESS = [-2.0, -1.0, 1.0, 2.0]


def logits_of(rows: list[list[float]]) -> Tensor:
    """(B, P, 2) logits with background 0, for the logit of class 1 at every anchor."""
    foreground = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), -1)
    return torch.stack((torch.zeros_like(foreground), foreground), dim=2).requires_grad_()


@pytest.mark.parametrize(
    ("classes", "learned"),
    [
        ([], []),
        ([-1, -1, -1, -1], []),
        ([0, 0, 0, 0], [1, 2, 3]),  # no positive counts as one: three negatives
        ([0, 0, 0, 1], [0, 1, 2, 3]),
        ([1, 0, 0, 0], [0, 1, 2, 3]),
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([0, -1, 0, 0], [0, 2, 3]),
        ([-1, -1, 1, 0], [2, 3]),
        ([-1, -1, -1, 0], [3]),
    ],
)
def test_which_anchors_learn(classes: list[int], learned: list[int]) -> None:
    logits = logits_of([HARDNESS[: len(classes)]])
    confidence_loss(logits, torch.tensor([classes], dtype=torch.int64)).backward()
    assert logits.grad is not None
    touched = logits.grad[0].abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == learned


def test_confidence_loss_by_hand() -> None:
    logits = logits_of([HARDNESS])
    loss = confidence_loss(logits, torch.tensor([[1, 0, 0, 0]]), negative_ratio=2)
    # the positive, and the two hardest negatives
    assert loss.item() == pytest.approx(softplus(2) + softplus(1) + softplus(2))


def test_negatives_are_counted_per_image() -> None:
    classes = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    both = confidence_loss(logits_of([HARDNESS, HARDNESS]), classes, negative_ratio=1)
    first = softplus(2) + softplus(1) + softplus(1) + softplus(2)
    assert both.item() == pytest.approx(first + softplus(2))


def test_hardness_is_the_probability_of_any_object() -> None:
    # Anchor 0 has one confident class, anchor 1 two half confident ones, which together are more.
    logits = torch.tensor([[[0.0, 1.0, -9.0], [0.0, 0.8, 0.8], [0.0, -5.0, -5.0]]]).requires_grad_()
    confidence_loss(logits, torch.zeros(1, 3).long(), negative_ratio=1).backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum(dim=1).nonzero().flatten().tolist() == [1]


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_confidence_loss_with_extreme_logits(scale: float) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(2, 10, 4, generator=rng)).requires_grad_()
    loss = confidence_loss(logits, torch.arange(20).reshape(2, 10) % 5 - 1)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_mask_loss_of_nothing() -> None:
    assert mask_loss(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4), torch.zeros(0, 4)).shape == (0,)


def test_mask_loss_by_hand() -> None:
    # The box is column 2 and rows 2-3 of a 4 x 4 grid, two cells; with the margin of one cell its
    # window is columns 1-3 and rows 1-3. What happens in row 0 or column 0 does not count.
    target = torch.tensor([[9, 9, 9, 9], [9, 0, 0, 0], [9, 0, 1, 0], [9, 0, 1, 1]]).float()
    target[target == 9] = 1
    logits = torch.tensor([[-8, -8, -8, -8], [-8, 0, 0, 0], [-8, 0, 2, 0], [-8, 0, -1, 3.0]])
    inside = 6 * LN2 + softplus(-2) + softplus(1) + softplus(-3)
    box = torch.tensor([[0.5, 0.5, 0.75, 1.0]])
    assert mask_loss(logits[None], target[None], box).item() == pytest.approx(inside / 2)


@pytest.mark.parametrize(
    ("box", "cells", "area"),
    [
        ((0.0, 0.0, 1.0, 1.0), 16, 16.0),
        ((0.25, 0.25, 0.75, 0.75), 16, 4.0),
        ((0.5, 0.5, 0.5, 0.5), 4, 0.25 * 0.25),  # sides count as a quarter of a cell at least
        ((0.5, 0.0, 0.5, 1.0), 8, 0.25 * 4),
        ((2.0, 2.0, 3.0, 3.0), 0, 16.0),  # outside
    ],
)
def test_mask_loss_is_divided_by_the_area(box: tuple[float, ...], cells: int, area: float) -> None:
    zeros = torch.zeros(1, 4, 4)
    loss = mask_loss(zeros, zeros, torch.tensor([box]))
    assert loss.tolist() == pytest.approx([cells * LN2 / area])


def test_mask_loss_on_a_grid_that_is_not_square() -> None:
    zeros = torch.zeros(1, 4, 8)
    box = torch.tensor([[0.0, 0.0, 0.0, 1.0]])  # a quarter of a cell wide, four cells high
    assert mask_loss(zeros, zeros, box).tolist() == pytest.approx([4 * LN2 / (0.25 * 4)])


@pytest.mark.parametrize(
    ("masks", "labels", "wrong"),
    [
        ([], [], 0),
        ([[[1, 1], [0, 0]]], [1], 2),
        ([[[1, 1], [0, 0]], [[1, 0], [1, 0]]], [1, 1], 3),  # objects of a class are united
        ([[[1, 1], [1, 1]], [[1, 1], [1, 1]]], [0, 1], 8),
    ],
)
def test_semantic_loss(masks: list[list[list[float]]], labels: list[int], wrong: int) -> None:
    logits = torch.full((2, 2, 2), -3.0)
    target = torch.tensor(masks, dtype=torch.float32).reshape(-1, 2, 2)
    loss = semantic_loss(logits, target, torch.tensor(labels, dtype=torch.int64))
    expected = (wrong * softplus(3) + (8 - wrong) * softplus(-3)) / 4
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (torch.zeros(0, 2, 2), torch.zeros(0, 2, 2), []),
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), [0]),
        (torch.ones(1, 2, 2), torch.ones(1, 2, 2), [1]),
        (torch.ones(1, 2, 2), torch.zeros(1, 2, 2), [0]),
        (torch.tensor([[[1.0, 1, 0]]]), torch.tensor([[[0.0, 1, 1]]]), [1 / 3]),
    ],
)
def test_mask_iou(first: Tensor, second: Tensor, expected: list[float]) -> None:
    assert mask_iou(first, second).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "target", "expected"),
    [([], [], 0), ([1.0], [0.0], 0.5), ([0.0, 0.5], [0.0, 1.0], 0.125), ([3.0], [1.0], 1.5)],
)
def test_mask_iou_loss(predicted: list[float], target: list[float], expected: float) -> None:
    loss = mask_iou_loss(torch.tensor(predicted), torch.tensor(target))
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("count", [0, 3])
def test_shrink_masks_to_a_grid(count: int) -> None:
    masks = torch.zeros(count, 8, 8, dtype=torch.bool)
    masks[:, :4] = True
    masks[:, 6, 5:7] = True  # two of the four pixels around the centre: not more than half
    small = shrink_masks(masks, (4, 2))
    assert small.dtype == torch.float32
    expected = torch.tensor([[1.0, 1], [1, 1], [0, 0], [0, 0]])
    assert small.shape == (count, 4, 2)
    assert (small == expected).all()
