"""The command line of eval.py: every flag of the original, and ours."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import get_args

from data.sample import Dataset
from data.video.formats import RawFormat
from data.video.reader import TIMEOUT
from yolact.checkpoint import BUNDLED
from yolact.config import Config
from yolact.engines.names import EngineName
from yolact.errors import OptionError, UsageError
from yolact.evaluation.coco import eval_order
from yolact.report.write import MAX_SHOWN
from yolact.results.thresholds import Thresholds
from yolact.tiles.segment import Tiling
from yolact.video.keyframes import KeyFrameOption, check_keyframes

from .common import DATA, Flag, add_flags, add_machine_flags, at_least, flag, make_parser, str2bool
from .evaluate import Outputs
from .modes import mode_of, refuse_idle_flags, refuse_useless_pairs
from .output_names import RESULTS
from .predict import VideoOptions


def int_list(text: str) -> tuple[int, ...]:
    """Read "1,4" as (1, 4).

    Raises:
        ValueError: something else, or a number below 1.
    """
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise ValueError
    return numbers


def word_list(text: str) -> list[str]:
    """Read "person,dog" as ["person", "dog"]."""
    return [word.strip() for word in text.split(",")]


def tile_side(text: str) -> float:
    """Read "320" as pixels, or "0.5" as a part of an image's longer side."""
    try:
        side = float(text)
    except ValueError:
        expected = "expected pixels, as 1024, or a part of the longer side, as 0.5"
        raise argparse.ArgumentTypeError(f"{text!r}: {expected}") from None
    return int(side) if side.is_integer() else side


TO_OUTPUT = Path("-")
"""Stands for standard output."""

