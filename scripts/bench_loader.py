"""Measure how fast one process prepares training input, and the time of each stage.

Example:
  python scripts/bench_loader.py path/to/coco_small --image_size=550
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import cv2
import numpy as np
import torch

from data.augment.transform import TrainTransform, place_target
from data.catalog import open_dataset
from data.images import to_tensor
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command
from yolact.timing import StageTimer


def main(argv: Sequence[str] | None = None) -> None:
    """Print images per second, and milliseconds for each stage."""
    parser = make_parser("bench_loader.py", __doc__)
    parser.add_argument("dataset", help="as in train.py")
    add_flags(
        parser,
        "options",
        (
            flag("--image_size", "input side S in pixels", int, 550),
            flag("--images", "maximum number of images per round", int, 325),
            flag("--rounds", "rounds; the median counts", int, 3),
        ),
    )
    args = parser.parse_args(argv)
    at_least(args, image_size=1, images=1, rounds=1)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    dataset = open_dataset(args.dataset, "train")
    transform = TrainTransform(args.image_size)
    count, rates, timer = min(args.images, len(dataset)), [], StageTimer()
    for round_number in range(args.rounds):
        start = time.perf_counter()
        for index in range(count):
            rng = np.random.default_rng((round_number, index))
            with timer.stage("read and decode"):
                sample = dataset.sample(index)
            with timer.stage("draw the geometry"):
                placement, kept = transform.place(sample, rng)
            with timer.stage("pixels"):
                image = transform.render(sample, placement, rng)
            with timer.stage("image to tensor"):
                to_tensor(image)
            with timer.stage("boxes and masks"):
                place_target(sample, placement, kept)
        rates.append(count / (time.perf_counter() - start))
    print(f"{statistics.median(rates):.1f} images/s in one process\n\n{timer.format()}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
