"""The losses of a recorded network, by a recording that works on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import compress

import pytest
import torch
from support.tiny import SETTINGS
from support.tiny_mask_rcnn import build as build_mask_rcnn
from torch import Tensor, nn

from layers.structures import Predictions, Target
from yolact import build_model, get_config
from yolact.config import Config
from yolact.engines.training_graphs import ForwardBackwardGraph, Record, RecordedLosses, can_record
from yolact.models.segmenter import AnySegmenter
from yolact.training import setup
from yolact.training.options import TrainOptions

CONFIG = get_config("yolact_resnet18").override(*SETTINGS)
SIDE = CONFIG.model.image_size


def model_of(config: Config = CONFIG) -> AnySegmenter:
    torch.manual_seed(0)
    return build_model(config).train()


def batch_of(seed: int, images: int = 2) -> tuple[list[Tensor], list[Target]]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    masks[:, 8:40, 4:36] = True
    box = torch.tensor([[4.0, 8.0, 36.0, 40.0]])
    none = torch.zeros(1, dtype=torch.bool)
    target = Target(box, torch.zeros(1, dtype=torch.int64), masks, none)
    shape = (3, SIDE, SIDE)
    pictures = [
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(images)
    ]
    return pictures, [target] * images


def record(network: nn.Module, x: Tensor) -> ForwardBackwardGraph:
    """Replays as a GPU does: from the same memory into the same memory."""
    x, parameters = x.clone(), list(network.parameters())
    first = network(x)
    learned = [each.requires_grad for each in first]
    seeds = [torch.zeros_like(each) for each in compress(first, learned)]

    def gradients(outputs: Predictions) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(
            list(compress(outputs, learned)), parameters, seeds, allow_unused=True
        )

    found = gradients(first)
    outputs = Predictions._make(each.detach() for each in first)
    latest: list[Predictions] = []

    def forward() -> None:
        with torch.enable_grad():
            latest[:] = [network(x)]
        for place, value in zip(outputs, latest[0], strict=True):
            place.copy_(value.detach())

    def backward() -> None:
        for place, value in zip(found, gradients(latest[0]), strict=True):
            if place is not None and value is not None:
                place.copy_(value)

    return ForwardBackwardGraph(x, outputs, learned, forward, seeds, parameters, found, backward)


def steps(model: AnySegmenter, losses: Callable, batches: list) -> list[float]:
    """Train on batches; return the sum of the losses of each."""
    optimizer, totals = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9), []
    for images, targets in batches:
        optimizer.zero_grad(set_to_none=True)
        total = torch.stack(list(losses(images, targets).values())).sum()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    return totals


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param([batch_of(seed) for seed in range(3)], id="one shape"),
        pytest.param([batch_of(0), batch_of(1, images=3), batch_of(2)], id="another between"),
    ],
)
def test_it_learns_as_a_network_that_is_not_recorded(batches: list) -> None:
    plain, recorded = model_of(), model_of()
    calls: list[Tensor] = []

    def counting(network: nn.Module, x: Tensor) -> ForwardBackwardGraph:
        calls.append(x)
        return record(network, x)

    expected = steps(plain, plain, batches)
    assert steps(recorded, RecordedLosses(recorded, counting), batches) == pytest.approx(expected)
    assert len(calls) == 1
    for (name, one), other in zip(
        plain.state_dict().items(), recorded.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def failing(network: nn.Module, x: Tensor) -> ForwardBackwardGraph:
    network(x)
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")


def test_what_cannot_be_recorded_is_trained_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    plain, model = model_of(), model_of()
    batches = [batch_of(seed) for seed in range(3)]
    with caplog.at_level(logging.WARNING):
        found = steps(model, RecordedLosses(model, failing), batches)
    assert found == pytest.approx(steps(plain, plain, batches))
    (line,) = caplog.messages
    assert line.endswith("without CUDA graphs: CUDA out of memory. Tried to allocate")


@pytest.mark.parametrize("way", [record, failing])
def test_batch_norm_sees_no_batch_twice(way: Record) -> None:
    plain, model = model_of(), model_of()
    losses = RecordedLosses(model, way)
    for seed in range(2):
        plain(*batch_of(seed))
        losses(*batch_of(seed))
    for one, other in zip(plain.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_only_what_has_fixed_shapes_is_recorded_and_only_on_a_gpu() -> None:
    assert not can_record(model_of())
    on_card = type("OnCard", (), {"device": torch.device("cuda"), "fixed_shapes": True})()
    assert can_record(on_card)
    on_card.fixed_shapes = build_mask_rcnn().fixed_shapes
    assert not can_record(on_card)


@pytest.mark.parametrize(
    ("settings", "options", "is_recorded"),
    [
        ((), {}, True),
        (("train.multi_scale=0.3",), {}, False),  # another shape at every step
        (
            (),
            {"accumulate": 2},
            False,
        ),  # the second part would spoil the first's gradients
    ],
)
def test_which_runs_are_recorded(
    settings: tuple[str, ...],
    options: dict,
    is_recorded: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup, "can_record", lambda model: True)
    config = CONFIG.override(*settings)
    asked = TrainOptions("run", **options)
    found = setup.loss_function(model_of(), config, asked)
    assert isinstance(found, RecordedLosses) == is_recorded