MODEL = (
    flag(
        "--trained_model",
        ".pth, .xml or .onnx, folder, released name, hf:owner/name, or 'latest'",
        str,
        BUNDLED,
    ),
    flag("--config", "preset; by default taken from the checkpoint or its file name"),
    flag("--top_k", "draw at most this many detections; by default all, 5 for --benchmark", int),
    flag("--max_detections", "most detections per image, also in the AP; by default 100", int),
    flag(
        "--score_threshold",
        "drop detections with lower scores; by default the model's own threshold for pictures and "
        "videos, 0 for the AP and --benchmark",
        float,
    ),
    flag("--classes", "draw only these classes, such as person,dog; by default all", word_list),
    flag("--fast_nms", "False: exact greedy NMS; by default the model's setting", str2bool),
    flag(
        "--cross_class_nms",
        "Fast NMS over all classes at once; by default the model's setting",
        str2bool,
    ),
    flag("--engine", "engine that runs the network", str, "auto", choices=get_args(EngineName)),
    flag("--detect", "boxes only, no masks", bool, False),
    flag("--agnostic_nms", "the same as --cross_class_nms", bool),
    flag("--min_area", "show only objects with at least this many mask pixels", int, 0),
    flag("--no_crop", "do not crop masks by their boxes", switch="crop"),
    flag("--smooth_masks", "crop masks at image scale: no stairs, no cut edges", bool, False),
)
INPUT = (
    flag(
        "--image",
        "IN[:OUT], a file or https address; without OUT, shown in a window, or written to a file "
        "if there is no display",
    ),
    flag("--images", "IN[:OUT], a folder and its subfolders, or a pattern such as 'in/**/*.jpg'"),
    flag(
        "--video",
        "IN[:OUT], a file, the number of a webcam, a stream's address, - for standard input, or "
        "numbered images: their folder, or a pattern such as frames/%%06d.png",
    ),
    flag("--timeout", "give up a stream after this many seconds without data", float, TIMEOUT),
    flag("--raw", "WxH@FPS[:PIXELS] of a video without a header, such as 640x480@30:bgr24"),
    flag("--overwrite", "allow a result to replace its own input", bool, False),
    flag("--video_multiframe", "frames per network batch", int, 1),
    flag(
        "--keyframes",
        "run the network on every Nth frame of a video, or on frames chosen by 'auto', and carry "
        "its results to the others; by default 'off', or 'auto' for a camera faster than the "
        "network",
    ),
    flag("--track", "give the objects of a video lasting ids, and smooth their masks", bool, False),
    flag("--emulate_playback", "read a video file no faster than it plays", bool, False),
    flag("--dataset", "as in train.py; by default the dataset that the model was trained on"),
)
TILES = (
    flag("--tile", "tile side in pixels, or below 1 as a part of the longer side: 0.5", tile_side),
    flag("--overlap", "minimum overlap of neighbouring tiles, as a share of a tile", float, 0.2),
    flag("--no_overview", "segment the tiles only, not the whole image too", switch="overview"),
    flag("--max_pixels", "refuse images with more pixels; by default 178 million", int),
)
DRAWING = (
    flag("--display_masks", "draw masks", str2bool, True),
    flag("--display_bboxes", "draw boxes", str2bool, True),
    flag("--display_text", "draw class names", str2bool, True),
    flag("--display_scores", "draw scores", str2bool, True),
    flag(
        "--color",
        "one colour per class or per object; by default what suits the input",
        choices=("class", "instance"),
    ),
    flag("--display_fps", "draw the speed into a video, for a camera also the delay", bool, False),
    flag("--display", "show each image of the dataset in a window", bool, False),
    flag("--display_lincomb", "with --image: draw each mask's prototypes", str2bool, False),
    flag("--mask_proto_debug", "with --image: write results/proto.npy and masks.npy", bool, False),
)
SAVING = (
    flag("--save_json", "json/NAME.json; for a video one line of JSON per frame", bool),
    flag("--save_csv", "a table of all objects", bool),
    flag("--save_coco", "COCO annotations of all images, to train on or to correct", bool),
    flag("--save_txt", "labels/NAME.txt, YOLO segmentation", bool),
    flag("--save_labelme", "NAME.json for labelme; existing files are kept", bool),
    flag("--save_masks", "masks/NAME_000_CLASS.png, at image size, 255 inside", bool),
    flag("--save_crops", "crops/NAME_000_CLASS.png, the content of each box", bool),
    flag("--save_cutouts", "cutouts/NAME_000_CLASS.png, transparent outside the mask", bool),
    flag("--no_picture", "write only these files, no pictures or video", bool),
    flag(
        "--resume",
        "continue a run: skip what the same model and settings have already finished "
        "in the output, or for the AP in --ap_data_file",
        bool,
        False,
    ),
    flag("--quiet", "print only errors, and the output of --json", bool),
)
METRICS = (
    flag("--max_images", "stop after this many images; -1 for all", int, -1),
    flag("--shuffle", "take the images in random order", bool, False),
    flag("--seed", "seed of the random order", int),
    flag("--no_sort", "take the images in the dataset's order, not by a hash", bool, False),
    flag("--per_class", "also print the AP of every class", bool, False),
    flag(
        "--json",
        "also write the AP, or the results of --benchmark, to this file; for pictures and videos, "
        "without a file name: print one line of JSON per image or frame",
        Path,
        nargs="?",
        const=TO_OUTPUT,
    ),
    flag("--report", "also write index.html to this folder: images, errors, curves, tables", Path),
    flag("--report_threshold", "its score threshold; by default that of the best F1", float),
    flag("--report_images", "images in the report, those with most errors", int, MAX_SHOWN),
    flag("--no_bar", "show no progress bar", switch="bar"),
    flag("--ap_data_file", "file for the detections", Path, RESULTS / "ap_data.json"),
    flag("--output_coco_json", "write COCO result files instead of an AP", bool, False),
    flag("--bbox_det_file", "COCO results of boxes", Path, RESULTS / "bbox_detections.json"),
    flag("--mask_det_file", "COCO results of masks", Path, RESULTS / "mask_detections.json"),
    flag("--output_web_json", "write the file of the original's web viewer", bool, False),
    flag("--web_det_path", "folder for that file", Path, Path("web/dets")),
)
SPEED = (
    flag(
        "--benchmark",
        "measure the speed, on images of the dataset or frames of --video; 'all': every engine",
        nargs="?",
        const="one",
        choices=("one", "all"),
    ),
    flag(
        "--compare",
        "also benchmark this variant, in turn with the others, as in --compare "
        "engine=eager,precision=float32; can be repeated",
        str,
        [],
        action="append",
        metavar="FLAG=VALUE,...",
    ),
    flag(
        "--batch_sizes",
        "with --benchmark: batch sizes for timing the network alone, such as 1,4",
        int_list,
        (1,),
    ),
)


