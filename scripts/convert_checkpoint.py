"""Convert checkpoints: those of 2019 to ours and back, without loss, and other projects' to ours.

A target such as hf:owner/name is uploaded to the Hugging Face hub.

The project is recognised by the file's tensors: mmdetection, YolactEdge, Yolact_minimal, or YOLACT
of 2019.
Datasets are converted by convert_dataset.py; `yolact convert` does both, datasets with --format.

Examples:
  python scripts/convert_checkpoint.py yolact_base_54_800000.pth ours.pth
  python scripts/convert_checkpoint.py yolact_r50_1x8_coco_20200908-f38d58df.pth ours.pth
  python scripts/convert_checkpoint.py ours.pth yolact_base_54_800000.pth --to=official
  python scripts/convert_checkpoint.py mine_4_2000.pth mine.pth --half --set dataset=coco2017
  python scripts/convert_checkpoint.py before.pth mine.pth --average=fine_tuned.pth --share=0.3
  python scripts/convert_checkpoint.py mine.pth my_model --to=folder
  python scripts/convert_checkpoint.py mine.pth hf:owner/name --half --private
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from yolact import build_model
from yolact.checkpoint import (
    Checkpoint,
    load_weights,
    read_checkpoint,
    resolve_weights,
    save_checkpoint,
    write_atomically,
)
from yolact.cli.common import (
    SETTING,
    add_flags,
    checkpoint_config,
    chosen_weights,
    flag,
    make_parser,
    run_command,
    with_settings,
)
from yolact.config import Config
from yolact.errors import UsageError
from yolact.formats.official import check_official, to_official
from yolact.hub.client import PREFIX
from yolact.hub.folder import WEIGHTS_FILE
from yolact.models.segmenter import AnySegmenter


def main(argv: Sequence[str] | None = None) -> None:
    """Convert one file."""
    parser = make_parser("convert_checkpoint.py", __doc__)
    parser.add_argument("source", help="checkpoint to read, or a released name")
    parser.add_argument("target", help="file or folder to write, or hf:owner/name")
    add_flags(
        parser,
        "options",
        (
            flag(
                "--to",
                "ours: our file; official: file of 2019; folder: as on the Hugging Face hub",
                str,
                "ours",
                choices=("ours", "official", "folder"),
            ),
            flag("--config", "preset, if neither the file nor its name determines it"),
            flag("--half", "store weights as float16, without what --resume needs", bool),
            flag(
                "--average",
                "other weights of the same network, to average with; the result cannot be resumed",
            ),
            flag("--share", "weight of the source file in the average; by default 0.5", float),
            flag("--private", "make a new repository on the hub private", bool),
            SETTING,
        ),
    )
    args = parser.parse_args(argv)
    if args.half and args.to == "official":
        raise UsageError("--half is for our own files; official ones are float32")
    if args.target.startswith(PREFIX) and args.to == "official":
        raise UsageError(f"{args.target}: only models of ours are uploaded; leave out --to")
    if args.share is not None and not args.average:
        raise UsageError(f"--share={args.share:g} is of an average: give --average, too")
    if args.private and not args.target.startswith(PREFIX):
        raise UsageError(f"--private is for the hub: {args.target} is not hf:owner/name")
    source = Path(args.source)
    is_folder = source.is_dir() and not (source / WEIGHTS_FILE).is_file()
    if is_folder or args.source.endswith((".json", ".yaml", ".yml")):
        raise UsageError(f"{args.source} is no checkpoint: to convert a dataset, add --format=")
    checkpoint = read_checkpoint(chosen_weights("source", args.source))
    config = with_settings(checkpoint_config(checkpoint, args.config), args.set)
    if args.to == "official":
        check_official(config.model)
    model = build_model(config)
    load_weights(model, checkpoint)
    if args.average:
        share = 0.5 if args.share is None else args.share
        other = read_checkpoint(resolve_weights(args.average))
        refuse_others(config, other)
        average(model, other, share)
        larger = checkpoint if share >= 0.5 else other
        checkpoint = replace(checkpoint, training={}, made_by=larger.made_by)
    print(_write(args, model, config, checkpoint))


_MAY_DIFFER = ("image_size", "keep_aspect")  # of models whose weights are averaged


def refuse_others(config: Config, other: Checkpoint) -> None:
    """Refuse to average with a checkpoint whose weights mean something else.

    Raises:
        ValueError: it says so; the first difference is named.
    """
    theirs = vars(other.config.model) if other.config is not None else {}
    for name, value in vars(config.model).items():
        if name in theirs and theirs[name] != value and name not in _MAY_DIFFER:
            shown = f"{name}={theirs[name]!s:.60}, not {value!s:.60}"
            raise ValueError(f"--average={other.path}: its model has {shown}")


@torch.no_grad()
def average(model: AnySegmenter, other: Checkpoint, share: float) -> None:
    """Average a model's weights with those of a checkpoint (Wortsman et al. 2022, WiSE-FT).

    What was fine-tuned and what it was fine-tuned from are often best halfway between the two.

    Args:
        model: changed in place.
        other: weights of the same network.
        share: of the model's own, in [0, 1].

    Raises:
        UsageError: the share is none.
        ValueError: the checkpoint is of another network.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"--share={share:g}: expected a number from 0 to 1")
    own = {name: value.clone() for name, value in model.state_dict().items()}
    load_weights(model, other)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.lerp_(own[name], share)


def _write(
    args: argparse.Namespace, model: AnySegmenter, config: Config, checkpoint: Checkpoint
) -> str | Path:
    """Write what the flags say; return where it is."""
    if args.target.startswith(PREFIX):
        repository = args.target.removeprefix(PREFIX)
        return model.push_to_hub(repository, private=args.private or None, half=args.half)
    target = Path(args.target)
    if args.to == "folder":
        return model.save_pretrained(target, half=args.half)
    if args.to == "official":
        write_atomically(target, to_official(model.state_dict()))
    else:
        training = {} if args.half else checkpoint.training
        save_checkpoint(target, model, config, training, args.half, checkpoint.made_by)
    return target


if __name__ == "__main__":
    raise SystemExit(run_command(main))
