"""Evaluate YOLACT on a dataset, or run it on images and videos.

Without --trained_model the small bundled model serves, which knows eight generated shapes.

Examples:
  python eval.py                                             AP of the bundled model
  python eval.py --trained_model=yolact_base                 AP of a released model on COCO
  python eval.py --trained_model=mine.pth --dataset=folder   AP on your own data
  python eval.py --trained_model=yolact_base --score_threshold=0.15 --top_k=15 --image=a.jpg:b.png
  python eval.py --trained_model=yolact_base --score_threshold=0.15 --top_k=15 --images=in:out
  python eval.py --trained_model=yolact_base --score_threshold=0.15 --top_k=15 --video=a.mp4:b.mp4
  python eval.py --trained_model=yolact_base --score_threshold=0.15 --top_k=15 --video=0
  python eval.py --trained_model=yolact_base --benchmark --max_images=50
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.catalog import Categories
from data.datasets import open_dataset
from data.images import read_image
from data.sources import expand_images, parse_source
from data.video import open_video
from layers.structures import Detections
from yolact import Config, Predictor, build_model
from yolact.benchmark import benchmark
from yolact.checkpoint import Checkpoint, load_weights
from yolact.cli import device_name, run
from yolact.engine import pick_device
from yolact.eval_flags import choose_model, parse_arguments
from yolact.evaluation import CocoEvaluator, EvaluationDataset, eval_order, evaluate
from yolact.explain import explain, save_prototypes
from yolact.metrics import format_coco_summary, format_per_class, format_table
from yolact.results import load_results, save_results, write_coco_json, write_web_json
from yolact.video import run_video
from yolact.visualize import draw_detections, has_display, show

logger = logging.getLogger("eval")

Image = NDArray[np.uint8]
Draw = Callable[..., Image]


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    args = parse_arguments(__doc__, argv)
    checkpoint, config = choose_model(args)
    if args.resume:
        dataset, results = validation_set(config), load_results(args.ap_data_file)
        evaluator = CocoEvaluator(dataset.coco, dataset.categories.category_ids, results)
        report(args, evaluator, config)
        return
    predictor = load_predictor(args, checkpoint, config)
    draw = partial(
        draw_detections,
        masks=args.display_masks and not args.detect,
        boxes=args.display_bboxes,
        text=args.display_text,
        scores=args.display_scores,
    )
    if args.image:
        segment_image(args, predictor, draw)
    elif args.images:
        segment_images(args, predictor, draw)
    elif args.video:
        segment_video(args, predictor, draw)
    elif args.benchmark:
        measure_speed(args, predictor, draw, config)
    else:
        evaluate_dataset(args, predictor, draw, config)


def load_predictor(args: argparse.Namespace, checkpoint: Checkpoint, config: Config) -> Predictor:
    """Load the model onto the device."""
    device = pick_device(device_name(args))
    model = build_model(config)
    load_weights(model, checkpoint)
    model.to(device)
    model.mask_mode = "none" if args.detect else "cropped" if args.crop else "whole"
    logger.info("%s from %s on %s", config.name, checkpoint.path, device)
    return Predictor(model, args.precision)


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
    with open_video(source) as video:
        outcome = run_video(
            video,
            lambda frames: predictor(frames, args.score_threshold, args.top_k),
            partial(draw, color_by="class"),
            output=output,
            display=display,
            batch=args.video_multiframe,
            show_fps=args.display_fps,
            emulate_playback=args.emulate_playback,
        )
    dropped = f", {outcome.dropped} dropped" if outcome.dropped else ""
    print(f"{outcome.frames} frames in {outcome.seconds:.1f} s: {outcome.fps:.2f} fps{dropped}")
    if output is not None:
        print(output)


def evaluate_dataset(
    args: argparse.Namespace, predictor: Predictor, draw: Draw, config: Config
) -> None:
    """Detect in every image of a dataset, keep the detections, and score them."""
    if args.display and not has_display():
        raise ValueError("--display: there is no display; --images=in:out writes pictures")
    dataset = validation_set(config)

    def predict(image: Image) -> Detections:
        detections = predictor(image, args.score_threshold, None)
        if args.display:
            show(draw(image, detections[: args.top_k]))
        return detections

    evaluator = CocoEvaluator(dataset.coco, dataset.categories.category_ids)
    try:
        evaluate(
            predict,
            dataset,
            evaluator,
            max_images=args.max_images,
            progress=args.bar,
            order=image_order(args, dataset),
            device=predictor.device,
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
    report(args, evaluator, config)


def report(args: argparse.Namespace, evaluator: CocoEvaluator, config: Config) -> None:
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
        logger.info("no annotations, so no AP; --output_coco_json writes what a test server takes")
        return
    metrics = evaluator.summarize()
    masks = not args.detect
    print(format_table(metrics, masks), format_coco_summary(metrics, masks), sep="\n\n")
    if args.per_class:
        print("\n" + format_per_class(metrics, config.model.names))


def measure_speed(
    args: argparse.Namespace, predictor: Predictor, draw: Draw, config: Config
) -> None:
    """Time the stages on images of the dataset."""
    dataset = validation_set(config)
    order = image_order(args, dataset)
    count = len(order) if args.max_images < 0 else args.max_images
    images = (dataset.sample(index).image for index in itertools.islice(order, count))
    outcome = benchmark(predictor, images, draw, args.score_threshold, args.top_k)
    print(outcome.format())


def validation_set(config: Config) -> EvaluationDataset:
    """Open the validation images of the configured dataset, with the labels of the model."""
    return open_dataset(config.dataset, "val", Categories.from_names(config.model.names))


def image_order(args: argparse.Namespace, dataset: EvaluationDataset) -> list[int]:
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
    raise SystemExit(run(main))
