"""The original's optimisation: SGD, linear warm-up, steps."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import torch
from torch import nn

from .config import TrainConfig

# Batch statistics of fewer images than this hurt more than they help.
MIN_BATCH_NORM_IMAGES = 6


def build_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.SGD:
    """Return SGD over every parameter of a model."""
    return torch.optim.SGD(
        model.parameters(),
        lr=train.learning_rate,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
    )


def learning_rate_at(iteration: int, train: TrainConfig) -> float:
    """Return the learning rate of an iteration, counted from 0: linear warm-up, then steps."""
    if iteration < train.warmup_iterations:
        progress = iteration / train.warmup_iterations
        start = min(train.warmup_learning_rate, train.learning_rate)
        return start + (train.learning_rate - start) * progress
    passed = bisect_right(train.learning_rate_steps, iteration)
    return train.learning_rate * float(train.gamma**passed)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def autoscale(train: TrainConfig, batch_size: int) -> TrainConfig:
    """Adapt a schedule to another batch size: the rate grows with it, the iterations shrink.

    Warm-up is not scaled (Goyal et al. 2017, and the original).
    """

    def fewer(iterations: int) -> int:
        return iterations * train.batch_size // batch_size

    return replace(
        train,
        batch_size=batch_size,
        learning_rate=train.learning_rate * batch_size / train.batch_size,
        max_iterations=fewer(train.max_iterations),
        learning_rate_steps=tuple(map(fewer, train.learning_rate_steps)),
    )
