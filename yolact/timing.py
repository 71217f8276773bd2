"""Moving averages, stage timers, remaining time."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch

_RUNS = 10_000  # of a stage that are kept


class MovingAverage:
    """Mean of the last `window` finite values."""

    def __init__(self, window: int = 100) -> None:
        self._values: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> None:
        """Append a value; NaN and infinities are ignored."""
        if math.isfinite(value):
            self._values.append(value)

    @property
    def mean(self) -> float:
        """The mean of the values in the window, 0 before the first."""
        return math.fsum(self._values) / len(self._values) if self._values else 0.0


class StageStatistics(NamedTuple):
    """Times of one stage in milliseconds; `p95` by nearest rank."""

    runs: int
    mean: float
    median: float
    p95: float


class StageTimer:
    """Time the named stages of a loop, listed in the order in which they first ran.

    Args:
        device: synchronised before and after each stage; without that, the time of a GPU's
            asynchronous kernels counts for the next stage that needs a result.

    Example:
        >>> timer = StageTimer()
        >>> with timer.stage("network"):
        ...     run()
        >>> print(timer.format())
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self._device = None if device is None else torch.device(device)
        self._seconds: dict[str, deque[float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of a `with` statement; one that raises is not counted."""
        synchronize(self._device)
        start = time.perf_counter()
        yield
        synchronize(self._device)
        seconds = time.perf_counter() - start
        self._seconds.setdefault(name, deque(maxlen=_RUNS)).append(seconds)

    def statistics(self) -> dict[str, StageStatistics]:
        """Summarise every stage that has run, by name."""
        return {name: summarize(seconds) for name, seconds in self._seconds.items()}

    def format(self) -> str:
        """Format a table with a line for each stage, and the sum of the means last."""
        rows = self.statistics()
        width = max(map(len, (*rows, "stage")))
        lines = [f"{'stage':<{width}}  {'mean ms':>9}  {'median':>9}  {'p95':>9}  {'runs':>6}"]
        lines += [
            f"{name:<{width}}  {row.mean:9.2f}  {row.median:9.2f}  {row.p95:9.2f}  {row.runs:6d}"
            for name, row in rows.items()
        ]
        lines.append(f"{'total':<{width}}  {math.fsum(row.mean for row in rows.values()):9.2f}")
        return "\n".join(lines)


def synchronize(device: torch.device | None) -> None:
    """Wait until a GPU has finished its work; with None or a CPU, do nothing."""
    if device is None:
        return
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def format_eta(seconds: float) -> str:
    """Format seconds as "14:47:05" or "4 days, 14:47:05"; "unknown" if negative or not finite."""
    try:
        return str(timedelta(seconds=int(seconds))) if seconds >= 0 else "unknown"
    except (ValueError, OverflowError):  # NaN; infinity or too many days
        return "unknown"


def summarize(seconds: Iterable[float]) -> StageStatistics:
    """Summarise one time or more."""
    ordered = sorted(1000 * value for value in seconds)
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return StageStatistics(len(ordered), statistics.fmean(ordered), statistics.median(ordered), p95)
