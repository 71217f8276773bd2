import builtins
import logging
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from layers import native, nms
from layers.native import load_kernels
from layers.nms import batched_greedy_nms, cross_class_nms, fast_nms, greedy_nms

EMPTY = torch.zeros(0, 4)
# A chain: each box overlaps its neighbours by 0.6, and the next but one by 1/3.
CHAIN = torch.tensor([[0.0, 0.0, 8.0, 1.0], [2.0, 0.0, 10.0, 1.0], [4.0, 0.0, 12.0, 1.0]])


def random_case(seed: int, count: int, integer: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Clustered boxes, some of them degenerate, scores with ties, and three groups."""
    rng = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=rng) * 20
    size = torch.rand(count, 2, generator=rng) * 10
    boxes = torch.cat((low, low + size), dim=1)
    boxes = boxes.round() if integer else boxes
    scores = torch.rand(count, generator=rng)
    scores[::3] = (scores[::3] * 5).round() / 5
    return boxes, scores, torch.randint(0, 3, (count,), generator=rng)


@pytest.mark.parametrize("count", [0, 1, 2, 20, 150])
@pytest.mark.parametrize("integer", [False, True], ids=["real", "integer"])
def test_greedy_equals_torchvision(path: str, count: int, integer: bool) -> None:
    for seed in range(40):
        boxes, scores, groups = random_case(seed, count, integer)
        for iou_threshold in (0.0, 0.25, 0.5, 0.75):
            ours = batched_greedy_nms(boxes, scores, groups, iou_threshold)
            theirs = torchvision.ops.batched_nms(boxes, scores, groups, iou_threshold)
            assert ours.tolist() == theirs.tolist(), (seed, iou_threshold)


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([], []),
        ([(0, 0, 0, 0)], [0]),
        ([(0, 0, 0, 0), (0, 0, 0, 0)], [0, 1]),  # no area, no overlap
        ([(0, 0, 4, 4), (2, 2, 2, 2), (0, 0, 4, 4)], [0, 1]),
        ([(0, 0, 4, 4), (0, 0, 4, 2.001)], [0]),
        ([(0, 0, 4, 4), (0, 0, 4, 2)], [0, 1]),  # exactly at the threshold
    ],
)
def test_greedy_by_hand(path: str, rows: list[tuple[float, ...]], kept: list[int]) -> None:
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    groups = torch.zeros(len(rows), dtype=torch.int64)
    scores = torch.linspace(1, 0.5, len(rows))
    assert batched_greedy_nms(boxes, scores, groups, 0.5).tolist() == kept


@pytest.mark.parametrize("tenths", range(1, 10))
def test_an_overlap_equal_to_the_threshold_is_not_above_it(path: str, tenths: int) -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, tenths, 1.0]])
    groups = torch.zeros(2, dtype=torch.int64)
    kept = batched_greedy_nms(boxes, torch.tensor([0.9, 0.8]), groups, tenths / 10)
    assert kept.tolist() == [0, 1]


def test_groups_far_outside_the_image_do_not_meet(path: str) -> None:
    # Telling groups apart by shifting their boxes would lay the second over the first.
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [-2.0, -2.0, -1.0, -1.0]])
    kept = batched_greedy_nms(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), 0.5)
    assert kept.tolist() == [0, 1]


def test_a_huge_box_leaves_small_ones_of_other_groups_exact(path: str) -> None:
    small = [0.001, 0.001, 0.004, 0.004]
    boxes = torch.tensor([small, small, [0.003, 0.003, 0.006, 0.006], [0.0, 0.0, 2000.0, 2000.0]])
    groups = torch.tensor([79, 79, 79, 0])
    kept = batched_greedy_nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), groups, 0.5)
    assert kept.tolist() == [0, 2, 3]


@pytest.fixture
def fresh_kernels() -> Iterator[None]:
    load_kernels.cache_clear()
    yield
    load_kernels.cache_clear()


def test_missing_kernels_are_said_once(
    fresh_kernels: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    boxes, scores, groups = random_case(0, 50, False)
    expected = batched_greedy_nms(boxes, scores, groups, 0.5).tolist()
    load_kernels.cache_clear()
    real_import = builtins.__import__

    def without_kernels(name: str, globals: object = None, locals: object = None,
                        fromlist: tuple[str, ...] = (), level: int = 0) -> object:  # fmt: skip
        if "kernels" in (fromlist or ()) or name.endswith("kernels"):
            raise ImportError(name)
        return real_import(name, globals, locals, fromlist, level)

    def no_module(name: str, package: str | None = None) -> object:
        raise ImportError(name)

    monkeypatch.setattr(builtins, "__import__", without_kernels)
    monkeypatch.setattr(native, "import_module", no_module)
    with caplog.at_level(logging.WARNING, "layers.native"):
        assert batched_greedy_nms(boxes, scores, groups, 0.5).tolist() == expected
        assert batched_greedy_nms(boxes, scores, groups, 0.5).tolist() == expected
    assert load_kernels() is None
    assert len(caplog.records) == 1


def test_kernels_of_an_older_version_do_not_serve(
    fresh_kernels: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "import_module", lambda name, _: ModuleType(name))
    with caplog.at_level(logging.WARNING, "layers.native"):
        assert load_kernels() is None
    assert "out of date" in caplog.text


def test_greedy_nms_drops_pairs_at_or_below_the_score() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 6.0, 6.0]])
    scores = torch.tensor([[0.5, 0.1], [0.25, 0.75]])
    index, labels, kept = greedy_nms(boxes, scores, 0.5, 0.25, 100)
    assert list(zip(index.tolist(), labels.tolist(), kept.tolist(), strict=True)) == [
        (1, 1, 0.75),
        (0, 0, 0.5),
    ]


@pytest.mark.parametrize(("count", "classes"), [(0, 1), (0, 3), (1, 1)], ids=["0x1", "0x3", "1x1"])
def test_shapes_with_few_boxes(path: str, count: int, classes: int) -> None:
    boxes, scores = torch.ones(count, 4), torch.ones(count, classes)
    results = (
        fast_nms(boxes, scores, 0.5, 200, 100),
        cross_class_nms(boxes, scores, 0.5, 200),
        greedy_nms(boxes, scores, 0.5, 0.05, 100),
    )
    for index, labels, kept in results:
        assert index.shape == labels.shape == kept.shape == (count,)
        assert index.dtype == labels.dtype == torch.int64


def test_a_suppressed_box_suppresses_in_fast_nms_only(path: str) -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    assert fast_nms(CHAIN, scores, 0.5, 200, 100)[0].tolist() == [0]
    assert cross_class_nms(CHAIN, scores, 0.5, 200)[0].tolist() == [0]
    assert greedy_nms(CHAIN, scores, 0.5, 0.05, 100)[0].tolist() == [0, 2]


@pytest.mark.parametrize("iou_threshold", [0.65, 0.6])
def test_nothing_overlaps_enough(path: str, iou_threshold: float) -> None:
    scores = torch.tensor([[0.7], [0.8], [0.9]])
    index, _, kept = fast_nms(CHAIN, scores, iou_threshold, 200, 100)
    assert index.tolist() == [2, 1, 0]
    assert kept.tolist() == sorted(kept.tolist(), reverse=True)


def test_classes_suppress_each_other_in_cross_class_only(path: str) -> None:
    boxes = CHAIN[:2]
    scores = torch.tensor([[0.9, 0.0], [0.0, 0.8]])
    assert cross_class_nms(boxes, scores, 0.5, 200)[0].tolist() == [0]
    index, labels, kept = fast_nms(boxes, scores, 0.5, 200, 2)
    assert list(zip(index.tolist(), labels.tolist(), strict=True)) == [(0, 0), (1, 1)]
    assert kept.tolist() == pytest.approx([0.9, 0.8])
    assert greedy_nms(boxes, scores, 0.5, 0.05, 100)[0].tolist() == [0, 1]


def test_cross_class_gives_each_box_its_best_class() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 6.0, 6.0]])
    scores = torch.tensor([[0.2, 0.3, 0.1], [0.6, 0.1, 0.5]])
    index, labels, kept = cross_class_nms(boxes, scores, 0.5, 200)
    assert (index.tolist(), labels.tolist()) == ([1, 0], [0, 1])
    assert kept.tolist() == pytest.approx([0.6, 0.3])


def test_fast_nms_keeps_a_box_for_every_class() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    _, labels, kept = fast_nms(boxes, torch.tensor([[0.9, 0.01]]), 0.5, 200, 100)
    assert labels.tolist() == [0, 1]
    assert kept.tolist() == pytest.approx([0.9, 0.01])


@pytest.mark.parametrize(
    ("top_k", "max_detections", "expected"), [(1, 100, 2), (3, 100, 6), (200, 4, 4), (200, 100, 20)]
)
def test_limits_of_fast_nms(path: str, top_k: int, max_detections: int, expected: int) -> None:
    boxes = torch.arange(10.0)[:, None] * 10 + torch.tensor([0.0, 0.0, 1.0, 1.0])
    scores = torch.linspace(1, 0.1, 20).reshape(10, 2)  # falls from box to box
    index, labels, kept = fast_nms(boxes, scores, 0.5, top_k, max_detections)
    assert len(index) == len(labels) == len(kept) == expected
    assert (kept.diff() <= 0).all()
    torch.testing.assert_close(kept, scores[index, labels])
    assert index.max() < max(top_k, 1)


def test_limits_of_the_others(path: str) -> None:
    boxes = torch.arange(10.0)[:, None] * 10 + torch.tensor([0.0, 0.0, 1.0, 1.0])
    scores = torch.linspace(1, 0.1, 10)[:, None]
    assert cross_class_nms(boxes, scores, 0.5, 3)[0].tolist() == [0, 1, 2]
    assert greedy_nms(boxes, scores, 0.5, 0.05, 4)[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_equal_scores_keep_the_order_of_the_boxes(path: str, seed: int) -> None:
    # More than the few that are looked at first, and any of them could be those.
    boxes = torch.arange(900.0)[:, None] * 10 + torch.tensor([0.0, 0.0, 1.0, 1.0])
    scores = torch.full((900, 1), 0.25)
    scores[torch.randperm(900, generator=torch.Generator().manual_seed(seed))[:200]] = 0.5
    expected = scores[:, 0].argsort(descending=True, stable=True)[:300].tolist()
    assert fast_nms(boxes, scores, 0.5, 900, 300)[0].tolist() == expected
    assert greedy_nms(boxes, scores, 0.5, 0.05, 300)[0].tolist() == expected


def test_many_classes_equal_few_at_a_time(path: str) -> None:
    rng = torch.Generator().manual_seed(1)
    boxes, scores = random_case(1, 30, False)[0], torch.rand(30, 70, generator=rng)
    index, labels, _ = fast_nms(boxes, scores, 0.5, 20, 10**6)
    pairs = set(zip(index.tolist(), labels.tolist(), strict=True))
    single = set()
    for label in range(70):
        one = fast_nms(boxes, scores[:, label : label + 1], 0.5, 20, 10**6)[0]
        single |= {(i, label) for i in one.tolist()}
    assert pairs == single


@pytest.mark.parametrize(("groups", "count"), [(1, 0), (3, 0), (1, 1), (80, 40), (2, 200)])
def test_fast_nms_kernel_equals_torch(
    monkeypatch: pytest.MonkeyPatch, groups: int, count: int
) -> None:
    if native.load_kernels() is None:
        pytest.skip("the kernels are not compiled")
    generator = torch.Generator().manual_seed(count)
    boxes = torch.rand((groups, count, 4), generator=generator)
    boxes[..., 2:] = boxes[..., :2] + 0.5 * boxes[..., 2:] - 0.02  # some inverted
    boxes[:, 5::11] = boxes[:, 4:-1:11][:, : boxes[:, 5::11].shape[1]]  # equal to the one before
    boxes[:, 7::13] = torch.nan
    boxes[:, 3::19, 1] = torch.nan
    boxes[:, 9::17, 2:] = boxes[:, 9::17, :2]  # without area
    scores = torch.rand((groups, count), generator=generator).sort(dim=1, descending=True)[0]
    for threshold in (0.0, 0.3, 0.5, 1.0):
        found = nms._not_suppressed(boxes, scores, threshold, groups * count)
        few = nms._not_suppressed(boxes, scores, threshold, 10)
        with monkeypatch.context() as hidden:
            hidden.setattr(native, "load_kernels", lambda: None)
            expected = nms._not_suppressed(boxes, scores, threshold, 10)
        assert found.dtype == torch.bool
        assert torch.equal(found, expected)
        tenth = scores[found].sort(descending=True)[0][:10]
        assert torch.equal(scores[few].sort(descending=True)[0], tenth)


@pytest.mark.parametrize("kind", ["fast", "greedy"])
@pytest.mark.parametrize(
    ("spread", "classes", "decided"),
    [(200.0, 3, True), (200.0, 1, True), (3.0, 1, False)],
    ids=["many objects", "one class", "few objects"],
)
def test_the_best_boxes_decide_as_all_do(
    monkeypatch: pytest.MonkeyPatch, kind: str, spread: float, classes: int, decided: bool
) -> None:
    rng = torch.Generator().manual_seed(classes)
    low = torch.rand(3000, 2, generator=rng) * spread
    boxes = torch.cat((low, low + 2 + torch.rand(3000, 2, generator=rng)), dim=1)
    scores = torch.rand(3000, classes, generator=rng)
    scores[::4] = scores[1::4]  # ties
    calls = []

    def run() -> list[tuple[float, ...]]:
        if kind == "fast":
            index, labels, kept = fast_nms(boxes, scores, 0.5, 200, 100)
        else:
            index, labels, kept = greedy_nms(boxes, scores, 0.5, 0.05, 100)
        rows = zip(kept.tolist(), labels.tolist(), boxes[index].tolist(), strict=True)
        return sorted((score, label, *box) for score, label, box in rows)

    inner = nms._suppress_preselected

    def counting(
        suppress: Callable[[Tensor, Tensor], nms.NmsResult], *others: Any
    ) -> nms.NmsResult:
        def counted(some: Tensor, of_these: Tensor) -> nms.NmsResult:
            calls.append(len(some))
            return suppress(some, of_these)

        return inner(counted, *others)

    monkeypatch.setattr(nms, "_suppress_preselected", counting)
    found = run()
    assert calls == ([500] if decided else [500, 3000])
    monkeypatch.setattr(nms, "PRESELECT_COUNT", 3000)
    assert found == run()
    assert calls[-1] == 3000
