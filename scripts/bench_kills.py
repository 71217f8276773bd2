"""Kill training, evaluation, folder and video runs at random moments, and resume them.

A kill is SIGKILL, which a process cannot catch. After each, every file with a final name is opened,
and what was finished before must still be there; the resumed run is killed as well, until one ends.
Its output must equal that of an undisturbed run, to the byte, or for a checkpoint to the bit of
every weight.

Example:
  python scripts/bench_kills.py --kills=50
"""

from __future__ import annotations

import csv
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import torch

import eval as eval_script
import train as train_script
from data.shapes.clip import export_clip, shape_clip
from data.shapes.scenes import ShapeScenes, export_coco
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command
from yolact.evaluation.speed import describe_machine
from yolact.video import parts

SMALL = ("--device=cpu", "--set=model.image_size=64")
SAVED = ("--save_json", "--save_csv", "--save_coco", "--save_txt")
TINY = (
    *("--config=yolact_resnet18", "--set=model.fpn_channels=16", "--set=model.head_channels=16"),
    *("--set=model.prototype_channels=16", "--set=train.pretrained_backbone=False"),
)


COLUMNS = (
    *("run", "kills", "before anything was finished", "files opened", "corrupt", "lost"),
    *("runs that ended", "as if never killed"),
)


@dataclass(frozen=True)
class Run:
    """A command that is killed and goes on.

    Attributes:
        name: of it.
        main: runs it.
        flags: of a run from the beginning.
        resume: what is added to go on.
        finished: tells of a folder how much is finished there.
    """

    name: str
    main: Callable[[Sequence[str] | None], None]
    flags: tuple[str, ...]
    resume: str
    finished: Callable[[Path], int]


@dataclass
class Tally:
    """What was seen after the kills."""

    kills: int = 0
    early: int = 0  # before anything was finished
    opened: int = 0
    corrupt: list[str] = field(default_factory=list)
    lost: int = 0
    ended: int = 0
    equal: int = 0
    unlike: list[str] = field(default_factory=list)  # files that are not as if never killed


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table with a line for each kind of run."""
    parser = make_parser("bench_kills.py", __doc__)
    add_flags(
        parser,
        "options",
        (
            flag("--kills", "kills for each kind of run", int, 50),
            flag("--only", "one kind", choices=("training", "evaluation", "folder", "video")),
            flag("--seed", "seed of the moments", int, 0),
        ),
    )
    args = parser.parse_args(argv)
    at_least(args, kills=1)
    torch.set_num_threads(1)  # and no thread is begun before the forks
    parts.LENGTH = 10
    print(f"{describe_machine(torch.device('cpu'))}, seed {args.seed}\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|", flush=True)
    with tempfile.TemporaryDirectory() as place:
        for run in make_runs(Path(place)):
            if args.only in (None, run.name):
                tally = kill_often(run, Path(place), args.kills, random.Random(args.seed))
                row = (run.name, tally.kills, tally.early, tally.opened, len(tally.corrupt))
                row_of_all = (*row, tally.lost, tally.ended, tally.equal)
                print(f"| {' | '.join(map(str, row_of_all))} |", flush=True)
                for told in tally.corrupt:
                    print(f"{run.name}: {told}", file=sys.stderr)


def make_runs(place: Path) -> tuple[Run, ...]:
    """Make small data in a folder, and the runs on them."""
    export_coco(ShapeScenes(8, 64, seed=0), place / "scenes", "train")
    export_coco(ShapeScenes(30, 64, seed=1), place / "scenes", "val")
    export_clip(place / "clip.mp4", shape_clip(60, (48, 64)))
    scenes = place / "scenes"
    model = ("--trained_model=yolact_resnet18_shapes", *SMALL, "--engine=eager")
    train = (
        *(*TINY, *SMALL, f"--dataset={scenes}", "--save_folder=out", "--log_folder=out"),
        *("--batch_size=4", "--no_autoscale", "--num_workers=0", "--validation_size=-1"),
        *("--no_report", "--save_interval=1", "--keep_latest", "--set=train.max_iterations=6"),
    )
    score = (*model, f"--dataset={scenes}", "--ap_data_file=out/ap.json", "--no_bar")
    folder = (*model, *SAVED, f"--images={scenes / 'val'}:out")
    video = (*model, *SAVED[:3], f"--video={place / 'clip.mp4'}:out/clip.mp4", "--resume")
    return (
        Run("training", train_script.main, train, "--resume=latest", last_iteration),
        Run("evaluation", eval_script.main, score, "--resume", noted),
        Run("folder", eval_script.main, folder, "--resume", noted),
        Run("video", eval_script.main, video, "--resume", noted),
    )


def kill_often(run: Run, place: Path, kills: int, chance: random.Random) -> Tally:
    """Kill a run so many times, and look at what is left each time."""
    whole, broken, tally = place / run.name / "whole", place / run.name / "broken", Tally()
    first, last = watched(run, whole)
    expected = content(whole / "out")
    while tally.kills < kills:
        shutil.rmtree(broken, ignore_errors=True)
        before, flags, kills_before = 0, run.flags, tally.kills
        while not ends(run, broken, flags, chance.uniform(0.8 * first, last)):
            tally.kills += 1
            done = run.finished(broken / "out")
            tally.early += done == 0
            tally.lost += done < before
            before = done
            look(broken / "out", tally)
            print(f"{run.name}: {tally}", file=sys.stderr, flush=True)
            flags = (*run.flags, run.resume) if done else run.flags
        if tally.kills == kills_before:  # the machine is faster than it was: measure again
            shutil.rmtree(broken)
            first, last = watched(run, broken)
        tally.ended += 1
        found = content(broken / "out")
        unlike = sorted(n for n in found | expected if found.get(n) != expected.get(n))
        tally.equal += not unlike
        tally.unlike += unlike
        print(f"{run.name}: {tally}", file=sys.stderr, flush=True)
    return tally


def watched(run: Run, place: Path) -> tuple[float, float]:
    """Run without a kill; return the seconds until the first result, and until the end."""
    process, begun, first = started(run, place, run.flags), time.monotonic(), None
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if first is None and run.finished(place / "out"):
            first = time.monotonic() - begun
        time.sleep(0.005)
    if first is None or ended[1]:
        raise OSError(f"{run.name} failed: {(place / 'log.txt').read_text()[-500:]}")
    return first, time.monotonic() - begun


def ends(run: Run, place: Path, flags: Sequence[str], seconds: float) -> bool:
    """Run, and kill the process after so many seconds; tell whether it ended before.

    Raises:
        OSError: it failed by itself.
    """
    process, begun = started(run, place, flags), time.monotonic()
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() >= begun + seconds:
            os.kill(process, signal.SIGKILL)
            ended = os.waitpid(process, 0)
            break
        time.sleep(0.005)
    if os.WIFSIGNALED(ended[1]):
        return False
    if ended[1]:
        raise OSError(f"{run.name} failed: {(place / 'log.txt').read_text()[-500:]}")
    return True


def started(run: Run, place: Path, flags: Sequence[str]) -> int:
    """Start a run in a process of its own, which has all modules already; return its number."""
    place.mkdir(parents=True, exist_ok=True)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            code = run_here(run, place, flags)
        finally:  # whatever happens, the rest is the parent's
            os._exit(code)
    return process


def run_here(run: Run, place: Path, flags: Sequence[str]) -> int:
    """Run in this process, in a folder, with all output in log.txt."""
    os.chdir(place)
    logging.getLogger().handlers.clear()
    with Path("log.txt").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            return run_command(run.main, flags)
        except Exception:
            traceback.print_exc()
            return 1


def noted(folder: Path) -> int:
    """Return how many images, frames or parts are noted as finished; all where the end is."""
    if (folder / "ap.json").exists():
        return 10**6
    return sum(len(keys_in(path)) for path in folder.glob(".*.progress"))


def keys_in(path: Path) -> set[str]:
    """Return what is noted in a file of progress, but for the heads.

    Raises:
        ValueError: a line other than the last, which may be cut short, is broken.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    noted = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return {line["key"] for line in noted if line.get("key")}


