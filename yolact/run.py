"""What a training run keeps beside its model: progress, checkpoints, console line, a way out."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from .checkpoint import (
    Checkpoint,
    CheckpointName,
    checkpoint_path,
    find_checkpoints,
    save_checkpoint,
)
from .config import Config
from .meters import MovingAverage, format_eta
from .model import Yolact
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
    """

    iteration: int = 0
    best_ap: float = -1.0
    validated: int = -1
    skipped: int = 0


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and is between two steps."""


class Saver:
    """Writes the checkpoints of one run.

    Args:
        folder: where to.
        config: stored in each of them; its name begins their file names.
        model: whose weights are stored.
        optimizer: whose state is stored.
        progress: how far the run has come; read at each save.
        images_per_epoch: of the training set, to count epochs.
        keep_latest: delete the previous checkpoint of this run after each save ...
        keep_latest_interval: ... except those at multiples of this many iterations.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        model: Yolact,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        images_per_epoch: int,
        keep_latest: bool,
        keep_latest_interval: int,
    ) -> None:
        """Keep the parts."""
        self.folder, self.config, self.model = folder, config, model
        self.optimizer, self.progress = optimizer, progress
        self.images_per_epoch = images_per_epoch
        self.keep_latest, self.keep_latest_interval = keep_latest, keep_latest_interval
        self._previous: Path | None = None

    @property
    def epoch(self) -> int:
        """Epochs completed, counted from 0."""
        return self.progress.iteration * self.config.train.batch_size // self.images_per_epoch

    def save(self) -> Path:
        """Write a regular checkpoint, and delete the previous one where asked to."""
        iteration, interval = self.progress.iteration, self.keep_latest_interval
        path = self._write(checkpoint_path(self.folder, self.config.name, self.epoch, iteration))
        old = CheckpointName.parse(self._previous) if self._previous not in (None, path) else None
        self._previous = path
        if old and self.keep_latest and (interval <= 0 or old.iteration % interval):
            old.path.unlink(missing_ok=True)
        return path

    def save_interrupted(self) -> Path:
        """Write a checkpoint for `--resume=interrupt`, in place of older ones."""
        name, iteration = self.config.name, self.progress.iteration
        older = find_checkpoints(self.folder, name, interrupted=True)
        path = self._write(checkpoint_path(self.folder, name, self.epoch, iteration, True))
        for old in older:
            if old != path:
                old.unlink(missing_ok=True)
        return path

    def save_best(self, mask_ap: float) -> None:
        """Write <name>_best.pth when the validation is the best so far."""
        if mask_ap > self.progress.best_ap:
            self.progress.best_ap = mask_ap
            self._write(self.folder / f"{self.config.name}_best.pth")

    def _write(self, path: Path) -> Path:
        training = {
            **vars(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        save_checkpoint(path, self.model, self.config, training)
        logger.info("saved %s", path)
        return path


def restore(
    checkpoint: Checkpoint, optimizer: torch.optim.Optimizer, start_iteration: int = -1
) -> Progress:
    """Bring optimiser and random numbers back to where a checkpoint was written.

    Args:
        checkpoint: one of a run; an official file has no such state, only an iteration in its name.
        optimizer: of the same parameters.
        start_iteration: iteration to count from instead; 0 starts a new run from these weights.

    Raises:
        ValueError: the state does not fit this optimiser.
    """
    state = checkpoint.training
    if start_iteration == 0:
        return Progress()
    try:
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
        if "random" in state:
            torch.set_rng_state(state["random"])
        for device, numbers in enumerate(state.get("cuda_random", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(numbers, device)
        name = CheckpointName.parse(checkpoint.path)
        iteration = int(state.get("iteration", name.iteration if name else 0))
        progress = Progress(
            iteration if start_iteration < 0 else start_iteration,
            float(state.get("best_ap", -1)),
            int(state.get("validated", -1)),
            int(state.get("skipped", 0)),
        )
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError, IndexError) as error:
        raise ValueError(f"{checkpoint.path}: cannot resume from it: {error}") from None
    return progress


class Console:
    """The line of moving averages, in the original's form.

    Args:
        max_iterations: where the run ends.
        interval: iterations between lines.
    """

    def __init__(self, max_iterations: int, interval: int = 10) -> None:
        """Begin empty averages."""
        self.max_iterations, self.interval = max_iterations, interval
        self._losses: dict[str, MovingAverage] = {}
        self._seconds = MovingAverage()

    def update(self, losses: Mapping[str, float], seconds: float) -> None:
        """Take in one step: its losses by name, and how long it took."""
        self._seconds.add(seconds)
        for name, value in losses.items():
            self._losses.setdefault(name, MovingAverage()).add(value)

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
