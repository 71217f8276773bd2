"""Show where a training step spends its time: by part of the program, and by kind of operation.

Parts are measured in processor time of all threads, which other programs affect little; kinds of
operation are shares measured by PyTorch's profiler.

Example:
  python scripts/profile_step.py --config=yolact_lite0 --dataset=persons --recipe=modern
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

import train
from yolact.cli.common import run_command
from yolact.cli.train_flags import parse_arguments
from yolact.evaluation.speed import align, describe_machine
from yolact.training.setup import Session, set_up

Times = defaultdict[str, float]
"""What takes time -> how much."""

STEPS = 5
KINDS = {
    "convolution": ("conv", "mm", "dnn_linear"),
    "batch norm": ("batch_norm",),
    "activation": ("hardtanh", "threshold", "relu", "silu", "hardswish", "gelu", "tanh", "clamp"),
    "copying, padding": ("copy_", "fill_", "cat", "pad", "zero_"),
    "resizing": ("upsample",),
    "optimiser, average": ("_foreach", "lerp", "_fused", "addcmul", "addcdiv", "adam"),
}
"""Kind -> parts of the names of its operations; the first that fits counts."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables; the flags are those of train.py."""
    flags = ["--no_log", "--no_report", "--validation_size=-1", "--num_workers=0"]
    with closing(set_up(*parse_arguments(__doc__, [*flags, *(argv or [])]))) as session:
        show_times(session)


def show_times(session: Session) -> None:
    """Print the tables of a training that is set up."""
    batches = iter(session.loader())
    train.train_step(session, next(batches))  # allocates
    print(describe_machine(session.learner.model.device), "\n")
    print(align([["part", "ms", "%"], *shares(parts(session, batches), 1000 / STEPS)]))
    batch = next(batches)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            train.train_step(session, batch)
    kinds: Times = defaultdict(float)
    for event in profiler.key_averages():
        kinds[kind_of(event.key)] += event.self_cpu_time_total
    print("\n" + align([["kind", "ms", "%"], *shares(kinds, 1e-3 / STEPS)]))


def parts(session: Session, batches: Any) -> Times:
    """Take steps; return the seconds of each part of the program."""
    seconds: Times = defaultdict(float)
    learner: Any = session.learner
    timed = [
        (learner.model.network, "forward", "network"),
        (learner.model, "criterion", "losses"),
        (torch.autograd, "backward", "gradients"),
        (learner.optimizer, "step", "optimiser"),
    ]
    if learner.average is not None:
        timed.append((learner.average, "update_parameters", "average"))
    load = measured(next, "loading", seconds)
    with ExitStack() as stack:
        for owner, name, part in timed:
            wrapped = measured(getattr(owner, name), part, seconds)
            stack.enter_context(patch.object(owner, name, wrapped))
        start = time.process_time()
        for _ in range(STEPS):
            train.train_step(session, load(batches))
    seconds["everything else"] = time.process_time() - start - sum(seconds.values())
    return seconds


def measured(function: Any, part: str, seconds: Times) -> Callable[..., Any]:
    """Let a function count its processor time."""

    def counting(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.process_time() - start

    return counting


def kind_of(operation: str) -> str:
    """Return the kind of an operation of PyTorch's."""
    fitting = (
        kind for kind, names in KINDS.items() if any(name in operation.lower() for name in names)
    )
    return next(fitting, "everything else")


def shares(times: Times, unit: float) -> list[list[str]]:
    """Return rows of name, time and share, the largest first."""
    total = sum(times.values())
    return [
        [name, f"{value * unit:.0f}", f"{100 * value / total:.1f}"]
        for name, value in sorted(times.items(), key=lambda each: -each[1])
    ]


if __name__ == "__main__":
    raise SystemExit(run_command(main, sys.argv[1:]))
