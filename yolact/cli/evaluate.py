"""Evaluate on a dataset: detect in its images, score, and write the requested files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from data.catalog import has_one_split, open_dataset
from data.classes import Categories
from data.images import Image
from data.options import DataOptions
from data.sample import Dataset
from yolact.config import Config
from yolact.errors import naming_checkpoint
from yolact.evaluation.coco import CocoEvaluator, evaluate
from yolact.evaluation.metrics import format_coco_summary, format_per_class, format_table
from yolact.evaluation.result_files import write_coco_json, write_web_json
from yolact.files import write_json
from yolact.predictor import Predictor
from yolact.report.write import MAX_SHOWN, to_record, write_report
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.tiles.segment import Tiling

from .predict import make_segment

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outputs:
    """The outputs of an evaluation, in addition to the printed tables.

    Attributes:
        masks: False scores only boxes.
        per_class: also print the AP of every class.
        json: file for the metrics.
        report: folder for a page with images, tables and curves.
        report_threshold: score threshold of the report; None for that of the best F1.
        report_images: maximum number of images in the report.
        coco_json: files for the boxes and for the masks, instead of an AP.
        web_json: folder for the file of the original's web viewer, instead of an AP.
        order: description of the order of images, if random.
        tiles: description of the tiles, if any.
    """

    masks: bool = True
    per_class: bool = False
    json: Path | None = None
    report: Path | None = None
    report_threshold: float | None = None
    report_images: int = MAX_SHOWN
    coco_json: tuple[Path, Path] | None = None
    web_json: Path | None = None
    order: str | None = None
    tiles: str | None = None


def validation_set(config: Config, trained: Config | None = None) -> Dataset:
    """Open the validation images of the configured dataset, with the labels of the model.

    Args:
        config: configuration of the evaluation.
        trained: configuration of the training; if it used these images, a warning is logged.
    """
    try:
        classes = Categories.from_names(config.model.names)
        with naming_checkpoint((trained.dataset, trained.data.val) if trained else ()):
            dataset = open_dataset(config.dataset, "val", classes, options=config.data)
    except FileNotFoundError as error:
        message = f"{error}; --dataset takes other data, --image and --video need none"
        raise FileNotFoundError(message) from None
    if trained is not None:
        warn_of_learned_images(config.dataset, config.data, trained)
    return dataset


def warn_of_learned_images(dataset: str, options: DataOptions, trained: Config) -> None:
    """Warn where a dataset without a val split may be what a model learned.

    Args:
        dataset: its name.
        options: how it is taken.
        trained: with which the model was trained.
    """
    if not has_one_split(dataset, options):
        return
    if trained.data.val:
        text = "%s has no val split: if the model was trained on a part of it, add --val=%s"
        logger.warning(text, dataset, trained.data.val)
    elif Path(dataset).resolve() == Path(trained.dataset).resolve():
        logger.warning("%s: the AP is of images that the model learned", dataset)


def detect_in_dataset(
    predictor: Predictor,
    dataset: Dataset,
    evaluator: CocoEvaluator,
    order: Sequence[int],
    score_threshold: float,
    *,
    tiling: Tiling | None = None,
    progress: bool = True,
    on_image: Callable[[Image, Detections], None] | None = None,
) -> None:
    """Detect in images of a dataset, except those that the evaluator already has.

    Args:
        predictor: predictor of the model.
        dataset: the images.
        evaluator: collects the detections.
        order: indices of the images.
        score_threshold: minimum score of detections.
        tiling: how to cut images into tiles; None for no tiles.
        progress: show a bar.
        on_image: called with each image and its detections.
    """
    counted = Thresholds(score_threshold)
    fast = predictor if tiling else predictor.for_many()  # tiles run in parallel already
    segment = make_segment(fast, counted, tiling)
    evaluate(
        lambda image: segment([image])[0],
        dataset,
        evaluator,
        progress=progress,
        order=[i for i in order if dataset.image_ids[i] not in evaluator.results.images],
        workers=fast.workers,
        on_image=on_image,
    )


def write_outputs(
    evaluator: CocoEvaluator, dataset: Dataset, config: Config, weights: Path, outputs: Outputs
) -> None:
    """Print the metrics, or write the requested files instead.

    Raises:
        ValueError: files with an AP are requested, but there are no annotations.
    """
    if outputs.coco_json or outputs.web_json:
        _write_for_others(evaluator, dataset, config, outputs)
        return
    if not evaluator.has_ground_truth:
        message = "no annotations, so no AP; --output_coco_json writes what a test server takes"
        if outputs.json or outputs.report:
            raise ValueError(message)
        logger.info(message)
        return
    metrics, masks = evaluator.summarize(), outputs.masks
    print(format_table(metrics, masks), format_coco_summary(metrics, masks), sep="\n\n")
    if outputs.per_class:
        print("\n" + format_per_class(metrics, config.model.names, masks))
    about = {"weights": str(weights), "date": date.today().isoformat()}
    told = {"order": outputs.order, "tiles": outputs.tiles}
    about |= {name: value for name, value in told.items() if value}
    if outputs.json:
        write_json(outputs.json, to_record(evaluator, config, about, masks), indent=1)
        print(outputs.json)
    if outputs.report:
        chosen = outputs.report_threshold, outputs.report_images
        print(write_report(outputs.report, evaluator, dataset, config, about, masks, *chosen))


def _write_for_others(
    evaluator: CocoEvaluator, dataset: Dataset, config: Config, outputs: Outputs
) -> None:
    if outputs.coco_json:
        boxes, masks = outputs.coco_json[0], outputs.coco_json[1] if outputs.masks else None
        write_coco_json(boxes, masks, evaluator.results, dataset.categories.absent)
        print(boxes, *([masks] if masks else []), sep="\n")
    if outputs.web_json:
        names = dict(zip(evaluator.category_ids, config.model.names, strict=True))
        path = outputs.web_json / f"{config.name}.json"
        write_web_json(path, evaluator.results, names, config.to_dict())
        print(path)
