"""Memory that runs out, really on a GPU and as if on a CPU."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch

import train
from yolact import Predictor
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import run_command
from yolact.results.thresholds import Thresholds

from .alike import share_found
from .material import scenes, untrained
from .report import NotHere, Report
from .training import FAST, tiny_flags

_BATCH = 16
_FULL = "CUDA out of memory. Tried to allocate 20 GiB. GPU 0 has"


def check_evaluation_out_of_memory(device: torch.device, report: Report) -> None:
    """A batch that does not fit is halved, which is told; what is found is the same."""
    side = 64 if device.type == "cpu" else 550
    settings = f"model.image_size={side}"
    model = untrained("yolact_resnet18", device, settings)
    images, thresholds = scenes(_BATCH, 96), Thresholds(top_k=5)
    predictor = Predictor(model)
    expected = [predictor.segment([image], thresholds)[0] for image in images]
    with room_for_half(device, predictor, images, thresholds), logged() as lines:
        found = predictor.segment(images, thresholds)
    assert any("out of memory with 16 images at a time" in line for line in lines), lines
    shares = [share_found(a, b, 0.9, 0.01) for a, b in zip(expected, found, strict=True)]
    mean = sum(shares) / len(shares)
    assert mean >= 0.95, f"only {100 * mean:.0f} % of the objects are found again"


def check_training_out_of_memory(device: torch.device, report: Report) -> None:
    """Training ends with one line that says what to set, and keeps what it has learned."""
    large = [] if device.type == "cpu" else ["--set=model.image_size=320"]
    step, taken = train.train_step, []

    def failing(*args: object) -> object:
        taken.append(None)
        if len(taken) == 3:
            fill_up(device)
        return step(*args)

    with TemporaryDirectory() as folder, patch.object(train, "train_step", failing):
        output = io.StringIO()
        with redirect_stderr(output), redirect_stdout(io.StringIO()), own_handlers():
            code = run_command(train.main, tiny_flags(device, Path(folder), *FAST, *large))
        errors = [line for line in output.getvalue().splitlines() if line.startswith("error")]
        assert code == 1, f"exit code {code}: {output.getvalue()}"
        assert len(errors) == 1 and "--accumulate=2" in errors[0], errors
        saved = list(Path(folder).glob("*_interrupt.pth"))
        assert len(saved) == 1, "no checkpoint was kept"
        assert read_checkpoint(saved[0]).training["iteration"] == 2


@contextmanager
def room_for_half(
    device: torch.device, predictor: Predictor, images: list, thresholds: Thresholds
) -> Iterator[None]:
    """Leave memory for less than a whole batch."""
    if device.type == "cpu":
        network = predictor.model.network
        with patch.object(network, "forward", with_room(network.forward, len(images) // 2)):
            yield
        return
    if device.type != "cuda":
        raise NotHere(f"no way to limit the memory of {device}")
    peaks = []
    for count in (1, len(images)):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        predictor.segment(images[:count], thresholds)
        peaks.append(torch.cuda.max_memory_allocated(device))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((peaks[0] + peaks[1]) / 2 / total, device.index or 0)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device.index or 0)


def with_room(forward: Callable, most: int) -> Callable:
    """Let a network fail for batches of more than so many images."""

    def limited(x: torch.Tensor) -> object:
        if len(x) > most:
            raise torch.OutOfMemoryError(_FULL)
        return forward(x)

    return limited


def fill_up(device: torch.device) -> None:
    """Leave no memory for another step."""
    if device.type != "cuda":
        raise torch.OutOfMemoryError(_FULL)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4, device.index or 0)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect what is logged."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)


@contextmanager
def own_handlers() -> Iterator[None]:
    """Keep the handlers of the log as they are."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)
