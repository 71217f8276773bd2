"""Where the time goes: the ten longest kernels."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import train
from data.shapes.clip import shape_clip
from yolact.engines.choose import choose_engine
from yolact.engines.prepare import prepare, warm_up

from .benchmark import SMALL, inputs_of, training_session
from .clock import longest
from .material import untrained
from .report import Report


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
