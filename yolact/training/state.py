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
        skipped: number of steps whose losses or gradients were not finite.
        stale: number of validations since the best one.
        bad_steps: number of latest steps in a row that were not finite.
    """

    iteration: int = 0
    best_ap: float = -1.0
    validated: int = -1
    skipped: int = 0
    stale: int = 0
    bad_steps: int = 0


@dataclass
class Learner:
    """A model in training, with all its state that a checkpoint stores.

    Attributes:
        config: stored in every checkpoint.
        model: the model that is trained.
        optimizer: optimiser of its parameters.
        images_per_epoch: number of training images.
        average: average of its weights, or None. If there is one, it is evaluated and stored as the
            checkpoint's model; the weights themselves are stored beside the optimiser.
        scaler: scaler of the gradients, see `gradient_scaler`.
        progress: progress of the run.
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
        """The model to validate and to save: the average, if there is one."""
        if self.average is None:
            return self.model
        return cast(AnySegmenter, self.average.module)

    @property
    def epoch(self) -> int:
        """Epochs completed, counted from 0."""
        return self.progress.iteration * self.config.train.batch_size // self.images_per_epoch


class StepSnapshot:
    """A copy of the state that a step changes before it is accepted: batch statistics, RNGs."""

    def __init__(self, model: AnySegmenter) -> None:
        self._statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._random = torch.get_rng_state()
        self._device = model.device
        is_card = self._device.type == "cuda"
        self._card_random = torch.cuda.get_rng_state(self._device) if is_card else None

    @torch.no_grad()
    def restore_statistics(self) -> None:
        """Undo the step's update of the batch norm statistics."""
        for buffer, before in self._statistics:
            buffer.copy_(before)

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Restore all state if an error ends a step, as a resumed run repeats this step."""
        try:
            yield
        except BaseException:
            self.restore_statistics()
            torch.set_rng_state(self._random)
            if self._card_random is not None:
                torch.cuda.set_rng_state(self._card_random, self._device)
            raise
