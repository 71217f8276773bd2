"""Speed of models: by stage, of the network alone, and of whole videos; one variant or several.

Variants take turns at every image, batch and video, so that the ratios between them are reliable
even on a machine whose speed drifts.
"""

from __future__ import annotations

import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from data.images import Image, to_tensor
from data.problems import counted
from yolact.engines.choose import matmul_speeds
from yolact.engines.names import Engine
from yolact.models.segmenter import AnySegmenter
from yolact.predictor import Predictor
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.runs.provenance import provenance
from yolact.timing import StageTimer, summarize

# The first images include the time of allocations and of choosing algorithms.
WARM_UP = 2
_NETWORK_ROUNDS = 7
_VIDEO_ROUNDS = 3


@dataclass(frozen=True)
class Variant:
    """One of the variants to compare.

    Attributes:
        label: name of the variant.
        predictor: the predictor to time; its timer is replaced.
        draw: draws the detections of one image.
        engine: engine of the predictor.
        run_video: processes a video from end to end and returns its frames per second, or None.
    """

    label: str
    predictor: Predictor
    draw: Callable[[Image, Detections], Image]
    engine: Engine
    run_video: Callable[[], float] | None = None


@dataclass
class Measurement:
    """The measurements of one variant.

    Attributes:
        label: name of the variant.
        seconds: time from each decoded image to its detections, without drawing.
        timer: times of the single stages, including drawing.
        network: batch size -> milliseconds of the network alone, for each run.
        video: frames per second of each run through the video.
    """

    label: str
    seconds: list[float] = field(default_factory=list)
    timer: StageTimer = field(default_factory=StageTimer)
    network: dict[int, list[float]] = field(default_factory=dict)
    video: list[float] = field(default_factory=list)

    @property
    def video_fps(self) -> float:
        """Median frames per second through the video; NaN without one."""
        return statistics.median(self.video) if self.video else math.nan

    def network_median(self, batch: int) -> float:
        """Milliseconds of the network alone for a batch."""
        return statistics.median(self.network[batch])


