"""The command line of eval.py: every flag of the original, and ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from layers.detect import Nms
from yolact.checkpoint import BUNDLED, Checkpoint, resolve_weights
from yolact.config import Config
from yolact.engines.exported import choose_engine_for, read_trained
from yolact.engines.names import Engine, EngineName
from yolact.models.segmenter import MaskMode

from .common import (
    UsageError,
    add_flags,
    add_machine_flags,
    checkpoint_config,
    device_name,
    flag,
    make_parser,
    named_config,
    newest_checkpoint,
    str2bool,
    with_settings,
)

RESULTS = Path("results")


def int_list(text: str) -> tuple[int, ...]:
    """Read "1,4" as (1, 4).

    Raises:
        ValueError: something else, or a number below 1.
    """
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise ValueError
    return numbers


MODEL = (
    flag("--trained_model", ".pth, .xml or .onnx, released name, or 'latest'", str, BUNDLED),
    flag("--config", "preset; where absent, the checkpoint or its file name tells"),
    flag("--top_k", "draw at most this many detections", int, 5),
    flag("--score_threshold", "drop detections that score lower", float, 0.0),
    flag(
        "--fast_nms", "False for exact greedy suppression; by default as the model says", str2bool
    ),
    flag("--cross_class_nms", "Fast NMS over all classes at once; by default likewise", str2bool),
    flag("--engine", "what runs the network", str, "auto", choices=get_args(EngineName)),
    flag("--detect", "boxes only, no masks", bool, False),
    flag("--no_crop", "do not crop masks by their boxes", switch="crop"),
    flag("--smooth_masks", "crop them at image scale: no stairs, no cut edges", bool, False),
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
    flag("--display_fps", "write the speed into a video, and the delay of a camera", bool, False),
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
    flag("--json", "also write the AP, or what --benchmark measures, to this file", Path),
    flag("--report", "also write tables, curves, worst images and index.html to this folder", Path),
    flag("--report_threshold", "score that counts there; by default that of the best F1", float),
    flag("--no_bar", "show no progress bar", switch="bar"),
    flag("--ap_data_file", "where detections are kept", Path, RESULTS / "ap_data.json"),
    flag("--resume", "compute the AP of --ap_data_file, without the network", bool, False),
    flag("--output_coco_json", "write COCO result files instead of an AP", bool, False),
    flag("--bbox_det_file", "COCO results of boxes", Path, RESULTS / "bbox_detections.json"),
    flag("--mask_det_file", "COCO results of masks", Path, RESULTS / "mask_detections.json"),
    flag("--output_web_json", "write the file of the original's web viewer", bool, False),
    flag("--web_det_path", "folder for it", Path, Path("web/dets")),
)
SPEED = (
    flag(
        "--benchmark",
        "measure the speed, on images of the dataset or frames of --video; 'all': of every engine",
        nargs="?",
        const="one",
        choices=("one", "all"),
    ),
    flag(
        "--compare",
        "measure another variant in turn, as in --compare engine=eager,precision=float32; repeat",
        str,
        [],
        action="append",
        metavar="FLAG=VALUE,...",
    ),
    flag("--batch_sizes", "with --benchmark: for the network alone, as in 1,4", int_list, (1,)),
)

# What --benchmark=all compares.
EVERY_ENGINE = (
    "engine=plain,precision=float32",
    "engine=eager,precision=float32",
    "engine=eager,precision=bfloat16",
    "engine=compile,precision=bfloat16",
    "engine=openvino,precision=float32",
    "engine=openvino,precision=bfloat16",
)
COMPARABLE = ("trained_model", "config", "engine", "precision", "device", "video_multiframe")


def parse_arguments(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line of eval.py."""
    parser = make_parser("eval.py", description)
    add_flags(parser, "model", MODEL)
    add_flags(parser, "input (without any of these: a dataset)", INPUT)
    add_flags(parser, "drawing", DRAWING)
    add_flags(parser, "evaluation on a dataset", METRICS)
    add_flags(parser, "speed", SPEED)
    add_machine_flags(parser)
    args = parser.parse_args(argv)
    check_ranges(args)
    if args.compare:
        args.benchmark = args.benchmark or "one"
    if args.benchmark and (args.image or args.images):
        raise UsageError("--benchmark takes the images of a --dataset, or the frames of a --video")
    if not args.benchmark and args.batch_sizes != (1,):
        raise UsageError("--batch_sizes is for --benchmark: add it")
    if args.smooth_masks and (args.engine == "plain" or not args.crop):
        raise UsageError("--smooth_masks: not with --engine=plain, nor with --no_crop")
    _check_ap_files(args)
    return args


