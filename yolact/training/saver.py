"""Checkpoints of a training run: writing and resuming."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler

from data.files import remove_stale_parts
from yolact import distributed
from yolact.checkpoint import Checkpoint, save_checkpoint
from yolact.config import Config
from yolact.files import RunLock
from yolact.runs.names import CheckpointName, checkpoint_path, find_checkpoints

from .optim import load_gathered
from .options import TrainOptions
from .state import Learner, Progress

logger = logging.getLogger(__name__)

_MAX_COUNT = 10**12  # steps; more than a century of them


class Saver:
    """Writes the checkpoints of one run.

    Args:
        folder: folder for the checkpoints.
        name: name of the run, in the names of its files.
        learner: the learner to store, in its state at each save.
        keep_latest: after each save, delete the previous checkpoint of this run.
        keep_latest_interval: with `keep_latest`, keep those at multiples of this iteration.
        flags: see `TrainOptions.flags`.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        learner: Learner,
        keep_latest: bool = False,
        keep_latest_interval: int = 100_000,
        flags: Mapping[str, object] | None = None,
    ) -> None:
        self.folder, self.name, self.learner, self.flags = folder, name, learner, dict(flags or {})
        self.keep_latest, self.keep_latest_interval = keep_latest, keep_latest_interval
        self._previous: Path | None = None
        self._superseded: list[Path] = []

    def resume_from(self, path: Path) -> None:
        """With `keep_latest`, let the next checkpoint replace the resumed one.

        It also replaces later checkpoints, whose steps are discarded. Without `keep_latest` these
        stay, and `latest` refers to them until the run is past them.
        """
        resumed = CheckpointName.parse(path)
        if resumed is None or resumed.run != self.name or not self.folder.exists():
            return
        if path.parent.resolve() != self.folder.resolve():
            return
        others = find_checkpoints(self.folder, self.name, interrupted=False)
        names = [name for path in others if (name := CheckpointName.parse(path))]
        before = [n.iteration for n in names if n.iteration <= resumed.iteration]
        last = max(before, default=resumed.iteration)  # itself, unless it was interrupted
        self._superseded = [n.path for n in names if n.iteration >= last]

    def warn_of_later_checkpoints(self) -> None:
        """Warn of checkpoints under this name that are ahead of the run and stay."""
        going = self._superseded if self.keep_latest else []
        for path in find_checkpoints(self.folder, self.name)[-1:]:
            name = CheckpointName.parse(path)
            if name and name.iteration > self.learner.progress.iteration and path not in going:
                logger.warning(
                    "%s is of steps further on: until this run is past it, %s",
                    path,
                    "--resume=latest means that file; --name keeps runs apart",
                )

    def save(self, again: bool = False) -> Path:
        """Write a regular checkpoint, and delete the previous one if `keep_latest`.

        Args:
            again: write even if this iteration's checkpoint exists already.
        """
        path, previous = self._path(), self._previous
        if path == previous:
            return self._write(path) if again else path
        self._write(path)
        for old in (*self._superseded, *([previous] if previous else [])):
            if old != path:
                self._delete(old)
        self._previous, self._superseded = path, []
        return path

    def try_save(self) -> None:
        """Save, but continue training if the disk is full: there will be another checkpoint."""
        try:
            self.save()
        except OSError as error:
            logger.warning("%s; training goes on, and saves again later", error)

    def save_interrupted(self) -> Path:
        """Write a checkpoint for `--resume=interrupt`, replacing older ones."""
        path = self._write(self._path(interrupted=True))
        if distributed.rank() == 0:
            for old in find_checkpoints(self.folder, self.name, interrupted=True):
                if old != path:
                    old.unlink(missing_ok=True)
        return path

    @property
    def best(self) -> Path:
        """The file of the best weights."""
        return self.folder / f"{self.name}_best.pth"

    def save_best(self, ap: float) -> None:
        """Write <name>_best.pth when the AP of a validation is the best so far."""
        progress = self.learner.progress
        progress.stale += 1
        if ap > progress.best_ap:
            before, progress.best_ap, progress.stale = progress.best_ap, ap, 0
            try:
                self._write(self.best)
            except OSError as error:
                progress.best_ap = before  # so that the next one counts as better
                logger.warning("%s; training goes on", error)

    def _delete(self, old: Path) -> None:
        """Delete an earlier checkpoint, if only the latest is to be kept.

        Only the first process does so, as only it knows that the new one is written.
        """
        name, interval = CheckpointName.parse(old), self.keep_latest_interval
        goes = self.keep_latest and distributed.rank() == 0
        if goes and name and (interval <= 0 or name.iteration % interval):
            old.unlink(missing_ok=True)

    def _path(self, interrupted: bool = False) -> Path:
        epoch, iteration = self.learner.epoch, self.learner.progress.iteration
        return checkpoint_path(self.folder, self.name, epoch, iteration, interrupted)

    def _write(self, path: Path) -> Path:
        if distributed.rank() == 0:  # the first process writes for all
            learner = self.learner
            state = {**_state_of(learner), "flags": self.flags}
            save_checkpoint(path, learner.evaluated_model, learner.config, state)
            logger.info("saved %s", path)
        return path


