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
import itertools
import logging
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from data.catalog import SHAPES, open_dataset
from data.classes import Categories
from data.images import read_image
from data.sample import Dataset
from data.video.reader import open_video
from yolact import Config, Predictor
from yolact.checkpoint import Checkpoint
from yolact.cli.common import run_command
from yolact.cli.eval import choose_model, compared, engine_for, mask_mode, parse_arguments
from yolact.cli.inputs import expand_images, parse_source
from yolact.drawing.detections import draw_detections
from yolact.drawing.window import has_display, show
from yolact.evaluation.coco import CocoEvaluator, eval_order, evaluate
from yolact.evaluation.metrics import format_coco_summary, format_per_class, format_table
from yolact.evaluation.result_files import (
    load_results,
    save_results,
    write_coco_json,
    write_web_json,
)
from yolact.evaluation.speed import Variant, benchmark
from yolact.evaluation.way_of_2019 import draw_plain, run_video_plain
from yolact.explain import explain, save_prototypes
from yolact.files import write_json
from yolact.report.write import to_record, write_report
from yolact.results.detections import Detections
from yolact.video.pipeline import VideoReport, run_video

logger = logging.getLogger("eval")

Image = NDArray[np.uint8]
Draw = Callable[..., Image]

BENCHMARK_IMAGES = 50


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    args = parse_arguments(__doc__, argv)
    if args.benchmark:
        measure_speed(args)
        return
    checkpoint, config = choose_model(args)
    if args.resume:
        dataset, results = validation_set(config), load_results(args.ap_data_file)
        evaluator = CocoEvaluator(dataset.coco, dataset.categories.category_ids, results)
        report(args, evaluator, dataset, checkpoint, config)
        return
    predictor, draw = load_predictor(args, checkpoint, config), drawing(args)
    if args.image:
        segment_image(args, predictor, draw)
    elif args.images:
        segment_images(args, predictor, draw)
    elif args.video:
        segment_video(args, predictor, draw)
    else:
        dataset = validation_set(config)
        evaluator = evaluate_dataset(args, predictor, draw, dataset)
        report(args, evaluator, dataset, checkpoint, config)


def drawing(args: argparse.Namespace) -> Draw:
    """Return the function that draws what the flags ask for."""
    return partial(
        draw_plain if args.engine == "plain" else draw_detections,
        masks=args.display_masks and not args.detect,
        boxes=args.display_bboxes,
        text=args.display_text,
        scores=args.display_scores,
    )


def load_predictor(args: argparse.Namespace, checkpoint: Checkpoint, config: Config) -> Predictor:
    """Load the model, and say how it will run."""
    engine = engine_for(args, checkpoint, config)
    predictor = Predictor.from_parts(checkpoint, config, engine)
    predictor.model.mask_mode = mask_mode(args)
    logger.info("%s from %s by %s", config.name, checkpoint.path, engine)
    return predictor


def segment_image(args: argparse.Namespace, predictor: Predictor, draw: Draw) -> None:
    """Segment one image, and show or write the picture."""
    source, target = parse_source(args.image)
    image = read_image(Path(source).expanduser())
    detections = predictor(image, args.score_threshold, args.top_k)
    pictures = [draw(image, detections)]
    if args.display_lincomb:
        pictures += explain(predictor, image, args.score_threshold, args.top_k)
    if args.mask_proto_debug:
        print(*save_prototypes(predictor, image, Path("results")), sep="\n")
    for line in describe(detections):
        print(line)
    path = Path(target).expanduser() if target else None
    if path is None and not has_display():
        path = Path("results") / f"{Path(source).stem}.png"
    for number, picture in enumerate(pictures):
        if path is None:
            show(picture, source)
        else:
            name = path if number == 0 else path.with_stem(f"{path.stem}_lincomb{number}")
            print(write_image(name, picture))


def segment_images(args: argparse.Namespace, predictor: Predictor, draw: Draw) -> None:
    """Segment a folder of images; broken ones are named and passed over."""
    source, target = parse_source(args.images)
    folder = Path(target or "results").expanduser()
    paths, broken = expand_images(source), 0
    written: set[str] = set()
    for path in paths:
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            logger.warning("skipped: %s", error)
            broken += 1
            continue
        detections = predictor(image, args.score_threshold, args.top_k)
        stem = path.stem if path.stem not in written else path.name.replace(".", "_")
        written.add(stem)
        print(write_image(folder / f"{stem}.png", draw(image, detections)))
    if broken:
        raise ValueError(f"{broken} of {len(paths)} images could not be read")


