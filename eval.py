"""Evaluate YOLACT on a dataset, or run it on images and videos.

Without --trained_model the small bundled model serves, which knows persons.

Examples:
  python eval.py --score_threshold=0.3 --image=photo.jpg:out.png   persons, by the bundled model
  python eval.py --trained_model=yolact_resnet18_shapes      AP on generated scenes, with no data
  python eval.py --trained_model=yolact_base                 AP of a released model on COCO
  python eval.py --trained_model=mine.pth --dataset=folder   AP on your own data
  python eval.py --trained_model=mine.pth --report=results/mine   the same, with curves and pictures
  python eval.py --trained_model=yolact_base --score_threshold=0.15 --top_k=15 --image=a.jpg:b.png
  python eval.py --trained_model=yolact_base --score_threshold=0.15 --top_k=15 --images=in:out
  python eval.py --trained_model=yolact_base --score_threshold=0.15 --top_k=15 --video=a.mp4:b.mp4
  python eval.py --trained_model=yolact_base --score_threshold=0.15 --top_k=15 --video=0
  python eval.py --trained_model=yolact_base --benchmark
  python eval.py --benchmark=all --video=a.mp4 --json=speed.json
  python eval.py --compare engine=plain --compare engine=openvino,precision=bfloat16
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from data.images import Image
from yolact.cli.benchmark import measure_speed
from yolact.cli.common import run_command
from yolact.cli.eval_flags import image_order, outputs, parse_arguments, thresholds, video_options
from yolact.cli.evaluate import detect_in_dataset, validation_set, write_outputs
from yolact.cli.from_flags import (
    choose_model,
    drawing,
    engine_for,
    load_predictor,
    origin_of,
)
from yolact.cli.inputs import expand_images, parse_source
from yolact.cli.output_names import RESULTS, image_and_picture, source_and_video
from yolact.cli.predict import segment_image, segment_images, segment_video
from yolact.drawing.window import has_display, show
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.limits import scored_detections, tell_limits
from yolact.evaluation.result_files import load_results
from yolact.results.detections import Detections


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    args = parse_arguments(__doc__, argv)
    if args.benchmark:
        measure_speed(args)
    elif args.image:
        predict_image(args)
    elif args.images:
        predict_images(args)
    elif args.video:
        predict_video(args)
    else:
        average_precision(args)


def predict_image(args: argparse.Namespace) -> None:
    """Segment one image, and show or write the picture."""
    source, output = image_and_picture(args.image, has_display)
    predictor = load_predictor(args, *choose_model(args))
    segment_image(
        source,
        output,
        predictor,
        drawing(args),
        thresholds(args),
        explained=args.display_lincomb,
        prototypes=args.mask_proto_debug,
    )


def predict_images(args: argparse.Namespace) -> None:
    """Segment a folder of images, or what a pattern matches."""
    source, target = parse_source(args.images)
    paths, folder = expand_images(source), Path(target or RESULTS).expanduser()
    predictor = load_predictor(args, *choose_model(args))
    segment_images(paths, folder, predictor, drawing(args), thresholds(args))


def predict_video(args: argparse.Namespace) -> None:
    """Segment a video file, a webcam or a stream."""
    source, output = source_and_video(args.video, has_display)
    predictor, draw = load_predictor(args, *choose_model(args)), drawing(args, "class")
    segment_video(source, output, predictor, draw, thresholds(args), video_options(args))


def average_precision(args: argparse.Namespace) -> None:
    """Detect in a dataset, or take the detections of an earlier evaluation, and score them."""
    if args.display and not has_display():
        raise ValueError("--display: there is no display; --images=in:out writes pictures")
    checkpoint, config = choose_model(args)
    dataset, limit = validation_set(config), scored_detections(config.detect)
    ids = dataset.categories.category_ids
    if args.resume:
        results = load_results(args.ap_data_file, origin_of(args, checkpoint, config))
        evaluator = CocoEvaluator(dataset.coco, ids, results, limit)
        tell_limits(dataset.coco, results.images, config, "raise --max_detections")
    else:
        evaluator = CocoEvaluator(dataset.coco, ids, limit=limit)
        order = image_order(args, dataset)[: args.max_images if args.max_images >= 0 else None]
        images = [dataset.image_ids[index] for index in order]
        tell_limits(dataset.coco, images, config, "raise --max_detections")
        engine = engine_for(args, checkpoint, config)
        detect_in_dataset(
            load_predictor(args, checkpoint, config, engine),
            dataset,
            evaluator,
            order,
            args.score_threshold,
            keep=(args.ap_data_file, origin_of(args, checkpoint, config, engine)),
            progress=args.bar,
            on_image=shown_in_window(args) if args.display else None,
        )
    write_outputs(evaluator, dataset, config, checkpoint.path, outputs(args))


def shown_in_window(args: argparse.Namespace) -> Callable[[Image, Detections], None]:
    """Return a function that shows the best detections in an image."""
    draw = drawing(args)

    def display(image: Image, detections: Detections) -> None:
        show(draw(image, detections[: args.top_k]))

    return display


if __name__ == "__main__":
    raise SystemExit(run_command(main))
