"""The command line of eval.py: every flag of the original, and ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .checkpoint import BUNDLED, Checkpoint, read_checkpoint, resolve_weights
from .cli import (
    UsageError,
    add_flags,
    add_machine_flags,
    flag,
    make_parser,
    named_config,
    newest_checkpoint,
    str2bool,
    with_settings,
)
from .config import Config

RESULTS = Path("results")

MODEL = (
    flag("--trained_model", "file, released name, 'latest' or 'interrupt'", str, BUNDLED),
    flag("--config", "preset; where absent, the checkpoint or its file name tells"),
    flag("--top_k", "draw at most this many detections", int, 5),
    flag("--score_threshold", "drop detections that score lower", float, 0.0),
    flag("--fast_nms", "False for exact greedy suppression", str2bool, True),
    flag("--cross_class_nms", "Fast NMS over all classes at once", str2bool, False),
    flag("--detect", "boxes only, no masks", bool, False),
    flag("--no_crop", "do not crop masks by their boxes", switch="crop"),
)
INPUT = (
    flag("--image", "IN[:OUT], one image; shown, or written where there is no display"),
    flag("--images", "IN[:OUT], a folder or a pattern such as 'in/*.jpg'"),
    flag("--video", "IN[:OUT], a file, the number of a webcam, or a stream's address"),
    flag("--video_multiframe", "frames for each run of the network", int, 1),
    flag("--emulate_playback", "read a video file no faster than it plays", bool, False),
    flag("--dataset", "as in train.py; by default the one that the model was trained on"),
)
DRAWING = (
    flag("--display_masks", "draw masks", str2bool, True),
    flag("--display_bboxes", "draw boxes", str2bool, True),
    flag("--display_text", "draw class names", str2bool, True),
    flag("--display_scores", "draw scores", str2bool, True),
    flag("--display_fps", "write the speed into a video", bool, False),
    flag("--display", "show each image of the dataset in a window", bool, False),
    flag("--display_lincomb", "with --image: draw how each mask came about", str2bool, False),
    flag("--mask_proto_debug", "with --image: write results/proto.npy and masks.npy", bool, False),
)
METRICS = (
    flag("--max_images", "stop after this many; -1 for all", int, -1),
    flag("--shuffle", "take the images in random order", bool, False),
    flag("--seed", "of the random order", int),
    flag("--no_sort", "take them as listed, not by a hash that mixes them", bool, False),
    flag("--per_class", "also print the AP of every class", bool, False),
    flag("--benchmark", "measure the speed instead of the AP", bool, False),
    flag("--no_bar", "show no progress bar", switch="bar"),
    flag("--ap_data_file", "where detections are kept", Path, RESULTS / "ap_data.json"),
    flag("--resume", "compute the AP of --ap_data_file, without the network", bool, False),
    flag("--output_coco_json", "write COCO result files instead of an AP", bool, False),
    flag("--bbox_det_file", "COCO results of boxes", Path, RESULTS / "bbox_detections.json"),
    flag("--mask_det_file", "COCO results of masks", Path, RESULTS / "mask_detections.json"),
    flag("--output_web_json", "write the file of the original's web viewer", bool, False),
    flag("--web_det_path", "folder for it", Path, Path("web/dets")),
)


def parse_arguments(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line of eval.py."""
    parser = make_parser("eval.py", description)
    add_flags(parser, "model", MODEL)
    add_flags(parser, "input (without any of these: a dataset)", INPUT)
    add_flags(parser, "drawing", DRAWING)
    add_flags(parser, "evaluation on a dataset", METRICS)
    add_machine_flags(parser)
    args = parser.parse_args(argv)
    for name, least in (("top_k", 1), ("max_images", -1), ("video_multiframe", 1)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name}={getattr(args, name)}: expected at least {least}")
    return args


def choose_model(args: argparse.Namespace) -> tuple[Checkpoint, Config]:
    """Read the checkpoint, and join its configuration with the flags.

    Raises:
        UsageError: an unknown preset, setting, or impossible value.
    """
    folder = Path("weights")
    path = newest_checkpoint("--trained_model", args.trained_model, folder, args.config)
    checkpoint = read_checkpoint(path or resolve_weights(args.trained_model))
    config = checkpoint.config
    if args.config and (config is None or config.name != named_config(args.config).name):
        config = named_config(args.config)
    config = config or checkpoint.preset()
    nms = "cross_class" if args.cross_class_nms else "fast"
    changes = [f"detect.nms={nms if args.fast_nms else 'greedy'}"]
    if args.dataset:
        changes.append(f"dataset={args.dataset}")
    return checkpoint, with_settings(config, [*changes, *args.set])
