"""The command line of train.py: every flag of the original, and ours."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path

from yolact import distributed
from yolact.checkpoint import Checkpoint, read_checkpoint, resolve_weights
from yolact.config import Config, TrainConfig, check_run_name
from yolact.errors import UsageError
from yolact.presets import RECIPES, get_config, list_configs
from yolact.runs.names import CheckpointName, find_checkpoints
from yolact.timm_networks import TIMM_PREFIX
from yolact.training.optim import autoscale, with_iterations
from yolact.training.options import TrainOptions, check_settings

from .common import (
    DATA,
    add_flags,
    add_machine_flags,
    at_least,
    checkpoint_config,
    device_name,
    flag,
    make_parser,
    named_config,
    newest_checkpoint,
    str2bool,
    with_data,
    with_settings,
    writable_folder,
)

logger = logging.getLogger(__name__)

WHAT = (
    flag("--config", "preset; by default that of --resume or --weights, else yolact_base"),
    flag(
        "--dataset",
        "coco2017, coco2014, pascal_sbd, a folder (COCO, YOLO, CVAT, ...), a .json, or shapes",
    ),
    flag("--weights", "file, name or hf:owner/name to start from; lists tensors that do not fit"),
    flag("--backbone_weights", "file with ImageNet weights of a timm/... backbone", Path),
    flag("--resume", "checkpoint to continue from: a path, 'latest' or 'interrupt'"),
    flag(
        "--recipe",
        "original: the preset's own; modern: AdamW, gradient clipping, cosine schedule, weight "
        "averaging and copy-paste",
        str,
        choices=RECIPES,
    ),
    flag("--start_iter", "iteration to resume at; -1: the checkpoint's, 0: the start", int, -1),
)
HOW = (
    flag("--epochs", "passes over the images, instead of the preset's iterations", float),
    flag("--batch_size", "images per step; 8 in the released presets", int),
    flag("--lr --learning_rate", "initial learning rate", float),
    flag("--momentum", "SGD momentum", float),
    flag("--decay --weight_decay", "weight decay, for SGD and AdamW", float),
    flag("--gamma", "factor of the learning rate at each step of the schedule", float),
    flag("--no_autoscale", "do not adapt the schedule to the batch size", switch="autoscale"),
    flag("--batch_alloc", "run each batch in parts of these sizes, such as 4,2,2, to save memory"),
    flag("--accumulate", "run each batch in this many equal parts, to save memory", int),
    flag("--num_workers", "data loading processes", int, min(4, os.cpu_count() or 1)),
)
OUTPUT = (
    flag("--name", "name of the run and of its files; by default the preset's"),
    flag("--save_folder", "folder for checkpoints", Path, Path("weights")),
    flag("--log_folder", "folder for <name>.log and the folder <name>", Path, Path("logs")),
    flag(
        "--save_interval",
        "iterations between checkpoints; by default 10000, or a fifth of a shorter run",
        int,
    ),
    flag("--keep_latest", "after each save, delete the previous checkpoint", str2bool, False),
    flag(
        "--keep_latest_interval",
        "with --keep_latest: keep checkpoints at multiples of this iteration",
        int,
        100_000,
    ),
    flag("--no_interrupt", "save no checkpoint on Ctrl-C", switch="interrupt"),
    flag("--no_log", "write no log file", switch="log"),
    flag("--log_gpu", "show the GPU memory in use", bool, False),
    flag("--validation_size", "images to validate on; -1 for no validation", int, 5000),
    flag(
        "--validation_epoch",
        "epochs between validations, -1: only one, at the end; by default 2, or more for small "
        "data",
        int,
    ),
    flag("--patience", "stop after this many validations without a better mask AP", int),
    flag("--tensorboard", "write TensorBoard events beside the log", str2bool, False),
    flag("--no_report", "write no dataset report before and no report at the end", switch="report"),
)

# Those that a checkpoint keeps for --resume, unless they are given anew.
KEPT = (
    *("accumulate", "batch_alloc", "precision", "validation_size", "validation_epoch", "patience"),
    *("save_interval", "keep_latest", "keep_latest_interval", "tensorboard"),
)

Start = tuple[Config, TrainOptions, Checkpoint | None]


def parse_arguments(description: str | None, argv: Sequence[str] | None) -> Start:
    """Read the command line of train.py.

    Returns:
        The configuration, the other options, and the checkpoint to continue from or to take
        weights from, if any.

    Raises:
        UsageError: flags that contradict each other, an unknown preset or setting, or a checkpoint
            to resume from that does not exist.
    """
    parser = make_parser("train.py", description)
    add_flags(parser, "what to train", WHAT)
    add_flags(parser, "how annotations are used (by default as published)", DATA)
    add_flags(parser, "optimisation (by default the preset's)", HOW)
    add_flags(parser, "output and validation", OUTPUT)
    add_machine_flags(parser)
    args = parser.parse_args(argv)
    _check(args)
    _check_name(args.name)
    restarted = _restarted_checkpoint(args.save_folder)
    resumed = restarted or resumed_checkpoint(args)
    checkpoint = resumed
    if resumed is not None and (kept := kept_flags(resumed, args)):
        began = parser.parse_args(kept)
        args = parser.parse_args([*kept, *(sys.argv[1:] if argv is None else argv)])
        _check(args)
        names = [text.removeprefix("--").partition("=")[0] for text in kept]
        same = [getattr(args, name) == getattr(began, name) for name in names]
        logger.info("as the run began: %s", " ".join(compress(kept, same)) or "no flag")
    if resumed is None and args.weights:
        checkpoint = read_checkpoint(resolve_weights(args.weights))
    config = configure(args, checkpoint, resumed is not None)
    check_settings(config)
    if (
        args.backbone_weights
        and not restarted
        and (
            checkpoint is not None
            or not config.model.backbone.startswith(TIMM_PREFIX)
            or not config.train.pretrained_backbone
        )
    ):
        raise UsageError(
            f"--backbone_weights={args.backbone_weights}: only for a new model with a timm/... "
            "backbone; --weights and --resume bring their own"
        )
    name = run_name(args, resumed) or config.name
    # A restarted run continues, whatever --start_iter was when it began.
    start_iteration = -1 if restarted else args.start_iter
    options = _options(args, name, resumed is not None, start_iteration)
    values = {key: getattr(args, key) for key in KEPT}
    flags = {key: value for key, value in values.items() if value != parser.get_default(key)}
    return config, replace(options, flags=flags), checkpoint


def kept_flags(resumed: Checkpoint, given: argparse.Namespace) -> list[str]:
    """Return what a run was started with, as a command line of `KEPT` flags.

    Args:
        resumed: its checkpoint; in a stranger's file the values may be anything.
        given: the flags of today, of which one way to split a batch replaces the other.
    """
    stored = resumed.training.get("flags")
    stored = stored if isinstance(stored, Mapping) else {}
    replaced = ("accumulate", "batch_alloc") if given.accumulate or given.batch_alloc else ()
    values = {name: stored[name] for name in KEPT if name in stored and name not in replaced}
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in values.items()
        if type(value) in (bool, int, str)
    ]


def _check_name(name: str | None) -> None:
    if name is None:
        return
    try:
        check_run_name(name, "--name")
    except ValueError as error:
        raise UsageError(str(error)) from None


def _check(args: argparse.Namespace) -> None:
    """Refuse values and flags that cannot work, before anything is loaded."""
    writable_folder("--save_folder", args.save_folder)
    writable_folder("--log_folder", args.log_folder)
    at_least(args, batch_size=1, save_interval=1, accumulate=1, patience=1, num_workers=0)
    if args.epochs is not None and not 0 < args.epochs < math.inf:
        raise UsageError(f"--epochs={args.epochs}: expected more than 0")
    if args.accumulate and args.batch_alloc:
        raise UsageError("--accumulate and --batch_alloc both split the batch: give one of them")
    if args.resume and args.weights:
        raise UsageError(
            "--resume goes on with a run, --weights starts a new one: give one of them"
        )
    if args.resume and args.recipe:
        raise UsageError("--recipe is for a new run: --resume keeps the recipe of its run")
    _check_pairs(args)


def _check_pairs(args: argparse.Namespace) -> None:
    """Refuse pairs of flags where one leaves the other without effect."""
    if args.patience and args.validation_epoch is not None and args.validation_epoch < 1:
        raise UsageError(
            f"--patience={args.patience} needs several validations: with "
            f"--validation_epoch={args.validation_epoch} there is only the last"
        )
    if args.tensorboard and not args.log:
        raise UsageError("--tensorboard writes beside the log: leave out --no_log")
    if args.epochs is not None and any("train.max_iter" in text for text in args.set):
        raise UsageError("--epochs and train.max_iterations both set the length: give one of them")


def _options(
    args: argparse.Namespace, name: str, resume: bool, start_iteration: int
) -> TrainOptions:
    set_iterations = any("train.max_iter" in text for text in args.set)
    return TrainOptions(
        name=name,
        resume=resume,
        backbone_weights=args.backbone_weights,
        start_iteration=start_iteration,
        epochs=args.epochs,
        shorten=bool(args.dataset) and not resume and not set_iterations,
        device=device_name(args),
        precision=args.precision,
        batch_alloc=_batch_alloc(args.batch_alloc),
        accumulate=args.accumulate,
        num_workers=args.num_workers,
        save_folder=args.save_folder,
        log_folder=args.log_folder,
        save_interval=args.save_interval,
        keep_latest=args.keep_latest,
        keep_latest_interval=args.keep_latest_interval,
        interrupt=args.interrupt,
        log=args.log,
        log_gpu=args.log_gpu,
        validation_size=args.validation_size,
        validation_epoch=args.validation_epoch,
        patience=args.patience,
        tensorboard=args.tensorboard,
        report=args.report,
        arguments=vars(args),
    )


def _batch_alloc(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(","))) if text else ()
    except ValueError:
        raise UsageError(f"--batch_alloc={text}: expected numbers, as in 4,2,2") from None


def resumed_checkpoint(args: argparse.Namespace) -> Checkpoint | None:
    """Read the checkpoint that --resume names, if it is given.

    Raises:
        UsageError: the checkpoint does not exist.
    """
    if not args.resume:
        return None
    path = newest_checkpoint("--resume", args.resume, args.save_folder, run_name(args))
    path = path or Path(args.resume)
    if not path.is_file():
        raise UsageError(f"--resume={args.resume}: no such file, nor 'latest' or 'interrupt'")
    return read_checkpoint(path)


def _restarted_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that this run wrote before `torchrun` started it anew."""
    name = distributed.run_name()
    if not (name and distributed.restarts()):
        return None
    newest_first = map(read_checkpoint, reversed(find_checkpoints(folder, None)))
    return next((found for found in newest_first if found.training.get("run") == name), None)


