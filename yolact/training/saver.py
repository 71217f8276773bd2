"""What a training run keeps beside its model: progress, checkpoints, console line, a way out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from yolact import distributed
from yolact.checkpoint import (
    Checkpoint,
    CheckpointName,
    checkpoint_path,
    find_checkpoints,
    save_checkpoint,
)

from .state import Learner, Progress

logger = logging.getLogger(__name__)


class Saver:
    """Writes the checkpoints of one run.

    Args:
        folder: where to.
        learner: what is stored; read at each save.
        images_per_epoch: of the training set, to count epochs.
        keep_latest: delete the previous checkpoint of this run after each save ...
        keep_latest_interval: ... except those at multiples of this many iterations.
        name: of the run, in the names of its files; by default the preset's.
    """

    def __init__(
        self,
        folder: Path,
        learner: Learner,
        images_per_epoch: int,
        keep_latest: bool = False,
        keep_latest_interval: int = 100_000,
        name: str | None = None,
    ) -> None:
        """Keep the parts."""
        self.folder, self.learner = folder, learner
        self.config, self.name = learner.config, name or learner.config.name
        self.images_per_epoch = images_per_epoch
        self.keep_latest, self.keep_latest_interval = keep_latest, keep_latest_interval
        self._previous: Path | None = None

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self.learner.progress

    @property
    def epoch(self) -> int:
        """Epochs completed, counted from 0."""
        return self.progress.iteration * self.config.train.batch_size // self.images_per_epoch

    def save(self) -> Path:
        """Write a regular checkpoint, and delete the previous one where asked to."""
        iteration, interval = self.progress.iteration, self.keep_latest_interval
        path = checkpoint_path(self.folder, self.name, self.epoch, iteration)
        if path == self._previous:
            return path
        self._write(path)
        old = CheckpointName.parse(self._previous) if self._previous not in (None, path) else None
        self._previous = path
        if old and self.keep_latest and (interval <= 0 or old.iteration % interval):
            old.path.unlink(missing_ok=True)
        return path

    def save_interrupted(self) -> Path:
        """Write a checkpoint for `--resume=interrupt`, in place of older ones."""
        iteration = self.progress.iteration
        older = find_checkpoints(self.folder, self.name, interrupted=True)
        path = self._write(checkpoint_path(self.folder, self.name, self.epoch, iteration, True))
        for old in older:
            if old != path:
                old.unlink(missing_ok=True)
        return path

    @property
    def best(self) -> Path:
        """The file of the best weights."""
        return self.folder / f"{self.name}_best.pth"

    def save_best(self, mask_ap: float) -> None:
        """Write <name>_best.pth when the validation is the best so far."""
        self.progress.stale += 1
        if mask_ap > self.progress.best_ap:
            self.progress.best_ap, self.progress.stale = mask_ap, 0
            self._write(self.best)

    def _write(self, path: Path) -> Path:
        if distributed.rank():
            return path  # the first process writes for all
        learner = self.learner
        training = {
            **vars(self.progress),
            "optimizer": learner.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "run": distributed.run_name(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        if learner.average is not None:
            training["weights"] = learner.model.state_dict()
            training["averaged"] = learner.average.n_averaged
        save_checkpoint(path, learner.best_model, self.config, training)
        logger.info("saved %s", path)
        return path


def restore(checkpoint: Checkpoint, learner: Learner, start_iteration: int = -1) -> None:
    """Bring a learner and the random numbers back to where a checkpoint was written.

    Args:
        checkpoint: one of a run; an official file has no such state, only an iteration in its name.
        learner: whose model and average have the checkpoint's weights already.
        start_iteration: iteration to count from instead; 0 starts a new run from these weights.

    Raises:
        ValueError: the state does not fit this learner.
    """
    state = checkpoint.training
    if start_iteration == 0:
        return
    try:
        if "optimizer" in state:
            load_optimizer(learner.optimizer, state["optimizer"])
        if "weights" in state:
            learner.model.load_state_dict(state["weights"])
        if learner.average is not None and "averaged" in state:
            learner.average.n_averaged.copy_(state["averaged"])
        if "random" in state:
            torch.set_rng_state(state["random"])
        for device, numbers in enumerate(state.get("cuda_random", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(numbers, device)
        name = CheckpointName.parse(checkpoint.path)
        iteration = int(state.get("iteration", name.iteration if name else 0))
        learner.progress = Progress(
            iteration if start_iteration < 0 else start_iteration,
            float(state.get("best_ap", -1)),
            int(state.get("validated", -1)),
            int(state.get("skipped", 0)),
            int(state.get("stale", 0)),
        )
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError, IndexError) as error:
        raise ValueError(f"{checkpoint.path}: cannot resume from it: {error}") from None


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what an optimiser has gathered, but keep its settings, which the user may change."""
    groups = optimizer.param_groups
    settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
