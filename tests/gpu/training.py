"""Training on this device: the original's steps, half precision, averages, resuming, processes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from support.golden import Golden
from support.tiny import train_flags

import train
from yolact.checkpoint import Checkpoint, read_checkpoint
from yolact.cli.train_flags import parse_arguments
from yolact.engines.pytorch import autocast
from yolact.engines.training_graphs import RecordedLosses
from yolact.training.setup import Session, set_up

from .goldens import LOSSES, golden_model
from .material import folder, needs_cuda
from .report import NotHere, Report

FAST = ("--lr=1e-2", "--set=train.warmup_iterations=0", "--no_log")
_STEPS, _RESUMED_AT = 10, 5  # the tenth is logged


def check_golden_steps(device: torch.device, report: Report) -> None:
    """Five steps of SGD whose losses the original wrote down; on a CPU one."""
    file = folder("YOLACT_GOLDEN", "golden") / "yolact_resnet50_steps.json"
    if not file.is_file():
        raise NotHere(f"no {file.name} among the golden files")
    steps = json.loads(file.read_text(encoding="utf-8"))
    path = file.with_name("yolact_resnet50.npz")
    golden, model = Golden(path), golden_model(path, device).train()
    optimizer = torch.optim.SGD(
        model.parameters(), steps["lr"], steps["momentum"], weight_decay=steps["weight_decay"]
    )
    images, targets = golden.images().to(device), [t.to(device) for t in golden.targets()]
    for number, expected in enumerate(steps["trace"][: 1 if device.type == "cpu" else None]):
        optimizer.zero_grad()
        with autocast(device, "float32"):
            losses = model.criterion(model.network(images), targets)
            torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        for name, loss in losses.items():
            value, wanted = loss.item(), expected[LOSSES[name]]
            assert abs(value - wanted) <= 1e-2 * wanted, f"step {number}: {name} {value}, {wanted}"


def check_recorded_steps(device: torch.device, report: Report) -> None:
    """Steps with a recorded network are those of one whose kernels are launched one by one."""
    needs_cuda(device)
    found: list[list[dict[str, float]]] = []
    weights: list[dict[str, torch.Tensor]] = []
    with TemporaryDirectory() as folder:
        for kind in ("recorded", "plain"):
            # Slowly, or differences in rounding would grow from step to step.
            flags = (*FAST, "--precision=float32", "--lr=1e-4", f"--name={kind}")
            session = tiny_session(device, Path(folder), *flags)
            assert isinstance(session.parallel, RecordedLosses)
            if kind == "plain":
                session.parallel = session.learner.model
            batches = iter(session.loader())
            found.append([train.train_step(session, next(batches))[0] for _ in range(5)])
            weights.append(session.learner.model.state_dict())
            session.close()
    for number, (one, other) in enumerate(zip(*found, strict=True)):
        for name, loss in one.items():
            assert abs(loss - other[name]) <= 1e-2 * other[name], f"step {number}: {one}, {other}"
    norms = [name for name in weights[0] if "running" in name]
    assert norms
    for name in norms:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-2, atol=1e-3)


def check_bfloat16(device: torch.device, report: Report) -> None:
    """A tiny network learns a batch by heart in half precision."""
    learns_in("bfloat16", device, report)


def check_float16(device: torch.device, report: Report) -> None:
    """The same with scaled gradients."""
    needs_cuda(device)
    learns_in("float16", device, report)


def learns_in(precision: str, device: torch.device, report: Report) -> None:
    """Take steps on one batch; the losses fall, the weights stay in float32."""
    with TemporaryDirectory() as folder:
        session = tiny_session(device, Path(folder), *FAST, f"--precision={precision}")
        batch, totals = next(iter(session.loader())), []
        for _ in range(30):
            losses, finite = train.train_step(session, batch)
            totals += [sum(losses.values())] if finite else []
        session.close()
    scaler = session.learner.scaler
    assert scaler.is_enabled() == (precision == "float16")
    assert len(totals) >= 15, f"{30 - len(totals)} of 30 steps were not finite"
    first, last = np.mean(totals[:3]), np.mean(totals[-3:])
    report.number(f"training in {precision}: loss after {len(totals)} steps", last / first, "x")
    assert last < 0.9 * first, f"the loss went from {first:.3g} to {last:.3g}"
    types = {tensor.dtype for tensor in session.learner.model.parameters()}
    assert types == {torch.float32}, f"weights in {types}"


def check_average(device: torch.device, report: Report) -> None:
    """The moving average of the weights is the one that the CPU computes."""
    with TemporaryDirectory() as folder:
        session = tiny_session(device, Path(folder), *FAST, "--set=train.ema_decay=0.9")
        batches, expected = iter(session.loader()), {}
        for updates in range(4):
            train.train_step(session, next(batches))
            decay = min(0.9, (1 + updates) / (10 + updates)) if updates else 0.0
            for name, value in session.learner.model.state_dict().items():
                new = value.detach().cpu().double()
                expected[name] = decay * expected.get(name, new) + (1 - decay) * new
        session.close()
    for name, value in session.learner.evaluated_model.state_dict().items():
        if value.is_floating_point():
            difference = (value.cpu().double() - expected[name]).abs().max().item()
            assert difference <= 1e-4, f"{name} differs by {difference:.2g}"


def check_resume(device: torch.device, report: Report) -> None:
    """A run that is resumed ends, bit by bit, as one that is not, by deterministic algorithms."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    with TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        whole, resumed = Path(folder) / "whole", Path(folder) / "resumed"
        flags = (*FAST, "--log_gpu", "--set=train.ema_decay=0.9", f"--save_interval={_RESUMED_AT}")
        run(device, whole, *flags)
        run(device, resumed, *flags, f"--resume={weights(whole, _RESUMED_AT).path}")
        one, other = (weights(each, _STEPS) for each in (whole, resumed))
    for line in {str(w.message) for w in told if "determin" in str(w.message)}:
        report.note(f"not deterministic: {line.splitlines()[0]:.200}")
    pairs = ((one.model, other.model), (one.training["weights"], other.training["weights"]))
    for first, second in pairs:
        differing = [name for name in first if not torch.equal(first[name], second[name])]
        assert not differing, f"{len(differing)} of {len(first)} tensors differ, as {differing[0]}"


