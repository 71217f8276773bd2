"""Validation during training: when, on which images, and with which results."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from threading import Event

from data.images import Image
from data.problems import counted
from data.sample import Dataset
from yolact import distributed
from yolact.config import Config
from yolact.engines.memory import out_of_memory_advice
from yolact.evaluation.coco import CocoEvaluator, eval_order, evaluate
from yolact.evaluation.confusion import best_threshold
from yolact.evaluation.limits import scored_detections, warn_of_limits
from yolact.evaluation.metrics import CocoMetrics, Scores, format_table
from yolact.evaluation.result_files import merge_results
from yolact.predictor import Predictor
from yolact.report.write import write_report
from yolact.results.detections import Detections

from .diagnosis import diagnosis, finds_nothing, read_signs
from .interrupt import Stopped
from .pictures import write_validation_pictures
from .setup import Session

logger = logging.getLogger(__name__)

VALIDATION_EPOCHS, MAX_VALIDATIONS = 2, 20  # unless `validation_epoch` says otherwise


def warn_of_crowded_images(session: Session) -> None:
    """Warn of validation images with more objects than are kept, or than the AP counts."""
    data = session.val_data
    if data is None:
        return
    order = eval_order(data.image_ids)[: session.options.validation_size]
    images = [data.image_ids[index] for index in order]
    mend = "raise detect.max_detections and detect.top_k (--set) for the validation"
    warn_of_limits(data.coco, images, session.learner.config, mend)


def validation_due(session: Session) -> bool:
    """Tell whether a validation is due after the last step."""
    epochs, train = session.options.validation_epoch, session.learner.config.train
    if session.val_data is None or (epochs is not None and epochs < 1):
        return False
    period = session.learner.images_per_epoch * (epochs or VALIDATION_EPOCHS)
    if epochs is None:
        period = max(period, train.max_iterations * train.batch_size // MAX_VALIDATIONS)
    seen = session.learner.progress.iteration * train.batch_size
    return seen // period > (seen - train.batch_size) // period


def patience_ended(session: Session) -> bool:
    """Tell whether the last `patience` validations brought no better AP."""
    patience, stale = session.options.patience, session.learner.progress.stale
    if not patience or stale < patience:
        return False
    logger.info("stopped early: %s without a better AP", counted(stale, "validation"))
    return True


def validation_missed(session: Session) -> bool:
    """Tell whether a validation was due after the last step, but interrupted by a run's end."""
    progress = session.learner.progress
    return progress.iteration > max(progress.validated, 0) and validation_due(session)


def validate(session: Session, stop: Event) -> CocoMetrics | None:
    """Evaluate on the validation images, print and record it, and keep the best weights.

    The score with the best F1 becomes the model's score threshold for shown detections.

    Args:
        session: with or without validation images.
        stop: ends the validation after the current image.

    Returns:
        The metrics; None without validation images.

    Raises:
        Stopped: `stop` was set.
    """
    data, learner = session.val_data, session.learner
    if data is None:
        return None
    precision = session.options.precision
    # An AP must be comparable with others: with "auto", it is computed in float32.
    predictor = Predictor(learner.evaluated_model, "float32" if precision == "auto" else precision)

    def predict(image: Image) -> Detections:
        if stop.is_set():
            raise Stopped
        with out_of_memory_advice(session.options.less_memory_to_validate):
            return predictor.find_all(image)

    start = time.perf_counter()
    try:
        order = images_to_validate(data, session.options.validation_size)
        results = evaluate(predict, data, order=order).results
        merged = merge_results(distributed.all_gather(results))
        limit = scored_detections(learner.config.detect)
        evaluator = CocoEvaluator(data.coco, data.categories.category_ids, merged, limit)
        metrics = evaluator.summarize()
        if distributed.rank() == 0:  # before anything that can fail on a full disk
            print(format_table(metrics), flush=True)
        session.evaluator = evaluator
        learner.progress.validated = learner.progress.iteration
        session.record_validation(metrics, time.perf_counter() - start)
        if distributed.rank() == 0:
            log_diagnosis(session, data, evaluator)
        if session.files is not None:
            _draw(session.options.folder, data, predict)
    finally:
        learner.model.train()
    scores = main_scores(metrics)
    learner.config = with_best_threshold(learner.config, scores)
    session.saver.save_best(scores.overlaps["all"])
    return metrics


def log_diagnosis(session: Session, data: Dataset, evaluator: CocoEvaluator) -> None:
    """Log once in a run what may be wrong, if a validation finds nothing."""
    if session.diagnosed or not finds_nothing(evaluator.summarize()):
        return
    session.diagnosed = True
    learner = session.learner
    signs = read_signs(
        evaluator,
        session.train_data,
        data,
        learner.evaluated_model,
        learner.config,
        learner.progress,
        session.trend,
    )
    for line in diagnosis(signs):
        logger.warning("%s", line)


def with_best_threshold(config: Config, scores: Scores) -> Config:
    """Set the score threshold of shown detections to that of the best F1, if any is correct."""
    if not scores.overlaps["all"] > 0:
        return config
    return replace(config, score_threshold=best_threshold(scores.matches))


def main_scores(metrics: CocoMetrics) -> Scores:
    """Return the scores of masks, or of boxes if no validation image has an outline."""
    return metrics.main(not math.isnan(metrics.mask.overlaps["all"]))


def images_to_validate(data: Dataset, count: int) -> list[int]:
    """Return the indices of this process's share of the first `count` images."""
    chosen = eval_order(data.image_ids)[:count]
    return chosen[distributed.rank() :: distributed.world_size()]


def report_validation(session: Session, weights: Path) -> Path | None:
    """Write the report of the last validation, if there was one, it is wanted, and has room."""
    evaluator, data = session.evaluator, session.val_data
    if not session.options.report or evaluator is None or data is None:
        return None
    about = {"weights": str(weights), "date": date.today().isoformat()}
    folder = session.options.folder / "report"
    try:
        return write_report(folder, evaluator, data, session.learner.config, about)
    except OSError as error:
        logger.warning("no report in %s: %s", folder, error)
        return None


def _draw(folder: Path, data: Dataset, predict: Callable[[Image], Detections]) -> None:
    """Draw a few validation images; if there is no disk space for it, training continues."""
    try:
        write_validation_pictures(folder, data, predict)
    except OSError as error:
        logger.warning("no validation pictures: %s", error)
