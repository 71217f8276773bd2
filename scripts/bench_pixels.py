"""Time the steps from detections to pixels: assembling masks, encoding run lengths, drawing.

The detections are random: boxes of all sizes, masks from smooth prototypes. Times are processor
time of one core, which other programs do not lengthen. `--compare` measures four ways to full-size
masks and run lengths in turn: the compiled kernels, their fallback, torch's resizing of whole
masks, and the same with pycocotools.

Examples:
  python scripts/bench_pixels.py --detections=100
  python scripts/bench_pixels.py --detections=20 --compare
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as mask_utils

from layers.masks import assemble_masks
from layers.native import load_kernels
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command
from yolact.drawing.detections import draw_detections
from yolact.evaluation.speed import describe_machine, peak_memory_mb
from yolact.results.detections import Detections

CPU = torch.device("cpu")
SIZES = ((2160, 3840), (720, 1280), (480, 640))  # the first sets the peak
ROUNDS = 20

Ways = Mapping[str, Callable[[], object]]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the times for three sizes of image."""
    parser = make_parser("bench_pixels.py", __doc__)
    add_flags(
        parser,
        "options",
        (
            flag("--detections", "detections in each image", int, 100),
            flag("--compare", "compare four ways, at the two smaller sizes", bool),
        ),
    )
    args = parser.parse_args(argv)
    at_least(args, detections=0)
    torch.set_num_threads(1)
    print(describe_machine(CPU))
    if args.compare:
        for image_hw in SIZES[1:]:
            compare(args.detections, image_hw)
        return
    for image_hw in SIZES:
        measure(args.detections, image_hw)


def measure(count: int, image_hw: tuple[int, int]) -> None:
    """Print the time of each step for one size of image, and the memory."""
    before = peak_memory_mb(CPU) or 0
    found, assemble = make_detections(count, image_hw)
    image = np.full((*image_hw, 3), 127, np.uint8)
    times = in_turn(
        {
            "assemble": assemble,
            "run lengths": partial(encode, found),
            "draw": partial(draw_detections, image, found),
        }
    )
    added = (peak_memory_mb(CPU) or 0) - before
    print(f"{count} detections at {image_hw[0]} x {image_hw[1]}: {listed(times)}; +{added:.0f} MB")


def compare(count: int, image_hw: tuple[int, int]) -> None:
    """Print the times of four ways, for masks inside of boxes and for masks of the whole image."""
    for crop, place in ((True, "in boxes"), (False, "of the whole image")):
        found, _ = make_detections(count, image_hw, crop)
        print(f"{count} masks {place}, {image_hw[0]} x {image_hw[1]}")
        for name, ours, plain, theirs in (
            ("masks", paste, "F.interpolate", resize),
            ("run lengths", encode, "F.interpolate and pycocotools", resize_and_encode),
        ):
            work = partial(ours, found)
            ways = {"not compiled": partial(without_kernels, work), plain: partial(theirs, found)}
            if load_kernels() is not None:
                ways = {"compiled": work, **ways}
            print(f"  {name}: {listed(in_turn(ways))}")


def make_detections(
    count: int, image_hw: tuple[int, int], crop: bool = True
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
    assemble = partial(assemble_masks, prototypes, coefficients, boxes, crop)
    found = Detections(
        boxes=boxes * scale,
        scores=torch.linspace(1, 0.1, count),
        labels=torch.arange(count) % 80,
        soft_masks=assemble(),
        mask_frames=(scale * torch.tensor((0.0, 0.0, 1.0, 1.0))).expand(count, 4),
        box_scores=torch.linspace(1, 0.1, count),
        image_hw=image_hw,
    )
    return found, assemble


def paste(found: Detections) -> torch.Tensor:
    """Make full-size masks."""
    return found.masks


def encode(found: Detections) -> list[str]:
    """Encode every mask as run lengths."""
    return [found.run_lengths(index) for index in range(len(found))]


def resize(found: Detections) -> torch.Tensor:
    """Make full-size masks in one step of torch."""
    return F.interpolate(found.soft_masks[None], found.image_hw, mode="bilinear")[0] > 0.5


def resize_and_encode(found: Detections) -> list[str]:
    """Encode full-size masks by pycocotools."""
    masks = resize(found).numpy().astype(np.uint8)
    return [mask_utils.encode(np.asfortranarray(mask))["counts"].decode() for mask in masks]


def without_kernels(work: Callable[[], object]) -> object:
    """Run something as where nothing is compiled."""
    with patch("layers.native.load_kernels", new=lambda: None):
        return work()


def in_turn(ways: Ways) -> dict[str, float]:
    """Run each way `ROUNDS` times, in turn, and return the median times in milliseconds."""
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, work in ways.items():
            start = time.process_time()
            work()
            milliseconds[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in milliseconds.items()}


def listed(times: Mapping[str, float]) -> str:
    """Write each time after its name."""
    return ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items())


if __name__ == "__main__":
    raise SystemExit(run_command(main))
