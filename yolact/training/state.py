"""The model in training and its progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from yolact.config import Config
from yolact.models.segmenter import AnySegmenter


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        iteration: steps taken.
        best_ap: the best mask AP of a validation, in percent.
        validated: the iteration of the last validation.
        skipped: steps whose losses or gradients were not finite.
        stale: validations since the best one.
        bad_steps: steps in a row, up to now, that were not finite.
    """

    iteration: int = 0
    best_ap: float = -1.0
    validated: int = -1
    skipped: int = 0
    stale: int = 0
    bad_steps: int = 0


@dataclass
class Learner:
    """A model in training, with all that a checkpoint holds of it.

    Attributes:
        config: stored in every checkpoint.
        model: that is trained.
        optimizer: of its parameters.
        images_per_epoch: of the training set.
        average: of its weights, or None. Where there is one, it is what is evaluated and what a
            checkpoint holds as its model; the weights themselves are kept beside the optimiser.
        scaler: of the gradients, see `gradient_scaler`.
        progress: how far it has come.
    """

    config: Config
    model: AnySegmenter
    optimizer: torch.optim.Optimizer
    images_per_epoch: int
    average: AveragedModel | None = None
    scaler: GradScaler = field(default_factory=lambda: GradScaler(enabled=False))
    progress: Progress = field(default_factory=Progress)

    @property
    def evaluated_model(self) -> AnySegmenter:
        """The model to validate and to keep: the averaged one, where there is an average."""
        if self.average is None:
            return self.model
        return cast(AnySegmenter, self.average.module)

    @property
    def epoch(self) -> int:
        """Epochs completed, counted from 0."""
        return self.progress.iteration * self.config.train.batch_size // self.images_per_epoch


class StepSnapshot:
    """What a step changes before it is known to count: batch statistics, random numbers."""

    def __init__(self, model: AnySegmenter) -> None:
        self._statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._random = torch.get_rng_state()
        self._device = model.device
        is_card = self._device.type == "cuda"
        self._card_random = torch.cuda.get_rng_state(self._device) if is_card else None

    @torch.no_grad()
    def restore_statistics(self) -> None:
        """Make batch norm forget the step."""
        for buffer, before in self._statistics:
            buffer.copy_(before)

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Restore all where an error ends a step, for the next run takes the same step again."""
        try:
            yield
        except BaseException:
            self.restore_statistics()
            torch.set_rng_state(self._random)
            if self._card_random is not None:
                torch.cuda.set_rng_state(self._card_random, self._device)
            raise