def parse_arguments(
    description: str | None,
    argv: Sequence[str] | None,
    program: str = "eval.py",
    more: Sequence[Flag] = (),
) -> argparse.Namespace:
    """Read the command line of eval.py, or of another program that has its flags and `more`."""
    parser = make_parser(program, description)
    add_flags(parser, "cluster", more)
    add_flags(parser, "model", MODEL)
    add_flags(parser, "input (without any of these: a dataset)", INPUT)
    add_flags(parser, "large images, in tiles", TILES)
    add_flags(parser, "drawing", DRAWING)
    add_flags(parser, "files, in the folder of the output", SAVING)
    add_flags(parser, "evaluation on a dataset", (*DATA, *METRICS))
    add_flags(parser, "speed", SPEED)
    add_machine_flags(parser)
    args = parser.parse_args(argv)
    args.json_lines = args.json == TO_OUTPUT and mode_of(args) not in ("dataset", "benchmark")
    if args.json_lines:
        args.json = None
    elif args.json == TO_OUTPUT:
        raise UsageError("--json needs the name of a file here, as in --json=ap.json")
    check_ranges(args)
    refuse_idle_flags(parser, args)
    refuse_useless_pairs(parser, args)
    if args.compare:
        args.benchmark = args.benchmark or "one"
    if args.smooth_masks and (args.engine == "plain" or not args.crop):
        raise UsageError("--smooth_masks: not with --engine=plain, nor with --no_crop")
    _check_resume(args)
    _check_tiles(args)
    _check_ap_files(args)
    return args


def _check_resume(args: argparse.Namespace) -> None:
    """Refuse outputs that --resume cannot continue."""
    if args.resume and args.json_lines:
        raise UsageError("--resume: not with --json, whose lines are in no file: --save_json")
    if args.resume and args.video and (args.engine == "plain" or args.video.endswith(".gif")):
        raise UsageError("--resume: not with --engine=plain, nor for a .gif")


def _check_tiles(args: argparse.Namespace) -> None:
    """Refuse flags that mean nothing without tiles, or nothing with them."""
    if args.tile is None and (args.overlap != 0.2 or args.max_pixels or not args.overview):
        raise UsageError("--overlap, --no_overview and --max_pixels are for tiles: add --tile=1024")
    if args.tile is not None and (args.display_lincomb or args.mask_proto_debug):
        raise UsageError("--tile: not with --display_lincomb, nor with --mask_proto_debug")
    tiling(args)


def _check_ap_files(args: argparse.Namespace) -> None:
    """Refuse AP files where no AP is computed, and two outputs with one name."""
    instead = args.output_coco_json or args.output_web_json
    if (args.report or args.json) and instead and not args.benchmark:
        name = "report" if args.report else "json"
        raise UsageError(f"--{name} is for an AP, which --output_..._json is written instead of")
    files = {"ap_data_file": args.ap_data_file, "json": args.json}
    if args.output_coco_json:
        files |= {name: getattr(args, name) for name in ("bbox_det_file", "mask_det_file")}
    named = [(name, Path(path).absolute()) for name, path in files.items() if path]
    for (name, path), (other, second) in combinations(named, 2):
        if path == second:
            raise UsageError(f"--{name} and --{other} are one file, {path}: name two")
    if args.ap_data_file.is_dir():
        raise UsageError(f"--ap_data_file={args.ap_data_file}: expected a file, this is a folder")
    if args.report and args.report.is_file():
        raise UsageError(f"--report={args.report}: expected a folder, and this is a file")
    threshold = args.report_threshold
    if threshold is not None and not (args.report and 0 <= threshold <= 1):
        raise UsageError(f"--report_threshold={threshold}: expected 0 to 1, with --report")
    if args.report_images != MAX_SHOWN and not args.report:
        raise UsageError("--report_images is for --report: add it")


