"""Where the time goes: the ten longest kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

import train
from data.shapes.clip import shape_clip
from yolact.engines.choose import choose_engine
from yolact.engines.prepare import prepare, warm_up
from yolact.timing import synchronize

from .benchmark import SMALL, inputs_of, training_session
from .material import untrained
from .report import Report

_CALLS = 5


def measure_network_kernels(device: torch.device, report: Report) -> None:
    """Profile `yolact_base` on one image."""
    model = untrained("yolact_base", device, *([SMALL] if device.type == "cpu" else []))
    engine = choose_engine(device, "auto" if device.type != "cpu" else "eager")
    run = prepare(model.network, engine, model.image_size)
    warm_up(run)
    inputs = inputs_of(model, next(shape_clip(1, (720, 1280), 0)))
    with torch.no_grad():
        report.note(f"yolact_base, {engine}\n{longest(device, lambda: run(inputs))}")


def measure_training_kernels(device: torch.device, report: Report) -> None:
    """Profile a step of training."""
    with TemporaryDirectory() as kept:
        session = training_session(device, Path(kept), 8, "bfloat16")
        batch = next(iter(session.loader()))
        table = longest(device, lambda: train.train_step(session, batch))
        session.close()
    report.note(f"a step of {session.learner.config.name}, batch 8, bfloat16\n{table}")


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
