"""Measure threads, open files and memory of long runs: a folder of images, and a video.

Images and video are generated and small, so that their number is what counts. All combined files
and pictures are written; the video is tracked, with key frames.

Example:
  python scripts/bench_memory.py --images=10000 --minutes=30
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from data.shapes.clip import shape_clip
from data.shapes.scenes import ShapeScenes
from data.video.writer import VideoWriter
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command
from yolact.evaluation.speed import describe_machine

ROOT = Path(__file__).resolve().parent.parent
FPS = 30
MODEL = ("--trained_model=yolact_resnet18_shapes", "--set=model.image_size=64", "--device=cpu")


class Sample(NamedTuple):
    """A process at one moment; `memory` is resident, in MiB."""

    done: int
    seconds: float
    threads: int
    files: int
    memory: float


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of samples for each run."""
    parser = make_parser("bench_memory.py", __doc__)
    add_flags(
        parser,
        "options",
        (
            flag("--images", "images in the folder; 0 for no such run", int, 10_000),
            flag("--minutes", "length of the video, at 30 frames/s; 0 for no such run", int, 30),
            flag("--samples", "measurements in each run", int, 10),
            flag("--side", "side of the images and frames, in pixels", int, 96),
        ),
    )
    args = parser.parse_args(argv)
    at_least(args, images=0, minutes=0, samples=1, side=16)
    print(describe_machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as place:
        if args.images:
            measure_images(Path(place), args.images, args.side, args.samples)
        if args.minutes:
            measure_video(Path(place), args.minutes * 60 * FPS, args.side, args.samples)


def measure_images(place: Path, count: int, side: int, samples: int) -> None:
    """Segment a folder, with every combined file and pictures."""
    make_images(place / "in", count, side)
    flags = ["--images=in:out", "--save_csv", "--save_coco", "--save_json", "--save_txt"]
    lines = place / "out" / ".detections.progress"
    print_table(f"{count} images", watched(flags, place, lines, count, samples, heads=2))


def measure_video(place: Path, count: int, side: int, samples: int) -> None:
    """Segment a video, with tracks and key frames."""
    make_video(place / "in.mp4", count, side)
    flags = ["--video=in.mp4:out.mp4", "--track", "--keyframes=4", "--save_json", "--save_csv"]
    print_table(f"{count} frames", watched(flags, place, place / "out.jsonl", count, samples))


def make_images(folder: Path, count: int, side: int) -> None:
    """Write generated scenes, moved about: each is another picture."""
    folder.mkdir()
    scenes = ShapeScenes(min(count, 100), side, seed=0)
    pictures = [scenes.sample(index).image for index in range(len(scenes))]
    for number in range(count):
        moved = np.roll(pictures[number % len(pictures)], number, axis=1)
        cv2.imwrite(str(folder / f"{number:06}.jpg"), moved[..., ::-1])


def make_video(path: Path, count: int, side: int) -> None:
    """Write a generated clip that is played to and fro."""
    clip = list(shape_clip(min(count, 150), (side * 3 // 4, side)))
    with VideoWriter(path, FPS, clip[0].shape[:2]) as writer:
        for number in range(count):
            place = number % (2 * len(clip))
            writer.write(clip[min(place, 2 * len(clip) - 1 - place)])


def watched(
    flags: Sequence[str], place: Path, lines: Path, count: int, samples: int, heads: int = 0
) -> Iterator[Sample]:
    """Run eval.py, and yield samples of its process.

    Args:
        flags: beside the model's.
        place: the working folder.
        lines: a file that gets a line for each image or frame.
        count: of the images or frames.
        samples: to take of them.
        heads: lines of the file before those.

    Raises:
        OSError: the run failed, or left something out.
    """
    command = [sys.executable, str(ROOT / "eval.py"), *MODEL, *flags]
    start, done, size, due = time.monotonic(), -heads, 0, 0.0
    with subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            done, size = read_on(lines, done, size)
            if done > due:
                yield sample_of(process.pid, done, time.monotonic() - start)
                due += count / samples
            time.sleep(0.5)
    done, _ = read_on(lines, done, size)
    if process.returncode or done < count:
        raise OSError(f"{' '.join(command)}: exit code {process.returncode}, {done} lines")


def read_on(lines: Path, done: int, size: int) -> tuple[int, int]:
    """Return how many lines a file has by now, and its size, from what it had before."""
    if not lines.exists():
        return done, size
    with lines.open("rb") as file:
        file.seek(size)
        new = file.read()
    return done + new.count(b"\n"), size + len(new)


def sample_of(process: int, done: int, seconds: float) -> Sample:
    """Look at a process, as Linux shows it."""
    folder = Path("/proc") / str(process)
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    files = sum(1 for _ in (folder / "fd").iterdir())
    memory = int(status["VmRSS"].split()[0]) / 1024
    return Sample(done, seconds, int(status["Threads"]), files, memory)


def print_table(title: str, samples: Iterator[Sample]) -> None:
    """Print samples as they come."""
    print(f"\n{title}\n\n| done | seconds | threads | open files | resident, MiB |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for each in samples:
        row = (each.done, f"{each.seconds:.0f}", each.threads, each.files, f"{each.memory:.0f}")
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
