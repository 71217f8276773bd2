from __future__ import annotations

import numpy as np
import pytest
import torch
from support.plain import STILL
from torch import Tensor

from data.augment.copy_paste import paste_objects
from data.augment.transform import TrainTransform
from data.loader import TrainingData
from data.sample import Sample
from layers.structures import Target

SIDE = 20


def target_of(*boxes: tuple[int, int, int, int], crowds: int = 0, label: int = 0) -> Target:
    """Rectangular objects, the last of them crowds."""
    masks = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.full((len(boxes),), label),
        masks=masks,
        is_crowd=torch.arange(len(boxes)) >= len(boxes) - crowds,
    )


def filled(value: int) -> Tensor:
    return torch.full((3, SIDE, SIDE), value, dtype=torch.uint8)


class Always(np.random.Generator):
    """Chooses every object."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(np.random.PCG64(seed))

    def random(self, *size: int) -> object:  # type: ignore[override]
        return np.zeros(size)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (target_of(), target_of()),
        (target_of((2, 2, 9, 9)), target_of()),
        (target_of((2, 2, 9, 9)), target_of((1, 1, 9, 9), crowds=1)),  # crowds are not taken
        (target_of((2, 2, 9, 9)), target_of((3, 3, 3, 3))),  # nor what has no pixel
    ],
)
def test_nothing_to_paste(own: Target, other: Target) -> None:
    image, target = paste_objects(filled(1), own, filled(9), other, Always())
    assert image.eq(1).all()
    assert len(target) == len(own)


def test_objects_are_pasted_on_an_image_without_any() -> None:
    other = target_of((2, 3, 6, 8), label=4)
    image, target = paste_objects(filled(1), target_of(), filled(9), other, Always())
    assert torch.equal(image[0] == 9, other.masks[0])
    assert target.boxes.tolist() == [[2, 3, 6, 8]]
    assert target.labels.tolist() == [4]


@pytest.mark.parametrize(
    ("pasted", "left"),
    [
        ((12, 12, 18, 18), (2, 2, 12, 12)),  # beside it
        ((2, 2, 12, 7), (2, 7, 12, 12)),  # the upper half is hidden
        ((4, 4, 8, 8), (2, 2, 12, 12)),  # a hole: the box stays
        ((2, 2, 12, 11), None),  # nine tenths are hidden
        ((0, 0, 20, 20), None),
    ],
)
def test_what_is_covered_is_lost(
    pasted: tuple[int, int, int, int], left: tuple[int, int, int, int] | None
) -> None:
    own = target_of((2, 2, 12, 12))
    _, target = paste_objects(filled(1), own, filled(9), target_of(pasted, label=1), Always())
    boxes = [list(map(float, box)) for box in (left, pasted) if box]
    assert target.boxes.tolist() == boxes
    assert target.masks.sum(dim=0).max() == 1  # no pixel is of two objects
    assert own.masks.sum() == 100  # the argument is left as it was


def test_crowds_stay_last() -> None:
    own = target_of((0, 0, 4, 4), (5, 5, 19, 19), crowds=1)
    other = target_of((6, 6, 9, 9), label=1)
    _, target = paste_objects(filled(1), own, filled(9), other, Always())
    assert target.labels.tolist() == [0, 1, 0]
    assert target.is_crowd.tolist() == [False, False, True]
    assert torch.equal(target.masks[2], own.masks[1])


class Scenes:
    """Image i is filled with i; its one object is a rectangle."""

    names = ("thing",)

    def __len__(self) -> int:
        return 30

    def sample(self, index: int) -> Sample:
        return Sample(
            image=np.full((30, 30, 3), index + 1, np.uint8),
            boxes=np.array([[5, 5, 25, 15]], np.float32),
            labels=np.zeros(1, np.int64),
            is_crowd=np.zeros(1, np.bool_),
            segmentations=([[5, 5, 25, 5, 25, 15, 5, 15]],),
            image_id=index,
        )


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 15), (2.0, 22)])
def test_share_of_the_images(share: float, expected: int) -> None:
    still = TrainTransform(SIDE, STILL)
    data = TrainingData(Scenes(), still, seed=0, copy_paste=share)
    mixed = sum(len(data[0, i][0].unique()) > 1 for i in range(30))
    assert abs(mixed - expected) <= (0 if share == 0 else 6)  # its object is chosen half the time
    whole = {index: set(data[0, index][0].unique().tolist()) for index in range(30)}
    assert all(index + 1 in values for index, values in whole.items())
    assert len(set().union(*(v - {i + 1} for i, v in whole.items()))) >= expected / 2
    assert torch.equal(data[0, 3][0], data[0, 3][0])


@pytest.mark.parametrize("own", [target_of(), target_of((2, 2, 9, 9), crowds=1)])
def test_without_a_neighbour_an_object_stays_where_it_was(own: Target) -> None:
    other = target_of((12, 3, 16, 8), label=4)
    image, target = paste_objects(filled(1), own, filled(9), other, Always(), beside=1)
    assert torch.equal(image[0] == 9, other.masks[0])
    assert target.boxes[~target.is_crowd].tolist() == [[12, 3, 16, 8]]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("other", [(0, 0, 2, 3), (3, 3, 19, 19)])  # much smaller; larger
def test_objects_are_set_beside_others_of_their_height(
    seed: int, other: tuple[int, int, int, int]
) -> None:
    near, far = target_of((6, 8, 12, 16), label=1), target_of(other, label=2)
    image, target = paste_objects(filled(1), near, filled(9), far, Always(seed), beside=1)
    assert target.labels.tolist() in ([1], [2], [1, 2])  # one may be outside, or hide the other
    assert target.masks.sum(dim=0).max() <= 1
    assert torch.equal(image[0] == 9, target.masks[target.labels == 2].any(dim=0))
    for box, mask in zip(target.boxes.tolist(), target.masks, strict=True):
        rows, columns = mask.nonzero().unbind(1)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    for x1, y1, x2, y2 in target.boxes[target.labels == 2].tolist():
        assert y2 - y1 <= 8 * 1.33 + 1
        assert x1 <= 12 + 2
        assert x2 >= 6 - 2
        assert 12 <= y2 <= 20


def test_what_would_hardly_be_seen_is_not_set_beside_others() -> None:
    near, far = target_of((13, 2, 19, 18), label=1), target_of((2, 2, 14, 18), label=2)
    sides = []
    for seed in range(200):
        _, target = paste_objects(filled(1), near, filled(9), far, Always(seed), beside=1)
        for x1, y1, x2, y2 in target.boxes[target.labels == 2].tolist():
            assert min(x2 - x1, y2 - y1) >= 4
            assert x2 < SIDE or x2 - x1 > 4.5  # half of a width of 9 or more
            sides.append(x2)
    assert max(sides) == SIDE
    assert len(sides) < 160


def test_the_share_set_beside_others() -> None:
    still = TrainTransform(SIDE, STILL)

    def boxes(beside: float) -> list[tuple[float, ...]]:
        data = TrainingData(Scenes(), still, seed=0, copy_paste=2.0, paste_beside=beside)
        return [tuple(box) for index in range(30) for box in data[0, index][1].boxes.tolist()]

    stay = {(round(5 * 2 / 3), round(5 * 2 / 3))}
    moved = [box for box in boxes(1.0) if (round(box[0]), round(box[1])) not in stay]
    assert all((round(box[0]), round(box[1])) in stay for box in boxes(0.0))
    assert len(moved) > 15