def check_processes(device: torch.device, report: Report) -> None:
    """What torchrun starts, with NCCL between GPUs and gloo between CPUs, learns as one alone."""
    if device.type not in ("cpu", "cuda"):
        raise NotHere(f"processes do not share {device}")
    with TemporaryDirectory() as folder:
        alone, joined = Path(folder) / "alone", Path(folder) / "joined"
        flags = (*FAST, "--save_interval=1", "--precision=float32", "--lr=1e-4")
        run(device, alone, *flags)
        script = Path(folder) / "joined.py"
        script.write_text(_JOINED, encoding="utf-8")
        command = ["torch.distributed.run", "--standalone", "--nproc-per-node=1", str(script)]
        done = subprocess.run(
            [sys.executable, "-m", *command, str(device), *tiny_flags(device, joined, *flags)],
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, f"torchrun: {done.stderr.strip()[-800:]}"
        start, end, other = weights(alone, 1), weights(alone, _STEPS), weights(joined, _STEPS)
    moved, apart = distance(start, end), distance(end, other)
    assert apart <= 0.05 * moved, f"{apart:.3g} apart after a way of {moved:.3g}"


# All that processes share, and a run of training.
_JOINED = """
import sys
import torch
import train
from yolact import distributed
device = distributed.init_process(torch.device(sys.argv[1]))
assert torch.distributed.get_backend() == distributed.backend_for(device)
values = torch.arange(3.0, device=device)
assert torch.equal(distributed.all_reduce_mean(values), values)
assert distributed.all_gather({"rank": 0}) == [{"rank": 0}]
assert distributed.any_process(True) and not distributed.any_process(False)
train.main(sys.argv[2:])
"""


def tiny_flags(device: torch.device, folder: Path, *more: str) -> list[str]:
    """Return the flags of a run of a few steps on generated scenes."""
    return train_flags(Path("shapes"), folder, _STEPS, f"--device={device}", *more)


def tiny_session(device: torch.device, folder: Path, *more: str) -> Session:
    """Set up a run without taking a step."""
    return set_up(*parse_arguments(None, tiny_flags(device, folder, *more)))


def run(device: torch.device, folder: Path, *more: str) -> None:
    """Train to the end."""
    with redirect_stdout(StringIO()):
        train.main(tiny_flags(device, folder, *more))


def weights(folder: Path, iteration: int) -> Checkpoint:
    """Read what a run saved after so many steps."""
    (path,) = folder.glob(f"*_{iteration}.pth")
    return read_checkpoint(path)


def distance(one: Checkpoint, other: Checkpoint) -> float:
    """Return how far all weights of two checkpoints are apart."""
    squares = [
        (value.double() - other.model[name].double()).square().sum().item()
        for name, value in one.model.items()
        if value.is_floating_point()
    ]
    return float(np.sqrt(sum(squares)))