def _check_ap_files(args: argparse.Namespace) -> None:
    """Refuse files about an AP where none is computed."""
    elsewhere = args.image or args.images or args.video or args.benchmark
    instead = args.output_coco_json or args.output_web_json
    if args.report and (elsewhere or instead):
        raise UsageError("--report is for an AP: give a --dataset, and no other output")
    if args.json and not args.benchmark and (elsewhere or instead):
        raise UsageError("--json is for an AP or for --benchmark")
    if args.report and args.report.is_file():
        raise UsageError(f"--report={args.report}: expected a folder, and this is a file")
    threshold = args.report_threshold
    if threshold is not None and not (args.report and 0 <= threshold <= 1):
        raise UsageError(f"--report_threshold={threshold}: expected 0 to 1, with --report")


def check_ranges(args: argparse.Namespace) -> None:
    """Refuse numbers that make no sense."""
    for name, least in (("top_k", 1), ("max_images", -1), ("video_multiframe", 1)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name}={getattr(args, name)}: expected at least {least}")


def compared(args: argparse.Namespace) -> list[argparse.Namespace]:
    """Return the arguments of every variant that a benchmark compares.

    A single --compare is compared with the flags as given.

    Raises:
        UsageError: --compare with something that cannot be compared.
    """
    texts = [*(EVERY_ENGINE if args.benchmark == "all" else ()), *args.compare]
    return [_changed(args, text) for text in (texts if len(texts) > 1 else ["", *texts])]


def _changed(args: argparse.Namespace, text: str) -> argparse.Namespace:
    changed = argparse.Namespace(**vars(args))
    for assignment in filter(None, text.split(",")):
        name, _, value = assignment.partition("=")
        if name not in COMPARABLE:
            raise UsageError(f"--compare {text}: {name!r} is none of {', '.join(COMPARABLE)}")
        if isinstance(getattr(args, name), int) and not value.isdecimal():
            raise UsageError(f"--compare {text}: {value!r} is no number")
        setattr(changed, name, type(getattr(args, name) or "")(value))
    check_ranges(changed)
    return changed


def choose_model(args: argparse.Namespace) -> tuple[Checkpoint, Config]:
    """Read the checkpoint, and join its configuration with the flags.

    Raises:
        UsageError: an unknown preset, setting, or impossible value.
    """
    name = named_config(args.config).name if args.config else None
    path = newest_checkpoint("--trained_model", args.trained_model, Path("weights"), name)
    checkpoint = read_trained(path or resolve_weights(args.trained_model))
    config = checkpoint_config(checkpoint, args.config)
    nms = chosen_nms(args.fast_nms, args.cross_class_nms, config.detect.nms)
    changes = [f"detect.nms={nms}"]
    if args.dataset:
        changes.append(f"dataset={args.dataset}")
    return checkpoint, with_settings(config, [*changes, *args.set])


def chosen_nms(fast: bool | None, cross_class: bool | None, own: Nms) -> Nms:
    """Return the kind of suppression: the model's own, but for what the flags really say.

    Args:
        fast: --fast_nms; None where it is not given.
        cross_class: --cross_class_nms; likewise.
        own: the one that the model was saved with.
    """
    if fast is False:
        return "greedy"
    if cross_class:
        return "cross_class"
    return "fast" if fast or (own == "cross_class" and cross_class is False) else own


def mask_mode(args: argparse.Namespace) -> MaskMode:
    """Return the kind of masks that the flags ask for."""
    if args.detect:
        return "none"
    if not args.crop:
        return "whole"
    return "smooth" if args.smooth_masks else "cropped"


def engine_for(args: argparse.Namespace, checkpoint: Checkpoint, config: Config) -> Engine:
    """Decide how to run the network.

    An AP is a number that others compare with, so left open it is computed in float32 whatever the
    machine; an exported file runs on the CPU.
    """
    precision = args.precision
    for_people = args.image or args.images or args.video or args.benchmark
    if precision == "auto" and not for_people:
        precision = "float32"
    return choose_engine_for(checkpoint.path, config, device_name(args), args.engine, precision)
