"""The progress line on the console, and the log of JSON lines, both in the original's format."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from yolact import distributed
from yolact.files import is_plain_file, naming
from yolact.timing import MovingAverage, format_eta

logger = logging.getLogger(__name__)

Record = dict[str, Any]
"""An event of a log, as plain values."""


class Console:
    """The line of moving averages, in the original's format, and a progress bar on a terminal.

    Args:
        max_iterations: last iteration of the run.
        letters: letters of the losses, see `Segmenter.loss_letters`.
        batch_size: images in a step.
        iteration: first iteration of the run.
        interval: iterations between lines.
    """

    def __init__(
        self,
        max_iterations: int,
        letters: Mapping[str, str],
        batch_size: int = 1,
        iteration: int = 0,
        interval: int = 10,
    ) -> None:
        self.max_iterations, self.interval = max_iterations, interval
        self._letters, self._batch_size = letters, batch_size
        self._losses: dict[str, MovingAverage] = {}
        self._seconds = MovingAverage()
        hidden = True if distributed.rank() else None  # None: unless there is a terminal
        self._bar = tqdm(total=max_iterations, initial=iteration, unit="step", disable=hidden)

    def update(self, losses: Mapping[str, float], seconds: float) -> None:
        """Add one step: its losses by name, and its duration."""
        self._seconds.add(seconds)
        for name, value in losses.items():
            self._losses.setdefault(name, MovingAverage()).add(value)
        rate = self._batch_size / self._seconds.mean if self._seconds.mean else 0.0
        self._bar.set_postfix_str(f"{rate:.1f} images/s", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Close the bar in its current state."""
        self._bar.close()

    def line(self, epoch: int, iteration: int) -> str:
        """Return the line to show."""
        means = {self._letters.get(n, n): average.mean for n, average in self._losses.items()}
        parts = " | ".join(f"{letter}: {mean:.3f}" for letter, mean in means.items())
        eta = format_eta((self.max_iterations - iteration) * self._seconds.mean)
        return (
            f"[{epoch:3d}] {iteration:7d} || {parts} | T: {sum(means.values()):.3f} "
            f"|| ETA: {eta} || timer: {self._seconds.mean:.3f}"
        )


class TrainingLog:
    """Appends the events of one training run to a log file.

    Runs share a file: each is a "session", numbered from 0, and begins with a line of its
    arguments. Every event is written completely and at once, so a killed run loses nothing that it
    logged. During the run, a full disk causes a warning and the loss of events, but does not end
    the run.

    Args:
        path: log to append to, created at the first event; None for no log.
        letters: letters of the losses, see `Segmenter.loss_letters`; a loss without a letter is
            logged under its name.
    """

    def __init__(self, path: Path | None, letters: Mapping[str, str]) -> None:
        self._path = path
        self._letters = letters
        self.session = 0
        self._is_whole = True  # whether the last event was written
        if self._path is None or not os.path.lexists(self._path):
            return
        if is_plain_file(self._path):
            sessions = (record.get("session") for record in read_log(self._path))
            self.session = 1 + max((s for s in sessions if isinstance(s, int)), default=-1)
            _end_last_line(self._path)
        else:  # replaced, not followed or waited for
            self._path.unlink()

    def start(self, arguments: Mapping[str, object], devices: Sequence[str]) -> None:
        """Write the opening line of a run.

        Args:
            arguments: every argument that the run was started with.
            devices: names of the devices that it runs on.
        """
        self._append("session", {**arguments, "devices": list(devices)})

    def train(
        self,
        losses: Mapping[str, float],
        *,
        epoch: int,
        iteration: int,
        learning_rate: float,
        elapsed: float,
    ) -> None:
        """Write the losses of one iteration.

        Args:
            losses: by our names, already weighted; the total is added here.
            epoch: counted from 0.
            iteration: counted from the start of the first run.
            learning_rate: the one in force.
            elapsed: seconds that the iteration took.
        """
        values = {self._letters.get(name, name): value for name, value in losses.items()}
        values["T"] = math.fsum(losses.values()) if _all_finite(losses) else math.nan
        data = {
            "loss": {letter: round(value, 5) for letter, value in values.items()},
            "epoch": epoch,
            "iter": iteration,
            "lr": round(learning_rate, 10),
            "elapsed": elapsed,
        }
        self._write("train", data)

    def validation(
        self,
        box: Mapping[str, float],
        mask: Mapping[str, float],
        *,
        epoch: int,
        iteration: int,
        elapsed: float,
    ) -> None:
        """Write the average precisions of one validation.

        Args:
            box: percent at "all", "50", ..., "95"; `CocoMetrics.box.overlaps`.
            mask: the same for masks.
            epoch: counted from 0.
            iteration: counted from the start of the first run.
            elapsed: seconds that the validation took.
        """
        counters = {"elapsed": elapsed, "epoch": epoch, "iter": iteration}
        self._write("val", {**counters, "box": dict(box), "mask": dict(mask)})

    def _write(self, kind: str, data: Mapping[str, object]) -> None:
        try:
            if self._path is not None and not self._is_whole:
                _end_last_line(self._path)
            self._append(kind, data)
        except OSError as error:
            if self._is_whole:  # told once
                logger.warning("%s is not up to date: %s", self._path, error)
            self._is_whole = False
        else:
            self._is_whole = True

    def _append(self, kind: str, data: Mapping[str, object]) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        record = {"type": kind, "session": self.session, "data": data, "time": time.time()}
        line = json.dumps(_plain(record), allow_nan=False)
        with naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def read_log(path: Path) -> list[Record]:
    """Read every event of a log, ours or the original's; half-written lines are skipped."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    records = [record for line in lines if (record := _parse(line)) is not None]
    if len(records) < len(lines):
        logger.warning("%s: skipped %d unreadable lines", path, len(lines) - len(records))
    return records


def _parse(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "type" in record else None


def _end_last_line(path: Path) -> None:
    """End a half-written last line, so that the next event begins a new one."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _all_finite(losses: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, losses.values()))


def _plain(value: object) -> object:
    """Convert a value for JSON: null for NaN and infinities, text for other types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
