from typing import Literal

import pytest
import torch
from torch import nn

from yolact import get_config, list_configs
from yolact.config import TrainConfig
from yolact.training.optim import (
    AveragedWeights,
    autoscale,
    build_optimizer,
    input_size_at,
    learning_rate_at,
    load_gathered,
    set_learning_rate,
    with_iterations,
)

BASE = TrainConfig()


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [
        (0, 1e-4),
        (1, 1e-4 + 9e-4 / 500),
        (250, 5.5e-4),
        (499, 1e-3 - 9e-4 / 500),
        (500, 1e-3),
        (279_999, 1e-3),
        (280_000, 1e-4),
        (599_999, 1e-4),
        (600_000, 1e-5),
        (700_000, 1e-6),
        (750_000, 1e-7),
        (10**9, 1e-7),
    ],
)
def test_learning_rate_of_the_original(iteration: int, expected: float) -> None:
    assert learning_rate_at(iteration, BASE) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("train", "iteration", "expected"),
    [
        (TrainConfig(warmup_iterations=0), 0, 1e-3),
        (TrainConfig(warmup_iterations=1), 0, 1e-4),
        (TrainConfig(learning_rate_steps=()), 10**6, 1e-3),
        (TrainConfig(learning_rate_steps=(5,), warmup_iterations=10), 7, 1e-4 + 9e-4 * 0.7),
        (TrainConfig(learning_rate_steps=(5,), warmup_iterations=10), 10, 1e-4),
        (TrainConfig(learning_rate=1e-5), 0, 1e-5),  # warm-up never starts above the rate itself
        (TrainConfig(learning_rate=1e-5), 499, 1e-5),
        (TrainConfig(gamma=0.5, learning_rate_steps=(600, 600)), 600, 2.5e-4),
    ],
)
def test_learning_rate(train: TrainConfig, iteration: int, expected: float) -> None:
    assert learning_rate_at(iteration, train) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", list_configs())
def test_warm_up_rises_and_steps_fall(name: str) -> None:
    train = get_config(name).train
    rates = [learning_rate_at(i, train) for i in range(0, train.warmup_iterations + 1, 10)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(train.learning_rate)
    steps = [learning_rate_at(i, train) for i in train.learning_rate_steps]
    assert steps == sorted(steps, reverse=True)
    assert max(train.learning_rate_steps) < train.max_iterations


@pytest.mark.parametrize(
    ("batch_size", "learning_rate", "iterations", "first_step"),
    [
        (8, 1e-3, 800_000, 280_000),
        (16, 2e-3, 400_000, 140_000),
        (4, 5e-4, 1_600_000, 560_000),
        (5, 6.25e-4, 1_280_000, 448_000),
        (3, 3.75e-4, 2_133_333, 746_666),
        (1, 1.25e-4, 6_400_000, 2_240_000),
    ],
)
def test_autoscale(batch_size: int, learning_rate: float, iterations: int, first_step: int) -> None:
    scaled = autoscale(BASE, batch_size)
    assert scaled.batch_size == batch_size
    assert scaled.learning_rate == pytest.approx(learning_rate)
    assert (scaled.max_iterations, scaled.learning_rate_steps[0]) == (iterations, first_step)
    assert type(scaled.max_iterations) is type(scaled.learning_rate_steps[0]) is int
    # The original leaves warm-up as it is.
    assert scaled.warmup_iterations == 500
    assert scaled.warmup_learning_rate == 1e-4


@pytest.mark.parametrize(("own", "batch_size"), [(10, 12), (12, 14), (6, 22)])
def test_autoscale_loses_no_iteration_to_rounding(own: int, batch_size: int) -> None:
    train = TrainConfig(batch_size=own, max_iterations=batch_size * 1000, learning_rate_steps=())
    assert autoscale(train, batch_size).max_iterations == own * 1000


def test_autoscale_to_the_own_size_changes_nothing() -> None:
    for name in list_configs():
        train = get_config(name).train
        assert autoscale(train, train.batch_size) == train


def test_optimizer() -> None:
    model = nn.Linear(2, 1)
    optimizer = build_optimizer(
        model, TrainConfig(learning_rate=0.5, momentum=0.8, weight_decay=0.1)
    )
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 2
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.8, 0.1)
    before = model.weight.detach().clone()
    model.weight.grad = torch.ones(1, 2)
    optimizer.step()
    expected = before - 0.5 * (1 + 0.1 * before)
    torch.testing.assert_close(model.weight.detach(), expected)


