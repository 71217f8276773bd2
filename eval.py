"""Evaluate YOLACT on a dataset, or run it on images and videos.

Without --trained_model the small bundled model is used, which knows persons.

Examples:
  python eval.py --image=photo.jpg:out.png                   persons, by the bundled model
  python eval.py --trained_model=yolact_resnet18_shapes      AP on generated scenes, with no data
  python eval.py --trained_model=yolact_base                 AP of a released model on COCO
  python eval.py --trained_model=mine.pth --dataset=folder   AP on your own data
  python eval.py --trained_model=mine.pth --report=results/mine   the same, with curves and pictures
  python eval.py --trained_model=yolact_base --image=a.jpg:b.png --classes=dog,cat
  python eval.py --trained_model=yolact_base --score_threshold=0.3 --top_k=15 --images=in:out
  python eval.py --trained_model=yolact_base --video=a.mp4:b.mp4
  python eval.py --trained_model=yolact_base --video=0
  python eval.py --trained_model=yolact_base --benchmark
  python eval.py --benchmark=all --video=a.mp4 --json=speed.json
  python eval.py --compare engine=plain --compare engine=openvino,precision=bfloat16
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

from data.images import Image
from yolact.cli.benchmark import measure_speed
from yolact.cli.common import run_command
from yolact.cli.eval_flags import (
    display_thresholds,
    image_order,
    outputs,
    parse_arguments,
    tiling,
    video_options,
)
from yolact.cli.evaluate import detect_in_dataset, validation_set, write_outputs
from yolact.cli.from_flags import (
    choose_model,
    drawing,
    engine_for,
    keep_noted_engine,
    load_predictor,
    origin_of,
    settings_of_run,
    with_limits,
)
from yolact.cli.output_names import image_and_picture, images_and_pictures, source_and_video
from yolact.cli.predict import segment_image, segment_images, segment_video
from yolact.cli.saving import save_options
from yolact.config import Config
from yolact.drawing.window import has_display, show
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.evaluation_journal import EvaluationJournal, journal_of
from yolact.evaluation.result_files import load_results
from yolact.evaluation.result_origin import digest_of_images
from yolact.results.detections import Detections
from yolact.results.folder import progress_of


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, and run the mode that it chooses."""
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
    save = save_options(args)
    source, output = image_and_picture(args.image, save.can_show, args.overwrite)
    checkpoint, config = choose_model(args)
    thresholds = display_thresholds(args, config)
    segment_image(
        source,
        output,
        load_predictor(args, checkpoint, config),
        drawing(args),
        thresholds,
        save,
        tiling=tiling(args),
        explained=args.display_lincomb,
        prototypes=args.mask_proto_debug,
    )


def predict_images(args: argparse.Namespace) -> None:
    """Segment a folder of images, or the images that match a pattern."""
    save = save_options(args)
    folder, pictures = images_and_pictures(args.images, save.picture)
    keep_noted_engine(args, progress_of(folder))
    checkpoint, config = choose_model(args)
    thresholds, engine = display_thresholds(args, config), engine_for(args, checkpoint, config)
    save = replace(save, settings=settings_of_run(args, checkpoint, config, engine))
    predictor = load_predictor(args, checkpoint, config, engine)
    segment_images(folder, pictures, predictor, drawing(args), thresholds, save, tiling(args))


def predict_video(args: argparse.Namespace) -> None:
    """Segment a video file, a webcam or a stream."""
    save = save_options(args)
    source, output = source_and_video(args.video, save.can_show, args.overwrite, args.resume)
    if output is not None:
        keep_noted_engine(args, progress_of(output.parent, output.stem))
    checkpoint, config = choose_model(args)
    thresholds, engine = display_thresholds(args, config), engine_for(args, checkpoint, config)
    if args.resume:
        save = replace(save, settings=settings_of_run(args, checkpoint, config, engine))
    predictor = load_predictor(args, checkpoint, config, engine)
    draw = drawing(args, "instance" if args.track else "class")
    segment_video(source, output, predictor, draw, thresholds, video_options(args), save)


def average_precision(args: argparse.Namespace) -> None:
    """Detect in a dataset, or take the detections of an earlier evaluation, and score them."""
    if args.display and not has_display():
        raise ValueError("--display: there is no display; --images=in:out writes pictures")
    checkpoint, config = choose_model(args)
    dataset = validation_set(config, checkpoint.config)
    config, limit = with_limits(args, config, dataset)
    ids = dataset.categories.category_ids
    file = args.ap_data_file
    images = digest_of_images(dataset)
    order = image_order(args, dataset)[: args.max_images if args.max_images >= 0 else None]
    wanted = [dataset.image_ids[index] for index in order]
    if args.resume and not journal_of(file).exists():
        results = load_results(file, origin_of(args, checkpoint, config, images=images))
        evaluator = CocoEvaluator(dataset.coco, ids, results.of(wanted), limit)
    else:
        engine = engine_for(args, checkpoint, config)
        origin = origin_of(args, checkpoint, config, engine, images)
        with EvaluationJournal(file, origin, wanted, args.resume) as journal:
            evaluator = CocoEvaluator(dataset.coco, ids, journal.results, limit, journal.note)
            detect_in_dataset(
                load_predictor(args, checkpoint, config, engine),
                dataset,
                evaluator,
                order,
                args.score_threshold or 0.0,
                tiling=tiling(args),
                progress=args.bar,
                on_image=shown_in_window(args, config) if args.display else None,
            )
            journal.finish(evaluator.results)
    write_outputs(evaluator, dataset, config, checkpoint.path, outputs(args))


def shown_in_window(
    args: argparse.Namespace, config: Config
) -> Callable[[Image, Detections], None]:
    """Return a function that shows an image in a window, with its detections above threshold."""
    draw, thresholds = drawing(args), display_thresholds(args, config)

    def display(image: Image, detections: Detections) -> None:
        show(draw(image, thresholds.select(detections)))

    return display


if __name__ == "__main__":
    raise SystemExit(run_command(main))
