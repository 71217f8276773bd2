"""The command line of train.py: every flag of the original, and ours."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from yolact import distributed
from yolact.checkpoint import (
    Checkpoint,
    CheckpointName,
    find_checkpoints,
    read_checkpoint,
    resolve_weights,
)
from yolact.config import Config
from yolact.presets import RECIPES, get_config, list_configs
from yolact.training.optim import autoscale, with_iterations

from .common import (
    UsageError,
    add_flags,
    add_machine_flags,
    flag,
    make_parser,
    named_config,
    newest_checkpoint,
    with_settings,
)

_EPOCHS, _LEAST_ITERATIONS = 55, 1000

WHAT = (
    flag("--config", "preset; by default that of --resume or --weights, else yolact_base"),
    flag(
        "--dataset",
        "coco2017, coco2014, pascal_sbd, a folder (COCO, YOLO, labelme, VIA), a .json, or shapes",
    ),
    flag("--weights", "file or released name to start from; what does not fit is listed"),
    flag("--resume", "checkpoint to go on from: a path, 'latest' or 'interrupt'"),
    flag(
        "--recipe",
        "as published, or with clipping, cosine, averaging and copy-paste",
        str,
        choices=RECIPES,
    ),
    flag("--start_iter", "iteration to resume at; -1 asks the checkpoint, 0 begins anew", int, -1),
)
HOW = (
    flag("--epochs", "passes over the images, instead of the preset's iterations", float),
    flag("--batch_size", "images per step; the released presets say 8", int),
    flag("--lr --learning_rate", "initial learning rate", float),
    flag("--momentum", "SGD momentum", float),
    flag("--decay --weight_decay", "SGD weight decay", float),
    flag("--gamma", "factor of the learning rate at each step of the schedule", float),
    flag("--no_autoscale", "keep the schedule whatever the batch size", switch="autoscale"),
    flag("--batch_alloc", "run each batch in parts, as in 4,2,2, to save memory"),
    flag("--accumulate", "the same in so many equal parts", int),
    flag("--num_workers", "data loading processes", int, min(4, os.cpu_count() or 1)),
)
OUTPUT = (
    flag("--name", "of the run, in the names of its files; by default the preset's"),
    flag("--save_folder", "for checkpoints", Path, Path("weights")),
    flag("--log_folder", "for <name>.log and the folder <name>", Path, Path("logs")),
    flag(
        "--save_interval", "iterations between checkpoints: 10000, or a fifth of a shorter run", int
    ),
    flag("--keep_latest", "delete the previous checkpoint after a save ...", bool, False),
    flag("--keep_latest_interval", "... except at multiples of this iteration", int, 100_000),
    flag("--no_interrupt", "save no checkpoint on Ctrl-C", switch="interrupt"),
    flag("--no_log", "write no log file", switch="log"),
    flag("--log_gpu", "show the GPU memory in use", bool, False),
    flag("--validation_size", "images to validate on; -1 for no validation", int, 5000),
    flag(
        "--validation_epoch",
        "epochs between validations, -1 for only a last one; by default 2, or more for small data",
        int,
    ),
    flag("--patience", "stop after so many validations without a better mask AP", int),
    flag("--tensorboard", "write TensorBoard events beside the log", bool, False),
    flag("--no_report", "no description of the data before, no report at the end", switch="report"),
)


def parse_arguments(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line of train.py."""
    parser = make_parser("train.py", description)
    add_flags(parser, "what to train", WHAT)
    add_flags(parser, "optimisation (by default as the preset says)", HOW)
    add_flags(parser, "what is kept", OUTPUT)
    add_machine_flags(parser)
    args = parser.parse_args(argv)
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work, before anything is loaded."""
    for name in ("batch_size", "save_interval", "accumulate", "patience"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name}={value}: expected at least 1")
    if args.epochs is not None and not 0 < args.epochs < math.inf:
        raise UsageError(f"--epochs={args.epochs}: expected more than 0")
    if args.accumulate and args.batch_alloc:
        raise UsageError("--accumulate and --batch_alloc both split the batch: give one of them")
    if args.name is not None and not re.fullmatch(r"\w[\w.-]*", args.name):
        raise UsageError(f"--name={args.name}: expected letters, digits, '_', '-' or '.'")
    if args.num_workers < 0:
        raise UsageError(f"--num_workers={args.num_workers}: expected at least 0")
    if args.precision == "float16":
        raise UsageError("--precision=float16: too narrow for gradients; train with bfloat16")
    if args.resume and args.weights:
        raise UsageError(
            "--resume goes on with a run, --weights starts a new one: give one of them"
        )
    if args.resume and args.recipe:
        raise UsageError("--recipe is for a new run: --resume keeps the recipe of its run")


def resumed_checkpoint(args: argparse.Namespace) -> Checkpoint | None:
    """Find and read the checkpoint that --resume names.

    A run of several processes that `torchrun` had to start anew goes on from its own newest one,
    whatever `--start_iter` said when it began.

    Raises:
        UsageError: there is none.
    """
    if distributed.restarts() and (own := _own_checkpoint(args.save_folder)):
        args.start_iter = -1
        return own
    if not args.resume:
        return None
    path = newest_checkpoint("--resume", args.resume, args.save_folder, run_name(args))
    path = path or Path(args.resume)
    if not path.is_file():
        raise UsageError(f"--resume={args.resume}: no such file, nor 'latest' or 'interrupt'")
    return read_checkpoint(path)


def run_name(args: argparse.Namespace, resumed: Checkpoint | None = None) -> str | None:
    """Return the name that the flags, or the file to go on from, give to a run; None for none."""
    if args.name or args.config:
        return args.name or named_config(args.config).name
    if resumed is None:
        return None
    if resumed.path.stem.endswith("_best"):
        return resumed.path.stem.removesuffix("_best")
    name = CheckpointName.parse(resumed.path)
    return name.run if name else None


def _own_checkpoint(folder: Path) -> Checkpoint | None:
    """Find the newest checkpoint that this run wrote before `torchrun` started it anew."""
    name = distributed.run_name()
    newest_first = map(read_checkpoint, reversed(find_checkpoints(folder, None)) if name else ())
    return next((found for found in newest_first if found.training.get("run") == name), None)


def configure(args: argparse.Namespace, resumed: Checkpoint | None) -> Config:
    """Join the preset, or that of a checkpoint, and the flags to one configuration.

    Raises:
        UsageError: an unknown preset, setting, or impossible value.
    """
    if resumed is not None:
        config = resumed.preset()
        if args.config and named_config(args.config).name != config.name:
            config = named_config(args.config)
    elif args.config or not args.weights:
        config = named_config(args.config or "yolact_base")
    else:
        config = _model_of(read_checkpoint(resolve_weights(args.weights)))
    if resumed is None:
        config = config.override(*RECIPES[args.recipe or "original"])
    schedule = config.train
    if args.batch_size is not None:
        scaled = autoscale(schedule, args.batch_size) if args.autoscale else schedule
        schedule = replace(scaled, batch_size=args.batch_size)
    flags = {
        "learning_rate": args.lr,
        "momentum": args.momentum,
        "weight_decay": args.decay,
        "gamma": args.gamma,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    config = replace(config, train=replace(schedule, **given))
    if args.dataset:
        config = replace(config, dataset=args.dataset)
    changed = with_settings(config, args.set)
    iterations = changed.train.max_iterations
    if resumed is not None or iterations == config.train.max_iterations:
        return changed
    shorter = replace(config, train=with_iterations(config.train, iterations))
    return with_settings(shorter, args.set)


def _model_of(checkpoint: Checkpoint) -> Config:
    """Return the preset of a checkpoint with its model; how that was trained is its own affair."""
    config = checkpoint.preset()
    preset = get_config(config.name) if config.name in list_configs() else Config(config.name)
    return replace(preset, model=config.model, dataset=config.dataset)


def fit_schedule(args: argparse.Namespace, config: Config, images: int) -> Config:
    """Shorten the schedule to --epochs, or to a size that suits a small dataset of one's own.

    COCO's 800,000 iterations are 55 epochs. A dataset that is given by --dataset gets 55 of its own
    epochs, but not fewer than 1000 iterations, unless the flags say how many.
    """
    train = config.train
    if args.epochs is not None:
        iterations = max(round(args.epochs * images / train.batch_size), 1)
    elif not args.dataset or args.resume or any("train.max_iter" in text for text in args.set):
        return config
    else:
        fitting = max(_LEAST_ITERATIONS, _EPOCHS * images // train.batch_size)
        iterations = min(train.max_iterations, fitting)
    return replace(config, train=with_iterations(train, iterations))


def batch_parts(args: argparse.Namespace, batch_size: int) -> list[slice]:
    """Return the parts that --batch_alloc or --accumulate split a batch into.

    Args:
        args: the flags.
        batch_size: of this process.

    Raises:
        UsageError: not numbers that add up to the batch size.
    """
    alloc = args.batch_alloc
    if args.accumulate:
        part = -(-batch_size // args.accumulate)
        sizes = [min(part, batch_size - start) for start in range(0, batch_size, part)]
        return _slices(sizes)
    try:
        sizes = [int(size) for size in alloc.split(",")] if alloc else [batch_size]
    except ValueError:
        raise UsageError(f"--batch_alloc={alloc}: expected numbers, as in 4,2,2") from None
    if min(sizes) < 1 or sum(sizes) != batch_size:
        raise UsageError(f"--batch_alloc={alloc}: must add up to the batch size, {batch_size}")
    return _slices(sizes)


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = list(accumulate(sizes))
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