def last_iteration(folder: Path) -> int:
    """Return the iteration of the newest checkpoint."""
    return max((int(path.stem.split("_")[-1]) for path in folder.glob("*.pth")), default=0)


def look(folder: Path, tally: Tally) -> None:
    """Open every file that has its final name, and those of progress."""
    for path in folder.rglob("*"):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and (path.suffix == ".progress" or not is_hidden):
            tally.opened += 1
            try:
                open_file(path)
            except (ValueError, OSError, KeyError, csv.Error, av.FFmpegError) as error:
                tally.corrupt.append(f"{path.name}: {error}")


def open_file(path: Path) -> None:
    """Read a file as whoever uses it does; of tables all lines but one that is being written.

    Raises:
        ValueError: it is broken; likewise OSError, KeyError, csv.Error, FFmpegError.
    """
    kind = path.suffix
    if kind == ".progress":
        keys_in(path)
    elif kind == ".pth":
        read_checkpoint(path)
    elif kind == ".json":
        json.loads(path.read_text())
    elif kind in (".jsonl", ".log"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                json.loads(line)
    elif kind == ".png" and cv2.imread(str(path)) is None:
        raise ValueError("no picture")
    elif kind == ".mp4":
        with av.open(str(path)) as file:
            next(file.decode(video=0))


def content(folder: Path) -> dict[str, object]:
    """Return all that a run leaves for people: bytes by name, of checkpoints the weights."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".pth":
            checkpoint = read_checkpoint(path)
            found[path.name] = {name: w.numpy().tobytes() for name, w in checkpoint.model.items()}
        elif path.is_file() and path.suffix != ".log" and path.name[0] != ".":
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


if __name__ == "__main__":
    raise SystemExit(run_command(main))
