"""Measure how fast one process makes training input, and where the time goes.

python scripts/bench_loader.py --dataset data/coco_small --image_size 550
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.catalog import resolve_dataset
from data.coco import CocoInstances
from data.transforms import TrainTransform, place_target, to_tensor


class Stopwatch:
    """Seconds spent in each named stage."""

    def __init__(self) -> None:
        """Start with no stages."""
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Put the time spent inside on a stage's account."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def main() -> None:
    """Print images per second, median of the rounds, and milliseconds per stage."""
    args = parse_arguments()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        paths = resolve_dataset(args.dataset)
        if paths.train_images is None or paths.train_annotations is None:
            raise ValueError(f"{args.dataset} has no training split")
        dataset = CocoInstances(paths.train_images, paths.train_annotations)
    except (ValueError, OSError) as error:
        sys.exit(f"bench_loader: {error}")
    count = min(args.images, len(dataset))
    transform = TrainTransform(args.image_size)

    whole, cpu, stages = [], [], []
    for round_number in range(args.rounds):
        start, cpu_start = time.perf_counter(), time.process_time()
        for index in range(count):
            transform(dataset.sample(index), np.random.default_rng((round_number, index)))
        whole.append((time.perf_counter() - start) / count)
        cpu.append((time.process_time() - cpu_start) / count)
        stages.append(time_stages(dataset, transform, count, round_number))

    print(f"{1 / statistics.median(whole):6.1f} images/s, one process (wall clock)")
    print(f"{1 / statistics.median(cpu):6.1f} images/s by processor time")
    for stage in stages[0]:
        milliseconds = statistics.median(seconds[stage] for seconds in stages) / count * 1e3
        print(f"{milliseconds:8.2f} ms  {stage}")


def time_stages(
    dataset: CocoInstances, transform: TrainTransform, count: int, seed: int
) -> dict[str, float]:
    """Go through the steps of the transform one by one."""
    clock = Stopwatch()
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        with clock.stage("read and decode"):
            sample = dataset.sample(index)
        with clock.stage("draw the geometry"):
            placement, kept = transform.place(sample, rng)
        with clock.stage("crop, resize, colours"):
            image = transform.render(sample, placement, rng)
        with clock.stage("image to tensor"):
            to_tensor(image)
        with clock.stage("boxes and masks"):
            place_target(sample, placement, kept)
    return clock.seconds


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, help="name, folder or annotation file")
    parser.add_argument("--image_size", type=int, default=550)
    parser.add_argument("--images", type=int, default=325, help="at most so many per round")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