@dataclass(frozen=True)
class BenchmarkReport:
    """Measurements of one run, and the machine.

    Attributes:
        measurements: one for each variant, in their order.
        machine: processor, threads, PyTorch.
        ceiling: precision -> TFLOP/s of a large matrix product on this machine.
        gflop: operations of the first variant's network for the first image, in 10^9.
        peak_memory_mb: peak memory of the process so far, in MiB.
    """

    measurements: list[Measurement]
    machine: str
    ceiling: dict[str, float]
    gflop: float
    peak_memory_mb: float | None

    def format(self) -> str:
        """Return the report as text: the stages of a single variant, or a table of all."""
        first = self.measurements[0]
        if not first.seconds:
            return "no images were timed"
        products = ", ".join(f"{name} {speed:.2f}" for name, speed in self.ceiling.items())
        about = [
            f"matrix products: {products} TFLOP/s",
            f"network: {self.gflop:.1f} GFLOP for an image",
            f"{len(first.seconds)} images",
        ]
        if self.peak_memory_mb is not None:
            about.append(f"peak memory {self.peak_memory_mb:.0f} MB")
        stages = first.timer.format() + "\n\n" if len(self.measurements) == 1 else ""
        return f"{stages}{_comparison(self.measurements)}\n\n{self.machine}\n{'; '.join(about)}"

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values, for JSON."""
        return {
            "made_by": provenance(),
            "machine": self.machine,
            "matmul_tflops": self.ceiling,
            "network_gflop": self.gflop,
            "peak_memory_mb": self.peak_memory_mb,
            "variants": [
                {
                    "label": m.label,
                    "image": summarize(m.seconds)._asdict() if m.seconds else None,
                    "stages": {k: v._asdict() for k, v in m.timer.statistics().items()},
                    "network_ms": {str(batch): m.network_median(batch) for batch in m.network},
                    "video_fps": m.video,
                }
                for m in self.measurements
            ],
        }


def benchmark(
    variants: Sequence[Variant],
    images: Sequence[Image],
    thresholds: Thresholds,
    batch_sizes: Sequence[int] = (1,),
) -> BenchmarkReport:
    """Time variants in turn: on decoded images one at a time, the network alone, and on a video.

    Args:
        variants: at least one.
        images: (H, W, 3) uint8 RGB; the first two only warm up.
        thresholds: which detections count.
        batch_sizes: batch sizes for timing the network alone.
    """
    measurements = [Measurement(variant.label) for variant in variants]
    pairs = list(zip(variants, measurements, strict=True))
    for index, image in enumerate(images):
        for variant, measurement in pairs:
            if index <= WARM_UP:
                measurement.timer = variant.predictor.timer = StageTimer(variant.engine.device)
            seconds = _time_image(variant, image, thresholds)
            if index >= WARM_UP:
                measurement.seconds.append(seconds)
    for variant in variants:  # the measured stage times end here
        variant.predictor.timer = StageTimer()
    for batch in batch_sizes if images else ():
        _time_networks(pairs, images, batch)
    for _ in range(_VIDEO_ROUNDS):
        for variant, measurement in pairs:
            if variant.run_video is not None:
                measurement.video.append(variant.run_video())
    device = variants[0].engine.device
    return BenchmarkReport(
        measurements,
        describe_machine(device),
        matmul_speeds(device),
        network_gflop(variants[0].predictor.model, images[0]) if images else 0.0,
        peak_memory_mb(device),
    )


def network_gflop(model: AnySegmenter, image: Image) -> float:
    """Count the network's operations for an image; a multiplication and an addition are two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.dry_run(to_tensor(image))
    return float(counter.get_total_flops()) / 1e9


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the peak memory of this process so far, in MiB; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def describe_machine(device: torch.device) -> str:
    """Name the processor, the number of threads, and the version of PyTorch."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {counted(torch.get_num_threads(), 'thread')}"
    return f"{name}, PyTorch {torch.__version__}"


def _time_image(variant: Variant, image: Image, thresholds: Thresholds) -> float:
    start = time.perf_counter()
    (detections,) = variant.predictor.segment([image], thresholds)
    seconds = time.perf_counter() - start
    with variant.predictor.timer.stage("draw"):
        variant.draw(image, detections)
    return seconds


def _time_networks(
    pairs: Sequence[tuple[Variant, Measurement]], images: Sequence[Image], batch: int
) -> None:
    """Run only the networks, in turn, on a batch of images."""
    chosen = [to_tensor(images[i % len(images)]) for i in range(batch)]
    inputs = [variant.predictor.model.preprocess(chosen) for variant, _ in pairs]
    for turn in range(1 + _NETWORK_ROUNDS):
        for (variant, measurement), x in zip(pairs, inputs, strict=True):
            timer = StageTimer(variant.engine.device)
            with torch.no_grad(), timer.stage("network"):
                variant.predictor.run_network(x)
            if turn:
                milliseconds = timer.statistics()["network"].mean
                measurement.network.setdefault(batch, []).append(milliseconds)


def _comparison(measurements: Sequence[Measurement]) -> str:
    """Return a table with a row for each variant; ratios are to the first."""
    first = measurements[0]
    baseline = summarize(first.seconds).median
    batches = list(first.network)
    head = ["variant", "median ms", "p95 ms", "fps", "speed"]
    head += [f"network x{batch} ms" for batch in batches]
    head += ["video fps", "speed"] if first.video else []
    rows = [head]
    for m in measurements:
        image = summarize(m.seconds)
        row = [m.label, f"{image.median:.1f}", f"{image.p95:.1f}", f"{1000 / image.median:.2f}"]
        row.append(f"{baseline / image.median:.2f}x")
        row += [f"{m.network_median(batch):.1f}" for batch in batches]
        if first.video:
            row += [f"{m.video_fps:.2f}", f"{m.video_fps / first.video_fps:.2f}x"]
        rows.append(row)
    return align(rows)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
