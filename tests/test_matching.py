import pytest
import torch
from torch import Tensor

from layers.boxes import xyxy_to_cxcywh
from layers.matching import match_anchors

NONE: list[tuple[float, ...]] = []


def rows(values: list[tuple[float, ...]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 4)


def match(
    anchors: list[tuple[float, ...]],
    objects: list[tuple[float, ...]],
    labels: list[int],
    crowds: list[tuple[float, ...]] = NONE,
) -> tuple[list[int], list[int]]:
    """Match xyxy anchors; return the class and the object of each."""
    matches = match_anchors(
        xyxy_to_cxcywh(rows(anchors)), rows(objects), torch.tensor(labels).long(), rows(crowds)
    )
    assert matches.classes.dtype == matches.objects.dtype == torch.int64
    return matches.classes.tolist(), matches.objects.tolist()


# Ten units wide, one high, so that overlaps with (0, 0, 10, 1) are easily told.
WHOLE = (0.0, 0.0, 10.0, 1.0)
IOU_60, IOU_50, IOU_45, IOU_40, IOU_30 = ((0.0, 0.0, w, 1.0) for w in (6.0, 5.0, 4.5, 4.0, 3.0))
FAR = (100.0, 0.0, 110.0, 1.0)


@pytest.mark.parametrize(
    ("anchors", "objects", "labels", "crowds", "classes"),
    [
        ([], [], [], [], []),
        ([], [WHOLE], [0], [], []),
        ([], [], [], [WHOLE], []),
        ([WHOLE, FAR], [], [], [], [0, 0]),
        ([WHOLE, FAR], [], [], [WHOLE], [-1, 0]),
        ([WHOLE, FAR], [WHOLE], [4], [], [5, 0]),
        # The ignore band [0.4, 0.5); WHOLE itself takes the forced match.
        ([WHOLE, IOU_60, IOU_50], [WHOLE], [1], [], [2, 2, 2]),
        ([WHOLE, IOU_45, IOU_30], [WHOLE], [1], [], [2, -1, 0]),
        ([WHOLE, IOU_40], [WHOLE], [1], [], [2, -1]),
        # The best anchor learns the object however small the overlap.
        ([IOU_30, FAR], [WHOLE], [1], [], [2, 0]),
    ],
)
def test_classes(
    anchors: list[tuple[float, ...]],
    objects: list[tuple[float, ...]],
    labels: list[int],
    crowds: list[tuple[float, ...]],
    classes: list[int],
) -> None:
    assert match(anchors, objects, labels, crowds)[0] == classes


@pytest.mark.parametrize(
    ("crowd", "classes"),
    [
        ((100.0, 0.0, 110.0, 1.0), [5, -1]),  # FAR is wholly inside
        ((100.0, 0.0, 107.5, 1.0), [5, -1]),
        ((100.0, 0.0, 106.5, 1.0), [5, 0]),  # 65 % is not more than 70 %
        ((0.0, 0.0, 10.0, 1.0), [5, 0]),  # a positive anchor stays positive
        ((0.0, 0.0, 1000.0, 9.0), [5, -1]),  # overlap counts over the anchor, not the union
        ((1.0, 1.0, 1.0, 1.0), [5, 0]),
    ],
)
def test_crowds_are_neutral(crowd: tuple[float, ...], classes: list[int]) -> None:
    assert match([WHOLE, FAR], [WHOLE], [4], [crowd])[0] == classes


def test_one_of_several_crowds_is_enough() -> None:
    assert match([WHOLE, FAR], [], [], [WHOLE, FAR])[0] == [-1, -1]


def test_each_anchor_takes_its_closest_object() -> None:
    anchors = [(0.0, 0.0, 10.0, 1.0), (0.0, 0.0, 9.0, 1.0), (20.0, 0.0, 29.0, 1.0)]
    objects = [(20.0, 0.0, 30.0, 1.0), WHOLE]
    assert match(anchors, objects, [3, 7]) == ([8, 8, 4], [1, 1, 0])


def test_two_objects_compete_for_one_anchor() -> None:
    # Both objects overlap anchor 0 most; the stronger pair wins, and the other object takes its
    # next best anchor, though the two overlap by little.
    anchors = [WHOLE, (9.0, 0.0, 30.0, 1.0)]
    weak, strong = (0.0, 0.0, 12.0, 1.0), (0.0, 0.0, 10.5, 1.0)
    assert match(anchors, [weak, strong], [3, 7]) == ([8, 4], [1, 0])
    assert match(anchors, [strong, weak], [7, 3]) == ([8, 4], [0, 1])


def test_forced_anchors_are_given_out_in_global_order() -> None:
    # Overlaps, objects down and anchors across (in tenths of the union, roughly):
    #   first   0.9  0.8  -       it would take anchor 0 ...
    #   second  1.0  -    -       ... but this pair is the strongest of all,
    #   third   -    1/1.2  -     and this one precedes the first object's second choice.
    anchors = [(0.0, 0.0, 10.0, 1.0), (1.0, 0.0, 13.0, 1.0), (8.0, 0.0, 30.0, 1.0)]
    first, second, third = (0.0, 0.0, 11.0, 1.0), WHOLE, (1.0, 0.0, 12.9, 1.0)
    assert match(anchors, [first, second, third], [0, 1, 2]) == ([2, 3, 1], [1, 2, 0])


def test_more_objects_than_anchors() -> None:
    objects = [IOU_30, WHOLE, IOU_60]
    assert match([WHOLE], objects, [0, 1, 2]) == ([2], [1])


def test_equal_overlaps_give_every_object_an_anchor() -> None:
    classes, objects = match([WHOLE, WHOLE, WHOLE], [WHOLE, WHOLE], [0, 1])
    assert set(objects[:2]) == {0, 1}
    assert sorted(classes[:2]) == [1, 2]
    assert classes[2] > 0


def test_random_objects_all_get_an_anchor() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (1, 5, 30):
        centres = torch.rand(200, 2, generator=generator)
        anchors = torch.cat((centres, torch.full((200, 2), 0.2)), dim=1)
        low = torch.rand(count, 2, generator=generator) * 0.8
        size = torch.rand(count, 2, generator=generator) * 0.2 + 0.01
        labels = torch.arange(count)
        matches = match_anchors(anchors, torch.cat((low, low + size), 1), labels, torch.zeros(0, 4))
        positive = matches.classes > 0
        assert set(matches.objects[positive].tolist()) == set(range(count))
        assert (matches.classes[positive] == labels[matches.objects[positive]] + 1).all()


def test_thresholds_are_the_callers() -> None:
    anchors, one = xyxy_to_cxcywh(rows([WHOLE, IOU_60, IOU_30])), torch.tensor([0])
    matches = match_anchors(anchors, rows([WHOLE]), one, rows([]), 0.7, 0.2)
    assert matches.classes.tolist() == [1, -1, -1]
