"""What a GPU runs after and around the network, on the CPU and on the meta device.

Nothing on the meta device has a value: what asks for one fails there, where a GPU would be waited
for. So it stands for a GPU that is waited for in `fetch` alone, which a double counts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from gpu import made, pixels
from gpu.report import NotHere, Report
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layers import detect as detecting
from layers import instances, matching, paste, structures
from layers.detect import Nms, Settings, detect
from layers.losses import confidence_loss
from layers.paste import paste_masks, pasted_parts
from layers.structures import Candidates, Predictions, fetch, positions, upload_picture
from yolact.config import LossConfig
from yolact.drawing.detections import draw_detections
from yolact.models import criterion as criteria
from yolact.models.criterion import Criterion
from yolact.models.mask_rescorer import MaskRescorer
from yolact.models.yolact import Yolact

META, CPU = torch.device("meta"), torch.device("cpu")
CHECKS = [value for name, value in vars(pixels).items() if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_checks_of_a_device(check: Callable[[torch.device, Report], None]) -> None:
    try:
        check(CPU, Report())
    except NotHere as reason:
        pytest.skip(str(reason))


class Waits:
    """A `fetch` that counts, and gives made up values: `told` by calls, or `value` all over."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *told: list[Tensor], value: int = 1
    ) -> None:
        self.count, self.told, self.value = 0, list(told), value
        for module in (structures, detecting, matching, criteria):
            monkeypatch.setattr(module, "fetch", self)
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # none on meta

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        if tensors[0].device == CPU:
            return list(tensors)
        self.count += 1
        if self.told:
            return self.told.pop(0)
        return [torch.full(t.shape, self.value, dtype=t.dtype) for t in tensors]


# --- detection -----------------------------------------------------------------------------------


def detect_padded(raw: Predictions, settings: Settings) -> list[Candidates]:
    images = zip(*raw[:3], strict=True)
    return detecting.detect_padded([detecting._Raw(*i, raw.anchors) for i in images], settings)


def good(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores >= 0.3) & (labels == 0)


@pytest.mark.parametrize("nms", ["fast", "cross_class"])
@pytest.mark.parametrize(
    ("count", "classes", "rounded"),
    [(0, 3, False), (1, 1, False), (30, 6, False), (30, 6, True), (200, 1, True), (200, 9, False)],
)
@pytest.mark.parametrize("few", [500, 20])
def test_padded_detections_are_those_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, nms: Nms, count: int, classes: int, rounded: bool, few: int
) -> None:
    monkeypatch.setattr(detecting, "PRESELECT_COUNT", few)
    raw = made.predictions(count, classes)
    if rounded:
        raw = raw._replace(class_logits=raw.class_logits.round())  # ties
    for most in (1, 10, 1000):
        for admit in (None, good):
            settings = Settings(0.05, 0.5, 200, most, nms, admit)
            pairs = zip(detect(raw, *settings), detect_padded(raw, settings), strict=True)
            for expected, found in pairs:
                assert len(found) == len(expected)
                for name in ("boxes", "scores", "labels", "coefficients"):
                    assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_no_image_is_padded() -> None:
    assert (
        detect_padded(made.predictions(9, 2, images=0), Settings(0.05, 0.5, 200, 100, "fast", None))
        == []
    )


@pytest.fixture(scope="module")
def model() -> Yolact:
    return made.tiny_yolact(CPU).to(META)


@pytest.mark.parametrize("way", ["plain", "refit", "rescored"])
@pytest.mark.parametrize(
    ("nms", "count", "decided"),
    [("fast", 0, True), ("fast", 600, True), ("fast", 600, False), ("cross_class", 7, True)],
)
def test_results_are_waited_for_once_and_once_more_for_many_anchors(
    monkeypatch: pytest.MonkeyPatch, model: Yolact, nms: Nms, count: int, decided: bool, way: str
) -> None:
    model = copy.deepcopy(model)
    model.detection = replace(model.detection, nms=nms, refit=way == "refit")
    if way == "rescored":
        model.mask_rescorer = MaskRescorer(made.CLASSES).to(META)
    raw = made.on(META, made.predictions(count, 3, images=4))
    waits = Waits(monkeypatch, value=int(decided))
    found = made.results(model, raw, (90, 160))
    assert waits.count == (2 if decided else 3)
    assert {len(each) for each in found} == ({0} if not decided else {len(found[0])})


