"""Time the steps from detections to pixels: assembling masks, encoding run lengths, drawing.

The detections are random: boxes of all sizes, masks from smooth prototypes.

Example:
  python scripts/bench_pixels.py --detections=100
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from layers.masks import assemble_masks
from yolact.cli.common import add_flags, flag, make_parser, run_command
from yolact.drawing.detections import draw_detections
from yolact.evaluation.speed import describe_machine, peak_memory_mb
from yolact.results.detections import Detections

CPU = torch.device("cpu")
ROUNDS = 20


def main(argv: Sequence[str] | None = None) -> None:
    """Print the times for three sizes of image."""
    parser = make_parser("bench_pixels.py", __doc__)
    add_flags(
        parser,
        "options",
        (
            flag("--detections", "detections in each image", int, 100),
            flag("--threads", "threads of PyTorch", int, 1),
        ),
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(describe_machine(CPU))
    for height, width in ((2160, 3840), (720, 1280), (480, 640)):  # the first sets the peak
        before = peak_memory_mb(CPU) or 0
        found, assemble = make_detections(args.detections, (height, width))
        image = np.full((height, width, 3), 127, np.uint8)
        times = {
            "assemble": median_ms(assemble),
            "run lengths": median_ms(partial(encode, found)),
            "draw": median_ms(partial(draw_detections, image, found)),
        }
        line = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items())
        added = (peak_memory_mb(CPU) or 0) - before
        print(f"{args.detections} detections at {width} x {height}: {line}; +{added:.0f} MB")


def make_detections(
    count: int, image_hw: tuple[int, int]
) -> tuple[Detections, Callable[[], torch.Tensor]]:
    """Return N random detections of an image, and the function that assembles their masks."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((1, 32, 12, 12), generator=generator)
    prototypes = F.interpolate(coarse, (138, 138), mode="bicubic")[0].relu()
    coefficients = torch.rand((count, 32), generator=generator) * 2 - 1
    corners = torch.rand((count, 2), generator=generator) * 0.7
    boxes = torch.cat(
        (corners, corners + 0.05 + 0.25 * torch.rand((count, 2), generator=generator)), dim=1
    )
    scale = torch.tensor(image_hw[::-1], dtype=torch.float32).repeat(2)
    found = Detections(
        boxes=boxes * scale,
        scores=torch.linspace(1, 0.1, count),
        labels=torch.arange(count) % 80,
        soft_masks=assemble_masks(prototypes, coefficients, boxes),
        mask_frames=(scale * torch.tensor((0.0, 0.0, 1.0, 1.0))).expand(count, 4),
        box_scores=torch.linspace(1, 0.1, count),
        image_hw=image_hw,
    )
    return found, lambda: assemble_masks(prototypes, coefficients, boxes)


def encode(found: Detections) -> list[str]:
    """Encode every mask as run lengths."""
    return [found.run_lengths(index) for index in range(len(found))]


def median_ms(work: Callable[[], object]) -> float:
    """Return the median time of `ROUNDS` runs in milliseconds."""
    milliseconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        milliseconds.append(1000 * (time.perf_counter() - start))
    return statistics.median(milliseconds)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
