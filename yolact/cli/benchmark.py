"""--benchmark and --compare: several models, engines and precisions, timed in turn."""

from __future__ import annotations

import argparse
import itertools
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from data.catalog import SHAPES, open_dataset
from data.images import Image
from data.video.reader import open_video
from yolact.checkpoint import Checkpoint
from yolact.config import Config
from yolact.drawing.detections import Draw
from yolact.errors import UsageError, naming_checkpoint
from yolact.evaluation.speed import WARM_UP, Variant, benchmark
from yolact.files import write_json
from yolact.predictor import Predictor
from yolact.results.thresholds import Thresholds

from .eval_flags import benchmark_thresholds, check_ranges, image_order, video_options
from .evaluate import validation_set
from .from_flags import choose_model, drawing, engine_for, load_predictor
from .inputs import parse_source
from .predict import VideoOptions, process_video

logger = logging.getLogger(__name__)

BENCHMARK_IMAGES = 50

EVERY_ENGINE = (
    "engine=plain,precision=float32",
    "engine=eager,precision=float32",
    "engine=eager,precision=bfloat16",
    "engine=compile,precision=bfloat16",
    "engine=openvino,precision=float32",
    "engine=openvino,precision=bfloat16",
)
"""The variants that --benchmark=all compares."""

COMPARABLE = (
    "trained_model",
    "config",
    "engine",
    "precision",
    "device",
    "video_multiframe",
    "keyframes",
)


def measure_speed(args: argparse.Namespace) -> None:
    """Time one or several models, engines and precisions in turn."""
    chosen = [(each, *choose_model(each)) for each in compared(args)]
    images = benchmark_images(args, chosen[0][2])
    if len(images) <= WARM_UP:  # all would be warm-up
        images = [*images[:1] * WARM_UP, *images]
    variants = []
    for each, checkpoint, config in chosen:
        try:
            variants.append(variant(each, checkpoint, config))
        except ValueError as error:
            if args.benchmark != "all":
                raise
            logger.warning("left out: %s", error)  # not possible on this machine or model
    if not variants:
        raise ValueError("nothing that can be measured here")
    report = benchmark(variants, images, benchmark_thresholds(args), args.batch_sizes)
    print(report.format())
    if args.json:
        write_json(args.json, report.to_dict(), indent=1)
        print(args.json)


def compared(args: argparse.Namespace) -> list[argparse.Namespace]:
    """Return the arguments of every variant that a benchmark compares.

    A single --compare is compared with the unchanged flags.

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


def variant(args: argparse.Namespace, checkpoint: Checkpoint, config: Config) -> Variant:
    """Prepare one of the variants that a benchmark compares."""
    engine = engine_for(args, checkpoint, config)
    predictor = load_predictor(args, checkpoint, config, engine)
    label = f"{'/'.join(checkpoint.path.parts[-2:])}: {engine.name}, {engine.precision}"
    if engine.device.type != "cpu":
        label += f", {engine.device}"
    if args.video_multiframe > 1:
        label += f", {args.video_multiframe} frames at once"
    if args.keyframes:
        label += f", key frames {args.keyframes}"
    run = None
    if args.video:
        source, draw = parse_source(args.video)[0], drawing(args, "class")
        most = args.max_images if args.max_images > 0 else None
        options = replace(video_options(args), max_frames=most)
        run = partial(time_video, source, predictor, draw, benchmark_thresholds(args), options)
    return Variant(label, predictor, drawing(args), engine, run)


def benchmark_images(args: argparse.Namespace, config: Config) -> list[Image]:
    """Return decoded images to time: frames of the video, or images of the dataset."""
    count = args.max_images if args.max_images >= 0 else BENCHMARK_IMAGES
    if args.video:
        with open_video(parse_source(args.video)[0]) as video:
            return list(itertools.islice(video, count))
    try:
        with naming_checkpoint(() if args.dataset else (config.dataset,)):
            dataset = validation_set(config)
    except FileNotFoundError:
        if args.dataset:
            raise
        logger.warning("%s is not there: timed on generated scenes instead", config.dataset)
        dataset = open_dataset(SHAPES, "val")
    return [dataset.sample(index).image for index in image_order(args, dataset)[:count]]


def time_video(
    source: str,
    predictor: Predictor,
    draw: Draw,
    thresholds: Thresholds,
    options: VideoOptions,
) -> float:
    """Process a video from file to file, and return the frames per second."""
    with TemporaryDirectory() as folder:
        output = Path(folder) / "video.mp4"
        return process_video(source, output, predictor, draw, thresholds, options).fps