def test_greedy_suppression_is_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Waits(monkeypatch, value=0)
    (found,) = detect(made.on(META, made.predictions(9, 3, images=1)), nms="greedy")
    assert waits.count == 1
    assert found.boxes.device == META


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "rescoring"), [([0], False), ([3] * 3, False), ([40], False), ([3], True)]
)
def test_losses_are_waited_for_twice(
    monkeypatch: pytest.MonkeyPatch, counts: list[int], rescoring: bool
) -> None:
    raw = made.for_training(CPU, len(counts), 138)
    targets = made.make_targets(counts, 138)
    raw = Predictions(*(part.detach().to(META).requires_grad_() for part in raw))
    learned = [int((~target.is_crowd).sum()) for target in targets]
    overlaps = torch.zeros(sum(learned), max(learned))
    pairs = [overlaps, overlaps.long()]
    of_anchors = [torch.tensor([[5] * len(counts), [4] * len(counts)])]
    told = [*([pairs] if sum(counts) else []), of_anchors]
    waits = Waits(monkeypatch, *told)
    criterion = Criterion(LossConfig(), MaskRescorer(made.CLASSES).to(META) if rescoring else None)
    losses = criterion(raw, targets)
    torch.stack(list(losses.values())).sum().backward()
    assert waits.count == len(told) + rescoring
    assert not waits.told


def test_the_loss_of_all_anchors_is_that_of_the_chosen_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The branch of a GPU, where the choice is a weight, with values."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 50, 5, generator=rng)
    classes = torch.randint(-1, 5, (3, 50), generator=rng) * (torch.arange(50) % 9 == 0)
    expected = confidence_loss(logits, classes)

    class Elsewhere(Tensor):
        device = META

    found = confidence_loss(logits.as_subclass(Elsewhere), classes)
    torch.testing.assert_close(found.as_subclass(Tensor), expected)


@pytest.mark.parametrize("mask", [[], [False], [True, False, True], [[False, True], [True, True]]])
def test_positions(mask: list[Any]) -> None:
    flags = torch.tensor(mask, dtype=torch.bool)
    count = int(flags.sum())
    assert positions(flags, count).tolist() == np.flatnonzero(mask).tolist()
    there = positions(flags.to(META), count)
    assert (there.shape, there.dtype, there.device) == ((count,), torch.int64, META)


# --- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [2**23, 100])
@pytest.mark.parametrize("image_hw", [(1, 1), (1, 40), (37, 2), (33, 50)])
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_parts_are_the_masks_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, at_once: int, image_hw: tuple[int, int], crop: bool, count: int
) -> None:
    monkeypatch.setattr("layers.paste._AT_ONCE", at_once)
    here = made.objects(count, image_hw, 7, crop)
    odd = [(0, 0, torch.nan, 4), (2.5, 0, 2.5, 4), (3, 0, 1, 4), (0, 0, torch.inf, 3)]
    here.mask_frames[2:6] = torch.tensor(odd)[: max(count - 2, 0)]
    here.boxes[6:8] = torch.tensor([(0.5, 1.5, 2.5, torch.inf), (0, torch.nan, 9, 9)])[: count - 6]
    masks = here.soft_masks, here.mask_frames, image_hw, here.boxes if crop else None
    full = torch.ones((count, *image_hw), dtype=torch.bool)
    for objects, rows, inside in pasted_parts(*masks):
        assert inside.numel() <= max(at_once, image_hw[1])
        full[objects, rows] = inside
    assert torch.equal(full, paste_masks(*masks))