def lock_run(options: TrainOptions) -> ExitStack:
    """Lock the name of a run in its folders, and delete half-written files of killed runs there.

    Returns:
        Holds the lock until it is closed.

    Raises:
        OSError: the folder cannot be written to.
        UsageError: another process is training under this name there.
    """
    name, written = options.name, [options.save_folder, *[options.log_folder] * options.log]
    with ExitStack() as locks:
        for folder in {each.resolve(): each for each in written}.values():
            folder.mkdir(parents=True, exist_ok=True)
            refusal = f"--name={name}: another process trains under this name in {folder}; "
            lock = RunLock(folder, name, f"{refusal}stop it, or give another --name")
            locks.callback(lock.close)
        remove_stale_parts(options.save_folder)
        remove_stale_parts(options.folder)
        return locks.pop_all()


def make_saver(options: TrainOptions, learner: Learner) -> Saver:
    """Make the saver, and check before training that its folder can be written to.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder = options.save_folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    kept = options.keep_latest, options.keep_latest_interval, options.flags
    saver = Saver(folder, options.name, learner, *kept)
    if not options.resume and saver.best.exists():
        logger.warning("%s, of an earlier run, will be replaced: --name keeps both", saver.best)
    return saver


def _state_of(learner: Learner) -> dict[str, object]:
    """Return the state that a checkpoint has in addition to its model, for `restore`."""
    state: dict[str, object] = {
        **vars(learner.progress),
        "optimizer": learner.optimizer.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "random": torch.get_rng_state(),
        "run": distributed.run_name(),
        "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    if learner.average is not None:
        state["weights"] = learner.model.state_dict()
        state["averaged"] = learner.average.n_averaged
    return state


def restore(checkpoint: Checkpoint, learner: Learner, start_iteration: int = -1) -> None:
    """Restore the state of a learner and the random numbers from a checkpoint.

    Args:
        checkpoint: of a run; an official file has no such state, only an iteration in its name.
        learner: its model and average already have the checkpoint's weights.
        start_iteration: iteration to count from instead; 0 starts a new run from these weights.

    Raises:
        ValueError: the state does not fit this learner.
    """
    if start_iteration == 0:
        return
    try:
        _restore(checkpoint, learner)
        progress = _progress(checkpoint)
    except (
        *(TypeError, ValueError, KeyError, RuntimeError, AttributeError, IndexError),
        OverflowError,
    ) as error:
        raise ValueError(f"{checkpoint.path}: cannot resume from it: {error}") from None
    if start_iteration > 0:
        progress.iteration = start_iteration
    if progress.best_ap >= 0 and checkpoint.config and not _same_data(checkpoint.config, learner):
        text = "the best AP so far, %.1f, is of other images (%s): the next one replaces it"
        logger.warning(text, progress.best_ap, checkpoint.config.dataset)
        progress.best_ap, progress.stale, progress.validated = -1.0, 0, -1
    learner.progress = progress


def _same_data(config: Config, learner: Learner) -> bool:
    """Tell whether a run of this configuration validated on what a learner will."""
    own = learner.config
    place, now = (Path(each.dataset).resolve() for each in (config, own))
    return (place, config.data) == (now, own.data)


def _restore(checkpoint: Checkpoint, learner: Learner) -> None:
    state, config = checkpoint.training, checkpoint.config or learner.config
    if "optimizer" in state:
        settings = config.train, learner.config.train
        load_gathered(learner.optimizer, state["optimizer"], learner.model, *settings)
    if "weights" in state:
        learner.model.load_state_dict(state["weights"])
    if learner.average is not None and "averaged" in state:
        learner.average.n_averaged.copy_(state["averaged"])
    if learner.scaler.is_enabled() and state.get("scaler"):
        load_scaler(learner.scaler, state["scaler"])
    if "random" in state:
        torch.set_rng_state(state["random"])
    for device, numbers in enumerate(state.get("cuda_random", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(numbers, device)


def _progress(checkpoint: Checkpoint) -> Progress:
    state, name = checkpoint.training, CheckpointName.parse(checkpoint.path)
    return Progress(
        iteration=_count(state, "iteration", name.iteration if name else 0),
        best_ap=float(state.get("best_ap", -1)),
        validated=_count(state, "validated", -1),
        skipped=_count(state, "skipped", 0),
        bad_steps=_count(state, "bad_steps", 0),
        stale=_count(state, "stale", 0),
    )


def _count(state: dict[str, Any], name: str, default: int) -> int:
    """Return a count, such as of steps, which may be any value in an untrusted file."""
    count = int(state.get(name, default))
    if not min(default, 0) <= count <= _MAX_COUNT:
        raise ValueError(f"{name}={count}: expected 0 to {_MAX_COUNT}")
    return count


def load_scaler(scaler: GradScaler, state: dict[str, Any]) -> None:
    """Load the gradient scale, but keep the settings of its changes.

    Raises:
        ValueError: the state is invalid.
    """
    scale, tracker = float(state["scale"]), _count(state, "_growth_tracker", 0)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale={scale}: expected more than 0")
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale, "_growth_tracker": tracker})
