import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from layers.boxes import box_iou, cxcywh_to_xyxy, xyxy_to_cxcywh
from layers.matching import Matches, _strongest_pairs, match_anchors

NONE: list[tuple[float, ...]] = []


def rows(values: list[tuple[float, ...]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 4)


def match_one(
    anchors: Tensor, boxes: Tensor, labels: Tensor, crowd_boxes: Tensor, *thresholds: float
) -> Matches:
    """Match the anchors of one image."""
    matches = match_anchors(anchors, boxes, labels, [len(boxes)], [crowd_boxes], *thresholds)
    return Matches(matches.classes[0], matches.objects[0])


def match(
    anchors: list[tuple[float, ...]],
    objects: list[tuple[float, ...]],
    labels: list[int],
    crowds: list[tuple[float, ...]] = NONE,
) -> tuple[list[int], list[int]]:
    """Match xyxy anchors; return the class and the object of each."""
    matches = match_one(
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
        matches = match_one(anchors, torch.cat((low, low + size), 1), labels, torch.zeros(0, 4))
        positive = matches.classes > 0
        assert set(matches.objects[positive].tolist()) == set(range(count))
        assert (matches.classes[positive] == labels[matches.objects[positive]] + 1).all()


def test_thresholds_are_the_callers() -> None:
    anchors, one = xyxy_to_cxcywh(rows([WHOLE, IOU_60, IOU_30])), torch.tensor([0])
    matches = match_one(anchors, rows([WHOLE]), one, rows([]), 0.7, 0.2)
    assert matches.classes.tolist() == [1, -1, -1]


def reference(anchors: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Search the strongest pair of all, again and again: slow, and so plain that it is right."""
    overlaps = box_iou(boxes, cxcywh_to_xyxy(anchors))
    best_overlap, objects = overlaps.max(dim=0)
    for _ in range(min(overlaps.shape)):
        taken, anchor = divmod(int(overlaps.argmax()), overlaps.shape[1])
        overlaps[:, anchor] = overlaps[taken] = -1
        best_overlap[anchor], objects[anchor] = 2, taken
    classes = labels[objects] + 1
    classes[best_overlap < 0.5] = -1
    classes[best_overlap < 0.4] = 0
    return classes, objects


def whole_boxes(count: int, side: int, rng: torch.Generator) -> Tensor:
    """(N, 4) xyxy in whole units, some without area: the smaller `side`, the more are equal."""
    corners = torch.randint(0, side + 1, (count, 2, 2), generator=rng).float()
    return torch.cat((corners.amin(dim=1), corners.amax(dim=1)), dim=1)


@pytest.mark.parametrize("side", [1, 2, 4, 12, 100])
@pytest.mark.parametrize(
    ("objects", "anchors"),
    [(1, 0), (1, 1), (3, 3), (20, 7), (7, 20), (30, 200), (200, 30), (60, 60)],
)
def test_forced_anchors_equal_those_of_an_exhaustive_search(
    side: int, objects: int, anchors: int
) -> None:
    for seed in range(10):
        rng = torch.Generator().manual_seed(seed)
        boxes = whole_boxes(objects, side, rng)
        boxes[::4] = boxes[0].clone()
        if seed % 3 == 0:
            boxes[1::3] += 1000  # overlaps nothing
        if seed % 5 == 0:
            boxes[2::7] = torch.nan
            boxes[3::7] = torch.inf
            boxes[boxes == 0] = -0.0
        priors = xyxy_to_cxcywh(whole_boxes(anchors, side, rng))
        if seed % 5 == 1:
            priors[3::7] = torch.inf
        labels = torch.randint(0, 80, (objects,), generator=rng)
        matches = match_one(priors, boxes, labels, rows([]))
        classes, taken = reference(priors, boxes, labels)
        assert matches.classes.tolist() == classes.tolist(), seed
        assert matches.objects.tolist() == taken.tolist(), seed


@pytest.mark.parametrize("overlaps", [[-0.0, 0.0], [0.0, -0.0], [0.5, -math.nan]])
def test_zeros_and_nan_of_either_sign_are_ordered_as_argmax_does(overlaps: list[float]) -> None:
    row = torch.tensor([overlaps])
    _, anchors, objects = _strongest_pairs(row, [1])
    assert (objects.tolist(), anchors.tolist()) == ([0], [row.argmax().item()])


class Operators(TorchDispatchMode):
    """Counts what torch is asked to do."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += 1
        return operator(*args, **(kwargs or {}))


def test_objects_are_matched_together() -> None:
    # One pass, and one wait for a GPU, for all objects; not one for each.
    def operators(objects: int) -> int:
        rng = torch.Generator().manual_seed(0)
        boxes, anchors = whole_boxes(objects, 50, rng), whole_boxes(500, 50, rng)
        with Operators() as counted:
            match_one(xyxy_to_cxcywh(anchors), boxes, torch.arange(objects), rows([]))
        return counted.count

    assert operators(2) == operators(60)


def test_an_anchor_just_as_far_in_a_crowd_as_allowed_is_background() -> None:
    anchors, crowd = rows([(0.0, 0.0, 8.0, 1.0)]), rows([(0.0, 0.0, 6.0, 1.0)])
    nothing = torch.zeros(0, dtype=torch.int64)
    for limit, expected in ((0.75, 0), (0.74, -1)):
        matches = match_one(xyxy_to_cxcywh(anchors), rows([]), nothing, crowd, 0.5, 0.4, limit)
        assert matches.classes.tolist() == [expected]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_boxes_of_any_precision_are_matched_in_float32(dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    boxes, crowds = whole_boxes(9, 20, rng).to(dtype), whole_boxes(2, 20, rng).to(dtype)
    anchors = xyxy_to_cxcywh(whole_boxes(90, 20, rng)).to(dtype)
    matches = match_one(anchors, boxes, torch.arange(9), crowds)
    exact = match_one(anchors.float(), boxes.float(), torch.arange(9), crowds.float())
    assert torch.equal(matches.classes, exact.classes)
    assert torch.equal(matches.objects, exact.objects)


@pytest.mark.parametrize("counts", [[0], [0, 0], [3], [0, 3, 1, 0, 12], [5, 5]])
def test_a_batch_is_matched_as_its_images_are(counts: list[int]) -> None:
    rng = torch.Generator().manual_seed(0)
    anchors = xyxy_to_cxcywh(whole_boxes(40, 50, rng))
    boxes, labels = whole_boxes(sum(counts), 50, rng), torch.arange(sum(counts)) % 7
    crowds = [whole_boxes(count % 2, 50, rng) for count in counts]
    classes, objects = match_anchors(anchors, boxes, labels, counts, crowds)
    parts = zip(boxes.split(counts), labels.split(counts), crowds, strict=True)
    first = 0
    for image, (own, own_labels, crowd) in enumerate(parts):
        matches = match_one(anchors, own, own_labels, crowd)
        assert torch.equal(classes[image], matches.classes)
        if len(own):
            assert torch.equal(objects[image], first + matches.objects)
        first += len(own)
