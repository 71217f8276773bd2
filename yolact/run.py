"""What a training run keeps beside its model: progress, checkpoints, console line, a way out."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from . import distributed
from .checkpoint import (
    Checkpoint,
    CheckpointName,
    checkpoint_path,
    find_checkpoints,
    save_checkpoint,
)
from .config import Config
from .meters import MovingAverage, format_eta
from .segmenter import Segmenter
from .training_log import LOSS_LETTERS

logger = logging.getLogger(__name__)


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


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and is between two steps."""


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


class Console:
    """The line of moving averages, in the original's form, and a bar where there is a terminal.

    Args:
        max_iterations: where the run ends.
        batch_size: images in a step.
        iteration: where it begins.
        interval: iterations between lines.
    """

    def __init__(
        self, max_iterations: int, batch_size: int = 1, iteration: int = 0, interval: int = 10
    ) -> None:
        """Begin empty averages."""
        self.max_iterations, self.interval = max_iterations, interval
        self._batch_size = batch_size
        self._losses: dict[str, MovingAverage] = {}
        self._seconds = MovingAverage()
        hidden = True if distributed.rank() else None  # None: unless there is a terminal
        self._bar = tqdm(total=max_iterations, initial=iteration, unit="step", disable=hidden)

    def update(self, losses: Mapping[str, float], seconds: float) -> None:
        """Take in one step: its losses by name, and how long it took."""
        self._seconds.add(seconds)
        for name, value in losses.items():
            self._losses.setdefault(name, MovingAverage()).add(value)
        rate = self._batch_size / self._seconds.mean if self._seconds.mean else 0.0
        self._bar.set_postfix_str(f"{rate:.1f} images/s", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def line(self, epoch: int, iteration: int) -> str:
        """Return the line to show."""
        means = {LOSS_LETTERS[name]: average.mean for name, average in self._losses.items()}
        parts = " | ".join(f"{letter}: {mean:.3f}" for letter, mean in means.items())
        eta = format_eta((self.max_iterations - iteration) * self._seconds.mean)
        return (
            f"[{epoch:3d}] {iteration:7d} || {parts} | T: {sum(means.values()):.3f} "
            f"|| ETA: {eta} || timer: {self._seconds.mean:.3f}"
        )


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or a polite kill, into an event; a second Ctrl-C stops at once."""
    event = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        logger.info("stopping after this step; Ctrl-C again stops at once")
        event.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
