"""The model, engine and drawing that the flags of eval.py choose."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path
from typing import Literal

from data.options import DEFAULT_OPTIONS
from data.sample import Dataset
from layers.detect import Nms
from yolact.checkpoint import Checkpoint
from yolact.config import Config
from yolact.drawing.detections import Draw, draw_detections
from yolact.engines.exported import engine_for_file, read_trained
from yolact.engines.names import Engine
from yolact.errors import UsageError
from yolact.evaluation.limits import (
    detection_settings,
    limit_for,
    max_objects_per_image,
    scored_detections,
    warn_of_limits,
    with_raised_limits,
)
from yolact.evaluation.result_origin import IMAGES, Origin, digest_of, settings_of
from yolact.evaluation.way_of_2019 import draw_plain
from yolact.models.segmenter import MaskMode
from yolact.predictor import Predictor
from yolact.results.folder import stamp_of
from yolact.results.journal import read_settings
from yolact.sources.listing import local_path

from .common import (
    checkpoint_config,
    chosen_weights,
    device_name,
    named_config,
    with_data,
    with_settings,
)
from .eval_flags import describe_tiling
from .inputs import parse_source

logger = logging.getLogger(__name__)

_DECIDING = (
    *("score_threshold", "top_k", "classes", "min_area", "tile", "overlap", "overview"),
    *("no_picture", "display_masks", "display_bboxes", "display_text", "display_scores", "color"),
    *("keyframes", "track", "video_multiframe", "raw"),
)


def choose_model(args: argparse.Namespace) -> tuple[Checkpoint, Config]:
    """Read the checkpoint, and combine its configuration with the flags.

    Raises:
        UsageError: an unknown preset, setting, or impossible value.
    """
    name = named_config(args.config).name if args.config else None
    checkpoint = read_trained(chosen_weights("--trained_model", args.trained_model, name))
    config = checkpoint_config(checkpoint, args.config)
    cross_class = args.agnostic_nms or args.cross_class_nms
    nms = chosen_nms(args.fast_nms, cross_class, config.detect.nms)
    changes = [f"detect.nms={nms}"]
    config = with_data(config, args)
    chosen = with_settings(config, [*changes, *args.set])
    if args.max_detections:
        changes += detection_settings(args.max_detections, chosen.detect)
        chosen = with_settings(config, [*changes, *args.set])
    if chosen.model.architecture == "mask_rcnn":
        _refuse_prototypes(args)
    return checkpoint, chosen


def _refuse_prototypes(args: argparse.Namespace) -> None:
    """Refuse the flags that need a model with prototypes."""
    asked = {
        "--no_crop": not args.crop,
        "--smooth_masks": args.smooth_masks,
        "--display_lincomb": args.display_lincomb,
        "--mask_proto_debug": args.mask_proto_debug,
    }
    for flag, is_asked in asked.items():
        if is_asked:
            raise UsageError(f"{flag}: not for Mask R-CNN, which has no prototypes")


def chosen_nms(fast: bool | None, cross_class: bool | None, own: Nms) -> Nms:
    """Return the kind of suppression: the model's own, except for flags that are given.

    Args:
        fast: --fast_nms; None if it is not given.
        cross_class: --cross_class_nms; None if it is not given.
        own: the kind that the model was saved with.
    """
    if fast is False:
        return "greedy"
    if cross_class:
        return "cross_class"
    return "fast" if fast or (own == "cross_class" and cross_class is False) else own


def with_limits(args: argparse.Namespace, config: Config, dataset: Dataset) -> tuple[Config, int]:
    """Fit the limit of detections to the image with most objects, unless flags set it.

    Returns:
        The configuration, and the number of detections per image and class that the AP counts.
    """
    said = ("detect.max_detections", "detect.top_k")
    if args.max_detections or any(text.strip().startswith(said) for text in args.set):
        warn_of_limits(dataset.coco, dataset.image_ids, config, "raise --max_detections")
        return config, scored_detections(config.detect)
    most, most_of_class = max_objects_per_image(dataset.coco)
    return with_raised_limits(config, most, most_of_class), limit_for(most)


def mask_mode(args: argparse.Namespace) -> MaskMode:
    """Return the kind of masks that the flags choose."""
    if args.detect:
        return "none"
    if not args.crop:
        return "whole"
    return "smooth" if args.smooth_masks else "cropped"


def engine_for(args: argparse.Namespace, checkpoint: Checkpoint, config: Config) -> Engine:
    """Choose the engine for the network.

    An AP must be comparable with others, so with "auto" it is computed in float32 on every machine;
    for exported files see `engine_for_file`.
    """
    precision = args.precision
    for_people = args.image or args.images or args.video or args.benchmark
    if precision == "auto" and not for_people:
        precision = "float32"
    return engine_for_file(checkpoint.path, config, device_name(args), args.engine, precision)


def load_predictor(
    args: argparse.Namespace, checkpoint: Checkpoint, config: Config, engine: Engine | None = None
) -> Predictor:
    """Load the model, and log how it will run: by the flags, unless an engine is given."""
    engine = engine or engine_for(args, checkpoint, config)
    predictor = Predictor.from_parts(checkpoint, config, engine)
    predictor.model.mask_mode = mask_mode(args)
    logger.info("%s from %s by %s", config.name, checkpoint.path, engine)
    return predictor


def drawing(args: argparse.Namespace, color_by: Literal["class", "instance"] = "instance") -> Draw:
    """Return the drawing function that the flags choose."""
    draw = draw_plain if args.engine == "plain" else draw_detections
    return partial(
        draw,
        masks=args.display_masks and not args.detect,
        boxes=args.display_bboxes,
        text=args.display_text,
        scores=args.display_scores,
        color_by=args.color or color_by,
    )


def origin_of(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    config: Config,
    engine: Engine | None = None,
    images: str = "",
) -> Origin:
    """Return the origin of an evaluation's detections; without an engine, as far as known."""
    dataset = Path(config.dataset)
    name = str(dataset.resolve()) if dataset.exists() else config.dataset
    taken = [f"{k}={v}" for k, v in vars(config.data).items() if v != getattr(DEFAULT_OPTIONS, k)]
    return Origin(
        weights=str(checkpoint.path),
        digest=digest_of(checkpoint.path),
        dataset=" ".join([name, *taken]),
        masks=mask_mode(args),
        score_threshold=args.score_threshold or 0.0,
        engine=engine.name if engine else args.engine,
        precision=engine.precision if engine else args.precision,
        settings=settings_of(config),
        tiles=describe_tiling(args) or "none",
        images=images,
    )


def keep_noted_engine(args: argparse.Namespace, progress: Path) -> None:
    """Use the engine and precision that a run began with, unless flags set others.

    "auto" depends on a measurement, whose result can differ the next time.
    """
    noted = read_settings(progress) if args.resume else {}
    for name in ("engine", "precision"):
        if getattr(args, name) == "auto":
            setattr(args, name, str(noted.get(f"--{name}", "auto")))


def settings_of_run(
    args: argparse.Namespace, checkpoint: Checkpoint, config: Config, engine: Engine
) -> dict[str, object]:
    """Return the settings that determine the results of a folder or video, for resuming it."""
    settings = origin_of(args, checkpoint, config, engine).by_flags()
    del settings["--dataset"], settings[IMAGES]
    flags = {f"--{name}": getattr(args, name) for name in _DECIDING}
    return {**settings, **flags, "--video": version_of(args.video)}


def version_of(video: str | None) -> list[int] | None:
    """Return size and time of a video file, to detect later changes; None if it is not a file."""
    path = local_path(parse_source(video)[0]) if video else None
    return stamp_of(path) if path is not None and path.is_file() else None
