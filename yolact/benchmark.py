"""How fast a model is, stage by stage."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from layers.structures import Detections

from .meters import StageTimer
from .predictor import Predictor

Image = NDArray[np.uint8]

# The first images pay for allocations and for the choice of algorithms.
WARM_UP = 2


@dataclass(frozen=True)
class BenchmarkReport:
    """What `benchmark` measured.

    Attributes:
        milliseconds: from each decoded image to its detections, drawing excluded.
        timer: the single stages, drawing included.
        machine: what it ran on.
    """

    milliseconds: tuple[float, ...]
    timer: StageTimer
    machine: str

    def format(self) -> str:
        """Return the table and the summary as text."""
        if not self.milliseconds:
            return "no images were timed"
        ordered = sorted(self.milliseconds)
        p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
        mean = statistics.fmean(ordered)
        return (
            f"{self.timer.format()}\n\n"
            f"{self.machine}, {len(ordered)} images one at a time\n"
            f"without drawing: {1000 / mean:.2f} fps, {mean:.2f} ms on average, "
            f"median {statistics.median(ordered):.2f} ms, 95th percentile {p95:.2f} ms"
        )


def benchmark(
    predictor: Predictor,
    images: Iterable[Image],
    draw: Callable[[Image, Detections], Image],
    score_threshold: float = 0.0,
    top_k: int | None = None,
) -> BenchmarkReport:
    """Time a predictor on decoded images, one at a time, after a warm-up.

    Args:
        predictor: its timer is replaced.
        images: (H, W, 3) uint8 RGB; loading them is not timed.
        draw: makes the picture of one image.
        score_threshold: see `Predictor`.
        top_k: see `Predictor`.
    """
    totals: list[float] = []
    for index, image in enumerate(images):
        if index <= WARM_UP:
            predictor.timer = StageTimer(predictor.device)
        start = time.perf_counter()
        detections = predictor(image, score_threshold, top_k)
        seconds = time.perf_counter() - start
        with predictor.timer.stage("draw"):
            draw(image, detections)
        if index >= WARM_UP:
            totals.append(1000 * seconds)
    return BenchmarkReport(tuple(totals), predictor.timer, describe_machine(predictor.device))


def describe_machine(device: torch.device) -> str:
    """Name the processor, the number of threads, and the version of PyTorch."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{name}, PyTorch {torch.__version__}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