def run_name(args: argparse.Namespace, resumed: Checkpoint | None = None) -> str | None:
    """Return a run's name, from the flags or the checkpoint that it continues; None for none."""
    if args.name or args.config:
        return args.name or named_config(args.config).name
    if resumed is None:
        return None
    if resumed.path.stem.endswith("_best"):
        return resumed.path.stem.removesuffix("_best")
    name = CheckpointName.parse(resumed.path)
    return name.run if name else None


def configure(args: argparse.Namespace, checkpoint: Checkpoint | None, resume: bool) -> Config:
    """Join a preset, or the configuration of a checkpoint, with the flags.

    Args:
        args: the flags.
        checkpoint: of --resume or --weights, if any.
        resume: take over the checkpoint's training settings as well, not only its model.

    Raises:
        UsageError: an unknown preset or setting, or an impossible value.
    """
    config = _preset(args.config, checkpoint, resume)
    images = config.train.batch_size
    if not resume:
        config = config.override(*RECIPES[args.recipe or "original"])
    config = replace(config, train=_schedule(args, config.train))
    before = config.data.val
    config = with_data(config, args)
    if resume and args.val not in (None, before):
        raise UsageError(
            f"--val={args.val}: --resume keeps to {before or 'the split of its run'}, or "
            "trained images would validate; --weights starts a new run"
        )
    changed = with_settings(config, args.set)
    known = checkpoint is not None and checkpoint.config is not None  # files of 2019 do not tell
    if resume and known and args.start_iter == -1 and changed.train.batch_size != images:
        raise UsageError(
            f"--batch_size={changed.train.batch_size}: --resume counts on in steps of {images} "
            "images; --accumulate runs them in parts, --weights starts a new run"
        )
    iterations = changed.train.max_iterations
    if resume or iterations == config.train.max_iterations:
        return changed
    shorter = replace(config, train=with_iterations(config.train, iterations))
    return with_settings(shorter, args.set)


def _preset(name: str | None, checkpoint: Checkpoint | None, resume: bool) -> Config:
    if checkpoint is None or (name and not resume):
        return named_config(name or "yolact_base")
    config = checkpoint_config(checkpoint, None)
    if not resume:
        known = get_config(config.name) if config.name in list_configs() else Config(config.name)
        return replace(known, model=config.model, dataset=config.dataset, data=config.data)
    return named_config(name) if name and named_config(name).name != config.name else config


def _schedule(args: argparse.Namespace, train: TrainConfig) -> TrainConfig:
    if args.batch_size is not None:
        scaled = autoscale(train, args.batch_size) if args.autoscale else train
        train = replace(scaled, batch_size=args.batch_size)
    flags = {
        "learning_rate": args.lr,
        "momentum": args.momentum,
        "weight_decay": args.decay,
        "gamma": args.gamma,
    }
    return replace(train, **{name: value for name, value in flags.items() if value is not None})