def test_masks_of_1000_objects_take_less_than_500_megabytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (instances, paste):  # the parts are alike: a few do
        monkeypatch.setattr(module, "pasted_parts", lambda *masks: islice(pasted_parts(*masks), 5))
    here = made.objects(0, made.UHD).to(META)
    parts = {name: value for name, value in vars(here).items() if isinstance(value, Tensor)}
    many = {name: value.new_empty(1000, *value.shape[1:]) for name, value in parts.items()}
    here = replace(here, **many)
    picture = torch.empty((*made.UHD, 3), dtype=torch.uint8, device=META)
    for function, returned in (
        (lambda: here.masks, 1000 * made.UHD[0] * made.UHD[1]),
        (lambda: here.areas, 0),
        (lambda: here.has_pixels(), 0),
        (lambda: here.tinted(picture, [(1, 2, 3)] * 1000, 0.5), 0),
    ):
        with Memory() as memory:
            function()
        assert returned < memory.most < returned + 500e6


class Memory(TorchDispatchMode):
    """Counts the bytes of all that is made and alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._alive: list[tuple[StorageWeakRef, int]] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = operator(*args, **(kwargs or {}))
        self._alive = [one for one in self._alive if not one[0].expired()]
        known = {reference.cdata for reference, _ in self._alive}
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if is_tensor(t)}
        for tensor in filter(is_tensor, tree_leaves(result)):
            storage = tensor.untyped_storage()
            if storage._cdata not in known | given:
                self._alive.append((StorageWeakRef(storage), storage.nbytes()))
        self.most = max(self.most, sum(size for _, size in self._alive))
        return result


def is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


# --- copies and pictures -------------------------------------------------------------------------


@pytest.mark.parametrize("pixels_of", [0, 12, 2**26])
@pytest.mark.parametrize("device", ["cuda", "mps", "cpu"])
def test_pictures_are_pinned_for_a_gpu_unless_they_are_huge(
    monkeypatch: pytest.MonkeyPatch, pixels_of: int, device: str
) -> None:
    steps = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: steps.append("pin") or tensor)
    monkeypatch.setattr(Tensor, "to", lambda tensor, _, non_blocking: steps.append(non_blocking))
    upload_picture(torch.zeros(1, dtype=torch.uint8).expand(pixels_of), torch.device(device))
    pinned = device == "cuda" and pixels_of < 2**25
    assert steps == ["pin"] * pinned + [device == "cuda"]


def test_a_device_is_waited_for_before_its_results_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With doubles for what CUDA has: memory that is pinned, and a queue."""
    queue: list[Callable[[], object]] = []

    class OnCard(Tensor):
        device = torch.device("cuda")

    class Stream:
        def synchronize(self) -> None:
            while queue:
                queue.pop(0)()

    def copy_later(pinned: Tensor, source: Tensor, non_blocking: bool) -> Tensor:
        assert non_blocking
        queue.append(lambda: pinned.set_(source.as_subclass(Tensor).clone()))
        return pinned

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda s, dtype, pin_memory: empty(s, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(Tensor, "copy_", copy_later)
    values = [torch.arange(3), torch.ones(2, 2), torch.zeros(0, 4)]
    found = fetch(*(value.as_subclass(OnCard) for value in values))
    assert all(torch.equal(one, other) for one, other in zip(found, values, strict=True))


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("count", [0, 3])
def test_a_tensor_is_drawn_on_as_an_array(count: int, masks: bool) -> None:
    here = made.objects(count, (40, 60), 7)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    tensor = torch.from_numpy(picture.copy())
    drawn = draw_detections(tensor, here, masks=masks)
    expected = draw_detections(picture, here, masks=masks)
    assert np.abs(drawn.astype(int) - expected).max() <= 1
    assert (tensor.numpy() == picture).all()
    assert (drawn == picture).all() == (count == 0)
