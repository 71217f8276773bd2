"""The command line of train.py: every flag of the original, and ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .cli import add_flags, add_machine_flags, flag, make_parser

WHAT = (
    flag("--config", "preset; by default that of --resume or --weights, else yolact_base"),
    flag("--dataset", "coco2017, coco2014, pascal_sbd, a folder, a COCO-style .json, or shapes"),
    flag("--weights", "file or released name to start from; what does not fit is listed"),
    flag("--resume", "checkpoint to go on from: a path, 'latest' or 'interrupt'"),
    flag("--start_iter", "iteration to resume at; -1 asks the checkpoint, 0 begins anew", int, -1),
)
HOW = (
    flag("--batch_size", "images per step; the released presets say 8", int),
    flag("--lr --learning_rate", "initial learning rate", float),
    flag("--momentum", "SGD momentum", float),
    flag("--decay --weight_decay", "SGD weight decay", float),
    flag("--gamma", "factor of the learning rate at each step of the schedule", float),
    flag("--no_autoscale", "keep the schedule whatever the batch size", switch="autoscale"),
    flag("--batch_alloc", "run each batch in parts, as in 4,2,2, to save memory"),
    flag("--num_workers", "data loading processes", int, 4),
)
OUTPUT = (
    flag("--save_folder", "for checkpoints", Path, Path("weights")),
    flag("--log_folder", "for <preset>.log", Path, Path("logs")),
    flag("--save_interval", "iterations between checkpoints", int, 10_000),
    flag("--keep_latest", "delete the previous checkpoint after a save ...", bool, False),
    flag("--keep_latest_interval", "... except at multiples of this iteration", int, 100_000),
    flag("--no_interrupt", "save no checkpoint on Ctrl-C", switch="interrupt"),
    flag("--no_log", "write no log file", switch="log"),
    flag("--log_gpu", "show the GPU memory in use", bool, False),
    flag("--validation_size", "images to validate on; -1 for no validation", int, 5000),
    flag("--validation_epoch", "epochs between validations; -1 for only a last one", int, 2),
)


def parse_arguments(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line of train.py."""
    parser = make_parser("train.py", description)
    add_flags(parser, "what to train", WHAT)
    add_flags(parser, "optimisation (by default as the preset says)", HOW)
    add_flags(parser, "what is kept", OUTPUT)
    add_machine_flags(parser)
    return parser.parse_args(argv)