def test_set_learning_rate() -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p], "lr": 1.0} for p in parameters])
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


COSINE = TrainConfig(schedule="cosine", max_iterations=1100, warmup_iterations=100)


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [(0, 1e-4), (50, 5.5e-4), (100, 1e-3), (600, 5e-4), (1100, 0.0), (5000, 0.0)],
)
def test_cosine(iteration: int, expected: float) -> None:
    assert learning_rate_at(iteration, COSINE) == pytest.approx(expected, abs=1e-12)


def test_a_cosine_that_is_all_warm_up() -> None:
    train = TrainConfig(schedule="cosine", max_iterations=10, warmup_iterations=10)
    assert learning_rate_at(10, train) == pytest.approx(train.learning_rate)


@pytest.mark.parametrize(
    ("iterations", "warmup", "steps"),
    [
        (800_000, 500, (280_000, 600_000, 700_000, 750_000)),
        (8_000, 500, (2_800, 6_000, 7_000, 7_500)),
        (1_000, 100, (350, 750, 875, 937)),
        (1, 0, (0, 0, 0, 0)),
    ],
)
def test_a_schedule_of_another_length(iterations: int, warmup: int, steps: tuple[int, ...]) -> None:
    train = with_iterations(BASE, iterations)
    assert train.max_iterations == iterations
    assert (train.warmup_iterations, train.learning_rate_steps) == (warmup, steps)
    assert train.learning_rate == BASE.learning_rate


def test_adamw_spares_norms_and_biases() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = build_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.1))
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert [decays[id(p)] for p in model.parameters()] == [0.1, 0, 0, 0]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_average_follows_the_weights(decay: float) -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    average = AveragedWeights(model, decay)
    expected = None
    for n, value in enumerate((1.0, 2.0, 4.0, 8.0)):
        with torch.no_grad():
            model[0].weight.fill_(value)
        model[1].running_mean.fill_(value)  # type: ignore[operator, union-attr]
        model[1].num_batches_tracked.fill_(n)  # type: ignore[operator, union-attr]
        average.update_parameters(model)
        now = min(decay, (1 + n) / (10 + n))
        expected = value if expected is None else now * expected + (1 - now) * value
    first, norm = average.module
    assert first.weight.item() == pytest.approx(expected)
    assert norm.running_mean.item() == pytest.approx(expected)
    assert norm.num_batches_tracked.item() == 3
    assert not first.weight.requires_grad


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 550, 550), (0.25, 416, 672)])
def test_input_sizes(share: float, least: int, most: int) -> None:
    train = TrainConfig(multi_scale=share)
    sizes = [input_size_at(i, 550, train) for i in range(300)]
    assert (min(sizes), max(sizes)) == (least, most)
    assert sizes == [input_size_at(i, 550, train) for i in range(300)]  # so a resumed run agrees
    if share:
        assert {size % 32 for size in sizes} == {0}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("before", "now"), [(1.0, 0.1), (0.3, 1.0), (0.0, 1.0), (1.0, 0.0)])
def test_what_was_gathered_stays_with_its_weight(
    optimizer: Literal["sgd", "adamw"], before: float, now: float
) -> None:
    model = nn.Module()
    model.network = nn.ModuleDict({"head": nn.Linear(2, 2), "backbone": nn.Linear(2, 2)})
    settings = [TrainConfig(optimizer=optimizer, backbone_rate=rate) for rate in (before, now)]
    first, second = (build_optimizer(model, each) for each in settings)
    for number, parameter in enumerate(model.parameters(), start=1):
        parameter.grad = torch.full_like(parameter, number)
    first.step()
    load_gathered(second, first.state_dict(), model, *settings)
    name = "momentum_buffer" if optimizer == "sgd" else "exp_avg"
    for parameter in model.parameters():
        assert torch.equal(second.state[parameter][name], first.state[parameter][name])
    assert second.param_groups[0]["lr"] == TrainConfig().learning_rate


def test_another_optimizer_is_named() -> None:
    model = nn.Linear(2, 2)
    settings = TrainConfig(), TrainConfig(optimizer="adamw")
    state = build_optimizer(model, settings[0]).state_dict()
    with pytest.raises(ValueError, match=r"train.optimizer=adamw: it was begun with sgd"):
        load_gathered(build_optimizer(model, settings[1]), state, model, *settings)
