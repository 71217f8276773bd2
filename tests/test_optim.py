import pytest
import torch
from torch import nn

from yolact import get_config, list_configs
from yolact.config import TrainConfig
from yolact.optim import autoscale, build_optimizer, learning_rate_at, set_learning_rate

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
