"""What learns, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from yolact.config import Config
from yolact.models.segmenter import Segmenter


@dataclass
class Progress:
    """How far a run has come.

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
    """What learns, and what a checkpoint has to hold of it.

    Attributes:
        config: stored in every checkpoint.
        model: that is trained.
        optimizer: of its parameters.
        average: of its weights, or None. Where there is one, it is what is evaluated and what a
            checkpoint holds as its model; the weights themselves are kept beside the optimiser.
        progress: how far it has come.
    """

    config: Config
    model: Segmenter[Any, Any]
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def best_model(self) -> Segmenter[Any, Any]:
        """The model to evaluate."""
        averaged: Any = self.average
        model: Segmenter[Any, Any] = self.model if averaged is None else averaged.module
        return model