def check_ranges(args: argparse.Namespace) -> None:
    """Refuse values out of range."""
    at_least(args, max_images=-1, video_multiframe=1, max_detections=1, min_area=0, report_images=0)
    if not args.timeout > 0:
        raise UsageError(f"--timeout={args.timeout}: expected more than 0")
    try:
        RawFormat.parse(args.raw or "1x1@1")
    except ValueError as error:
        raise UsageError(f"--raw={error}") from None
    with flag_errors():
        Thresholds(args.score_threshold or 0.0, args.top_k)
        keyframes(args)
    if (args.keyframes or args.track) and args.engine == "plain":
        name = "keyframes" if args.keyframes else "track"
        raise UsageError(f"--{name}: not with --engine=plain")


@contextmanager
def flag_errors() -> Iterator[None]:
    """Turn an `OptionError` into a `UsageError` that names the flag."""
    try:
        yield
    except OptionError as error:
        raise UsageError(error.on_command_line) from None


def display_thresholds(args: argparse.Namespace, config: Config) -> Thresholds:
    """Return the thresholds for the detections that are shown.

    Raises:
        UsageError: --classes names a class that the model does not know.
    """
    own, names = config.score_threshold, config.model.names
    with flag_errors():
        chosen = Thresholds.for_pictures(own, names, args.score_threshold, args.top_k, args.classes)
    return replace(chosen, min_area=args.min_area)


def benchmark_thresholds(args: argparse.Namespace) -> Thresholds:
    """Return a benchmark's thresholds: by default those of 2019, for every model."""
    return Thresholds(args.score_threshold or 0.0, args.top_k or 5)


def tiling(args: argparse.Namespace) -> Tiling | None:
    """Return how large images are cut into tiles; None for no tiles."""
    with flag_errors():
        if args.tile is None:
            return None
        return Tiling(args.tile, args.overlap, args.overview, args.max_pixels)


def describe_tiling(args: argparse.Namespace) -> str | None:
    """Describe how images are cut into tiles; None for no tiles."""
    if args.tile is None:
        return None
    return f"{args.tile}, overlap {args.overlap}{'' if args.overview else ', no overview'}"


def video_options(args: argparse.Namespace) -> VideoOptions:
    """Return how a video is processed."""
    return VideoOptions(
        batch=args.video_multiframe,
        show_fps=args.display_fps,
        emulate_playback=args.emulate_playback,
        plain=args.engine == "plain",
        keyframes=keyframes(args),
        timeout=args.timeout,
        raw=args.raw,
        track=args.track,
    )


def keyframes(args: argparse.Namespace) -> KeyFrameOption | None:
    """Return which frames of a video the network runs on; None lets the source decide."""
    text = args.keyframes
    option: KeyFrameOption | None = int(text) if text and text.isdecimal() else text
    if option is not None:
        check_keyframes(option)
    return option


def outputs(args: argparse.Namespace) -> Outputs:
    """Return the outputs that an evaluation on a dataset writes."""
    return Outputs(
        masks=not args.detect,
        per_class=args.per_class,
        json=args.json,
        report=args.report,
        report_threshold=args.report_threshold,
        report_images=args.report_images,
        coco_json=(args.bbox_det_file, args.mask_det_file) if args.output_coco_json else None,
        web_json=args.web_det_path if args.output_web_json else None,
        order=f"shuffled, seed {args.seed}" if args.shuffle else None,
        tiles=describe_tiling(args),
    )


def image_order(args: argparse.Namespace, dataset: Dataset) -> list[int]:
    """Return all indices of a dataset's images, in evaluation order."""
    return eval_order(dataset.image_ids, shuffle=args.shuffle, seed=args.seed, no_sort=args.no_sort)
