"""Optimisers, schedules of the learning rate and the input size, the moving average of weights."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from yolact.config import TrainConfig, varied_input
from yolact.engines.names import Precision
from yolact.errors import OptionError

# With fewer images than this, batch statistics do more harm than good.
MIN_BATCH_NORM_IMAGES = 6

_EPOCHS, _LEAST_ITERATIONS = 55, 1000


def build_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """Return SGD for every parameter, or AdamW without weight decay of norms and biases."""
    groups = _groups(model, train)
    if train.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=train.learning_rate,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
        )
    return torch.optim.AdamW(groups, lr=train.learning_rate, weight_decay=train.weight_decay)


def _groups(model: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """Group the parameters by their share of the learning rate, and their weight decay."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = train.backbone_rate if name.startswith("network.backbone.") else 1.0
        decayed = train.optimizer == "sgd" or parameter.ndim >= 2
        groups.setdefault((rate, decayed), []).append(parameter)
    return [
        {"params": parameters, "rate": rate} | ({} if decayed else {"weight_decay": 0.0})
        for (rate, decayed), parameters in groups.items()
    ]


def load_gathered(
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    model: nn.Module,
    before: TrainConfig,
    now: TrainConfig,
) -> None:
    """Load an optimiser's statistics, but keep the new settings, which the user may have changed.

    Args:
        optimizer: built from `now`.
        state: state of an optimiser built from `before`, which may group parameters differently.
        model: model with these parameters.
        before: settings of the saved optimiser.
        now: current settings.

    Raises:
        ValueError: it was another kind of optimiser, or the state does not fit the parameters.
    """
    if before.optimizer != now.optimizer:
        raise ValueError(f"train.optimizer={now.optimizer}: it was begun with {before.optimizer}")
    old, new = (
        [parameter for group in _groups(model, train) for parameter in group["params"]]
        for train in (before, now)
    )
    count = sum(len(group["params"]) for group in state["param_groups"])
    if count != len(old):
        raise ValueError(f"its optimiser has {count} parameters, the model {len(old)}")
    places = {id(parameter): place for place, parameter in enumerate(old)}
    gathered = {}
    for index, parameter in enumerate(new):
        if (entry := state["state"].get(places[id(parameter)])) is not None:
            if not all(_fits(value, parameter) for value in entry.values()):
                raise ValueError("its optimiser has gathered what does not fit the parameters")
            gathered[index] = entry
    optimizer.load_state_dict({**optimizer.state_dict(), "state": gathered})


def _fits(value: object, parameter: Tensor) -> bool:
    """Tell whether a value can be an optimiser's statistic: a count, or a value for each weight."""
    if value is None:
        return True
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return value.shape in (parameter.shape, torch.Size())


def gradient_scaler(device: torch.device, precision: Precision) -> GradScaler:
    """Return a scaler that keeps float16 gradients in range; it does nothing for other precisions.

    Its scale is halved whenever a step is skipped since a gradient is not finite.

    Raises:
        OptionError: float16 on an Apple GPU, where older versions of PyTorch cannot scale.
    """
    if device.type == "mps" and precision == "float16":
        raise OptionError("precision", precision, "not to train on MPS; use bfloat16 or float32")
    return GradScaler(device.type, enabled=precision == "float16")


class AveragedWeights(AveragedModel):
    """An exponential moving average of weights and batch statistics.

    Early on, with little to average, it adapts faster: after n updates the decay is at most
    (1 + n) / (10 + n). Unlike in the base class, an update does not wait for a GPU.

    Args:
        model: is copied in its current state.
        decay: factor of the previous average at each update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay
        self.requires_grad_(False)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Copy the weights at the first update; move towards them at later ones."""
        updates = int(self.n_averaged)  # on the CPU
        share = 1 - min(self._decay, (1 + updates) / (10 + updates))
        values = chain(model.parameters(), model.buffers())
        averages = chain(self.module.parameters(), self.module.buffers())
        moving: tuple[list[Tensor], list[Tensor]] = [], []
        for average, value in zip(averages, values, strict=True):
            if updates and average.is_floating_point():
                moving[0].append(average)
                moving[1].append(value.detach())
            else:
                average.copy_(value)
        if updates:
            torch._foreach_lerp_(*moving, share)
        self.n_averaged += 1


def learning_rate_at(iteration: int, train: TrainConfig) -> float:
    """Return the learning rate of an iteration, counted from 0: linear warm-up, then the schedule.

    The schedule is steps (YOLACT sec. 6), or half a cosine down to 0 at the end.
    """
    if iteration < train.warmup_iterations:
        progress = iteration / train.warmup_iterations
        start = min(train.warmup_learning_rate, train.learning_rate)
        return start + (train.learning_rate - start) * progress
    if train.schedule == "cosine":
        left = max(train.max_iterations - train.warmup_iterations, 1)
        progress = min((iteration - train.warmup_iterations) / left, 1.0)
        return train.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    passed = bisect_right(train.learning_rate_steps, iteration)
    return train.learning_rate * float(train.gamma**passed)


def input_size_at(iteration: int, image_size: int, train: TrainConfig) -> int:
    """Return the input side of an iteration: S, or a side near it with `multi_scale`."""
    if not train.multi_scale:
        return image_size
    share = np.random.default_rng((train.seed, iteration)).uniform(-1, 1) * train.multi_scale
    return varied_input(image_size, share)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of each parameter group to its share."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("rate", 1.0)


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
        max_iterations=max(fewer(train.max_iterations), 1),
        learning_rate_steps=tuple(map(fewer, train.learning_rate_steps)),
    )


def with_iterations(train: TrainConfig, iterations: int) -> TrainConfig:
    """Shorten or lengthen a schedule, keeping its shape; limit its warm-up to a tenth of it."""

    def scaled(iteration: int) -> int:
        return iteration * iterations // train.max_iterations

    return replace(
        train,
        max_iterations=iterations,
        learning_rate_steps=tuple(map(scaled, train.learning_rate_steps)),
        warmup_iterations=min(train.warmup_iterations, iterations // 10),
    )


def with_epochs(train: TrainConfig, epochs: float, images: int) -> TrainConfig:
    """Shorten or lengthen a schedule to a number of passes over a dataset."""
    return with_iterations(train, max(round(epochs * images / train.batch_size), 1))


def shortened_for(train: TrainConfig, images: int) -> TrainConfig:
    """Shorten a schedule for a dataset of a number of images.

    COCO's 800,000 iterations are 55 epochs. A smaller dataset gets 55 of its own epochs, but at
    least 1000 iterations.
    """
    fitting = max(_LEAST_ITERATIONS, _EPOCHS * images // train.batch_size)
    return with_iterations(train, min(train.max_iterations, fitting))