def segment_video(args: argparse.Namespace, predictor: Predictor, draw: Draw) -> None:
    """Segment a video file, a webcam or a stream."""
    source, target = parse_source(args.video)
    display = target is None and has_display()
    if target is None and not display:
        target = f"results/{Path(source).stem}.mp4"
    output = Path(target).expanduser() if target else None
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    outcome = process_video(args, predictor, draw, output, display=display)
    dropped = f", {outcome.dropped} dropped" if outcome.dropped else ""
    print(f"{outcome.frames} frames in {outcome.seconds:.1f} s: {outcome.fps:.2f} fps{dropped}")
    if output is not None:
        print(output)


def process_video(
    args: argparse.Namespace,
    predictor: Predictor,
    draw: Draw,
    output: Path | None,
    *,
    display: bool = False,
    max_frames: int | None = None,
) -> VideoReport:
    """Run a video from end to end."""
    draw = partial(draw, color_by="class")

    with open_video(parse_source(args.video)[0]) as video:
        # Where nobody waits for a single frame.
        if output is not None and not video.is_live and not args.emulate_playback:
            predictor = predictor.for_throughput()

        def predict(frames: list[Image]) -> list[Detections]:
            return predictor(frames, args.score_threshold, args.top_k)

        if args.engine == "plain" and output is not None:
            return run_video_plain(video, predict, draw, output, max_frames)
        return run_video(
            video,
            predict,
            draw,
            output=output,
            display=display,
            batch=args.video_multiframe,
            workers=predictor.workers,
            show_fps=args.display_fps,
            emulate_playback=args.emulate_playback,
            max_frames=max_frames,
        )


def evaluate_dataset(
    args: argparse.Namespace, predictor: Predictor, draw: Draw, dataset: Dataset
) -> CocoEvaluator:
    """Detect in every image of a dataset, and keep the detections."""
    if args.display and not has_display():
        raise ValueError("--display: there is no display; --images=in:out writes pictures")

    def display(image: Image, detections: Detections) -> None:
        show(draw(image, detections[: args.top_k]))

    fast = predictor.for_throughput()
    evaluator = CocoEvaluator(dataset.coco, dataset.categories.category_ids)
    try:
        evaluate(
            lambda image: fast(image, args.score_threshold, None),
            dataset,
            evaluator,
            max_images=args.max_images,
            progress=args.bar,
            order=image_order(args, dataset),
            workers=fast.workers,
            on_image=display if args.display else None,
        )
    except KeyboardInterrupt:
        save_results(args.ap_data_file, evaluator.results)
        logger.info(
            "%d images done; --resume scores what %s holds",
            len(evaluator.results.images),
            args.ap_data_file,
        )
        raise
    save_results(args.ap_data_file, evaluator.results)
    return evaluator


def report(
    args: argparse.Namespace,
    evaluator: CocoEvaluator,
    dataset: Dataset,
    checkpoint: Checkpoint,
    config: Config,
) -> None:
    """Print the metrics, or write the files that were asked for instead."""
    names = dict(zip(evaluator.category_ids, config.model.names, strict=True))
    if args.output_coco_json:
        write_coco_json(args.bbox_det_file, args.mask_det_file, evaluator.results)
        print(args.bbox_det_file, args.mask_det_file, sep="\n")
    if args.output_web_json:
        path = args.web_det_path / f"{config.name}.json"
        write_web_json(path, evaluator.results, names, config.to_dict())
        print(path)
    if args.output_coco_json or args.output_web_json:
        return
    if not evaluator.has_ground_truth:
        message = "no annotations, so no AP; --output_coco_json writes what a test server takes"
        if args.json or args.report:
            raise ValueError(message)
        logger.info(message)
        return
    metrics = evaluator.summarize()
    masks = not args.detect
    print(format_table(metrics, masks), format_coco_summary(metrics, masks), sep="\n\n")
    if args.per_class:
        print("\n" + format_per_class(metrics, config.model.names))
    about = {"weights": str(checkpoint.path), "date": date.today().isoformat()}
    if args.json:
        write_json(args.json, to_record(evaluator, config, about, masks), indent=1)
        print(args.json)
    if args.report:
        threshold = args.report_threshold
        print(write_report(args.report, evaluator, dataset, config, about, masks, threshold))


