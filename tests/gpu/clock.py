"""Times of networks, and the kernels behind them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

from yolact.engines.names import RunNetwork
from yolact.models.segmenter import AnySegmenter
from yolact.timing import synchronize

from .report import Report


def random_input(model: AnySegmenter, batch: int = 1) -> Tensor:
    """Return a (B, 3, S, S) batch."""
    side = model.image_size
    return torch.randn((batch, 3, side, side), device=model.device)


def report_times(
    report: Report, name: str, run: Callable[[Any], Any], model: AnySegmenter, seconds: float = 0.3
) -> None:
    """Report the median and p95 of single calls, and the time of a call among many."""
    x, device = random_input(model), model.device
    with torch.no_grad():
        times = sorted(_times(run, x, device, seconds))
        report.number(f"{name}: p50", 1000 * median(times), "ms")
        report.number(f"{name}: p95", 1000 * times[math.ceil(0.95 * len(times)) - 1], "ms")
        if device.type == "cpu":
            return
        start = time.perf_counter()
        for _ in range(len(times)):
            run(x)
        synchronize(device)
        report.number(f"{name}: in a row", 1000 * (time.perf_counter() - start) / len(times), "ms")


def _times(run: RunNetwork, x: Tensor, device: torch.device, seconds: float) -> Iterator[float]:
    for _ in range(3):
        run(x)
    synchronize(device)
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        run(x)
        synchronize(device)
        yield time.perf_counter() - start


def note_kernels(run: RunNetwork, x: Tensor, report: Report, name: str) -> None:
    """Note the ten kernels that take longest, of ten calls."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.no_grad(), torch.profiler.profile(activities=kinds) as profile:
        for _ in range(10):
            run(x)
        torch.cuda.synchronize(x.device)
    table = profile.key_averages().table(
        sort_by="self_cuda_time_total", row_limit=10, max_name_column_width=60
    )
    report.note(f"{name}, ten calls\n{table}")
