"""Times of networks, and the kernels behind them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from yolact.models.segmenter import AnySegmenter
from yolact.timing import summarize, synchronize

from .report import Report

_SECONDS = 0.5  # of one timing
_CALLS = 5  # of which the kernels are listed


def random_input(model: AnySegmenter, batch: int = 1) -> Tensor:
    """Return a (B, 3, S, S) batch."""
    side = model.image_size
    return torch.randn((batch, 3, side, side), device=model.device)


def report_times(report: Report, name: str, run: Callable[[Any], Any], model: AnySegmenter) -> None:
    """Report p50 and p95 of single calls, and the time of a call among many."""
    x, device = random_input(model), model.device
    with torch.no_grad():
        report_latency(report, name, device, run, x)
        if device.type != "cpu":
            in_a_row = 1000 / rate(repeat(x), run, _SECONDS, device)
            report.number(f"{name}, in a row", in_a_row, "ms")


def report_latency(
    report: Report, name: str, device: torch.device, run: Callable, inputs: object
) -> float:
    """Report p50 and p95 of single calls; return p50 in milliseconds."""
    statistics = summarize(timed(device, run, inputs))
    report.number(f"{name}, p50", statistics.median, "ms")
    report.number(f"{name}, p95", statistics.p95, "ms")
    return statistics.median


def timed(
    device: torch.device, run: Callable, inputs: object, seconds: float = _SECONDS
) -> list[float]:
    """Return the seconds of single calls, by CUDA's events where there are any."""
    for _ in range(4):  # the first ones choose algorithms and record
        run(inputs)
    synchronize(device)
    end, found = time.perf_counter() + seconds, []
    while not found or time.perf_counter() < end:
        found.append(_time_once(device, run, inputs))
    return found


def _time_once(device: torch.device, run: Callable, inputs: object) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run(inputs)
        synchronize(device)
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run(inputs)
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000


def rate(
    source: Iterable,
    use: Callable[[Any], object],
    seconds: float,
    device: torch.device,
    first: int = 0,
) -> float:
    """Return how many items a second are taken and used, once the first few are."""
    items = iter(source)
    for _ in range(3 + first):
        use(next(items))
    synchronize(device)
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < seconds:
        use(next(items))
        count += 1
    synchronize(device)
    return count / (time.perf_counter() - start)


def longest(device: torch.device, run: Callable[[], object], count: int = 10) -> str:
    """Return a table of what takes longest, by kernels where the profiler knows them."""
    for _ in range(3):
        run()
    synchronize(device)
    on_card = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
    with profile(activities=kinds) as profiler:
        for _ in range(_CALLS):
            run()
        synchronize(device)
    times = [
        (event.self_device_time_total if on_card else event.self_cpu_time_total, event)
        for event in profiler.key_averages()
        if event.device_type.name == ("CUDA" if on_card else "CPU") and not event.is_user_annotation
    ]
    total = sum(microseconds for microseconds, _ in times) or 1
    rows = [f"{'ms':>8}  {'%':>5}  {'calls':>6}  name"]
    for microseconds, event in sorted(times, key=lambda pair: -pair[0])[:count]:
        share, calls = 100 * microseconds / total, event.count / _CALLS
        milliseconds = microseconds / 1000 / _CALLS
        rows.append(f"{milliseconds:8.3f}  {share:5.1f}  {calls:6.0f}  {event.key[:90]}")
    return "\n".join([*rows, f"{total / 1000 / _CALLS:8.3f}  in all"])