def measure_speed(args: argparse.Namespace) -> None:
    """Time one or several models, engines and precisions in turn."""
    chosen = [(each, *choose_model(each)) for each in compared(args)]
    images = benchmark_images(args, chosen[0][2])
    variants = []
    for each, checkpoint, config in chosen:
        try:
            variants.append(variant(each, checkpoint, config))
        except ValueError as error:
            if args.benchmark != "all":
                raise
            logger.warning("left out: %s", error)  # what this machine or model cannot do
    if not variants:
        raise ValueError("nothing that can be measured here")
    report = benchmark(variants, images, args.score_threshold, args.top_k, args.batch_sizes)
    print(report.format())
    if args.json:
        write_json(args.json, report.to_dict(), indent=1)
        print(args.json)


def variant(args: argparse.Namespace, checkpoint: Checkpoint, config: Config) -> Variant:
    """Prepare one of the things that a benchmark compares."""
    engine, draw = engine_for(args, checkpoint, config), drawing(args)
    predictor = load_predictor(args, checkpoint, config)
    label = f"{'/'.join(checkpoint.path.parts[-2:])}: {engine.name}, {engine.precision}"
    if engine.device.type != "cpu":
        label += f", {engine.device}"
    if args.video_multiframe > 1:
        label += f", {args.video_multiframe} frames at once"
    run = partial(time_video, args, predictor, draw) if args.video else None
    return Variant(label, predictor, draw, engine, run)


def benchmark_images(args: argparse.Namespace, config: Config) -> list[Image]:
    """Return decoded images to time: frames of the video, or images of the dataset."""
    count = args.max_images if args.max_images >= 0 else BENCHMARK_IMAGES
    if args.video:
        with open_video(parse_source(args.video)[0]) as video:
            return list(itertools.islice(video, count))
    try:
        dataset = validation_set(config)
    except FileNotFoundError:
        if args.dataset:
            raise
        logger.warning("%s is not there: timed on generated scenes instead", config.dataset)
        dataset = open_dataset(SHAPES, "val")
    return [dataset.sample(index).image for index in image_order(args, dataset)[:count]]


def time_video(args: argparse.Namespace, predictor: Predictor, draw: Draw) -> float:
    """Process a video from file to file, and return the frames per second."""
    count = args.max_images if args.max_images > 0 else None
    with TemporaryDirectory() as folder:
        output = Path(folder) / "video.mp4"
        return process_video(args, predictor, draw, output, max_frames=count).fps


def validation_set(config: Config) -> Dataset:
    """Open the validation images of the configured dataset, with the labels of the model."""
    try:
        return open_dataset(config.dataset, "val", Categories.from_names(config.model.names))
    except FileNotFoundError as error:
        message = f"{error}; --dataset takes other data, --image and --video need none"
        raise FileNotFoundError(message) from None


def image_order(args: argparse.Namespace, dataset: Dataset) -> list[int]:
    """Return the order of images that the flags ask for."""
    return eval_order(dataset.image_ids, shuffle=args.shuffle, seed=args.seed, no_sort=args.no_sort)


def describe(detections: Detections) -> list[str]:
    """Return a line for each detection: class, score, box."""
    return [
        f"{name}\t{score:.3f}\t" + "\t".join(f"{side:.1f}" for side in box)
        for name, score, box in zip(
            detections.names(), detections.scores.tolist(), detections.boxes.tolist(), strict=True
        )
    ]


def write_image(path: Path, picture: Image) -> Path:
    """Write a picture; the suffix tells the format.

    Raises:
        ValueError: no such format, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    try:
        written = cv2.imwrite(str(path), bgr)
    except cv2.error:
        written = False
    if not written:
        raise ValueError(
            f"cannot write {path}: expected a folder that can be written, and .png or .jpg"
        )
    return path


if __name__ == "__main__":
    raise SystemExit(run_command(main))
