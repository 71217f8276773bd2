import math

import pytest
import torch
from torch import Tensor

from layers.boxes import (
    box_area,
    box_iou,
    cxcywh_to_xyxy,
    decode_boxes,
    encode_boxes,
    intersection_over_area,
    xyxy_to_cxcywh,
)

UNIT = (0.0, 0.0, 1.0, 1.0)
POINT = (0.5, 0.5, 0.5, 0.5)
INVERTED = (1.0, 1.0, 0.0, 0.0)


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def random_boxes(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    corners = torch.rand((*shape, 2, 2), generator=torch.Generator().manual_seed(seed))
    return torch.cat((corners.amin(dim=-2), corners.amax(dim=-2) + 0.01), dim=-1)


@pytest.mark.parametrize(
    ("cxcywh", "xyxy"),
    [
        (boxes(), boxes()),
        (boxes((0.5, 0.5, 1, 1)), boxes(UNIT)),
        (boxes((5, 6, 4, 2)), boxes((3, 5, 7, 7))),
        (boxes((-1, 0, 2, 0)), boxes((-2, 0, 0, 0))),
        (boxes((0, 0, -2, 4)), boxes((1, -2, -1, 2))),
    ],
)
def test_formats(cxcywh: Tensor, xyxy: Tensor) -> None:
    torch.testing.assert_close(cxcywh_to_xyxy(cxcywh), xyxy)
    torch.testing.assert_close(xyxy_to_cxcywh(xyxy), cxcywh)


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 0), (2, 3, 5)])
def test_formats_round_trip(shape: tuple[int, ...]) -> None:
    xyxy = random_boxes(shape)
    back = cxcywh_to_xyxy(xyxy_to_cxcywh(xyxy))
    assert back.shape == (*shape, 4)
    torch.testing.assert_close(back, xyxy, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "areas"),
    [
        ([], []),
        ([(0, 0, 2, 3)], [6]),
        ([POINT, INVERTED, (0, 1, 2, 0), (1, 0, 0, 1)], [0, 0, 0, 0]),
    ],
)
def test_box_area(rows: list[tuple[float, ...]], areas: list[float]) -> None:
    assert box_area(boxes(*rows)).tolist() == areas


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (boxes(), boxes(), torch.zeros(0, 0)),
        (boxes(), boxes(UNIT), torch.zeros(0, 1)),
        (boxes(UNIT, UNIT), boxes(), torch.zeros(2, 0)),
        (boxes(UNIT), boxes(UNIT), torch.tensor([[1.0]])),
        (boxes(UNIT), boxes((1, 0, 2, 1)), torch.tensor([[0.0]])),  # they touch
        (boxes(UNIT), boxes((3, 3, 4, 4)), torch.tensor([[0.0]])),
        (boxes((0, 0, 2, 2)), boxes((1, 1, 3, 3)), torch.tensor([[1 / 7]])),
        (boxes((0, 0, 4, 4)), boxes((1, 1, 2, 3)), torch.tensor([[2 / 16]])),
        (boxes(POINT), boxes(POINT, UNIT), torch.tensor([[0.0, 0.0]])),
        (boxes(INVERTED), boxes(UNIT, INVERTED), torch.tensor([[0.0, 0.0]])),
        (boxes(UNIT, (0, 0, 2, 1)), boxes(UNIT, POINT), torch.tensor([[1, 0], [0.5, 0]])),
    ],
)
def test_box_iou(first: Tensor, second: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(box_iou(first, second), expected)
    torch.testing.assert_close(box_iou(second, first), expected.t())


def test_box_iou_of_a_batch_equals_that_of_each() -> None:
    first, second = random_boxes((3, 4), 1), random_boxes((3, 6), 2)
    each = torch.stack([box_iou(a, b) for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(box_iou(first, second), each, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (boxes(), boxes(), torch.zeros(0, 0)),
        (boxes(), boxes(UNIT), torch.zeros(0, 1)),
        (boxes(UNIT), boxes(), torch.zeros(1, 0)),
        (boxes(UNIT), boxes((0, 0, 4, 4)), torch.tensor([[1.0]])),
        (boxes((0, 0, 4, 4)), boxes(UNIT), torch.tensor([[1 / 16]])),  # not symmetric
        (boxes((0, 0, 2, 2)), boxes((1, 0, 9, 9)), torch.tensor([[0.5]])),
        (boxes(POINT, INVERTED), boxes(UNIT), torch.tensor([[0.0], [0.0]])),
    ],
)
def test_intersection_over_area(first: Tensor, second: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(intersection_over_area(first, second), expected)


def test_encode_by_hand() -> None:
    anchor = boxes((0.5, 0.5, 0.2, 0.4))
    box = boxes((0.5, 0.3, 0.9, 0.5))  # centre (0.7, 0.4), size (0.4, 0.2)
    # centre: offset / anchor size / 0.1; size: log ratio / 0.2
    expected = boxes((10.0, -2.5, math.log(2) / 0.2, -math.log(2) / 0.2))
    torch.testing.assert_close(encode_boxes(box, anchor), expected)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_encode_decode_round_trip(count: int) -> None:
    targets = random_boxes((count,), 3)
    anchors = xyxy_to_cxcywh(random_boxes((count,), 4))
    deltas = encode_boxes(targets, anchors)
    assert deltas.shape == (count, 4)
    torch.testing.assert_close(decode_boxes(deltas, anchors), targets, rtol=0, atol=1e-5)


def test_zero_deltas_decode_to_the_anchors() -> None:
    anchors = random_boxes((5,), 5)
    expected = cxcywh_to_xyxy(anchors)
    torch.testing.assert_close(decode_boxes(torch.zeros(5, 4), anchors), expected)


def test_decode_of_a_batch_equals_that_of_each() -> None:
    anchors = xyxy_to_cxcywh(random_boxes((6,), 6))
    deltas = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(7))
    each = torch.stack([decode_boxes(d, anchors) for d in deltas])
    torch.testing.assert_close(decode_boxes(deltas, anchors), each, rtol=0, atol=0)


@pytest.mark.parametrize("box", [POINT, INVERTED, (0.2, 0.2, 0.2, 0.9)])
def test_degenerate_boxes_encode_finitely(box: tuple[float, ...]) -> None:
    deltas = encode_boxes(boxes(box), boxes((0.5, 0.5, 0.1, 0.1)))
    assert deltas.isfinite().all()
