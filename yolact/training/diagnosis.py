"""Diagnose a validation that finds nothing: measure likely causes, and report them with advice."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from data.annotations.coco import CocoInstances
from data.annotations.run_lengths import overlaps
from data.images import to_tensor
from data.problems import counted
from data.sample import Dataset
from yolact.config import Config
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.metrics import CocoMetrics
from yolact.evaluation.result_files import Result
from yolact.models.segmenter import AnySegmenter
from yolact.models.yolact import Yolact

from .anchor_fit import best_overlaps
from .dataset_report import measure_objects
from .optim import learning_rate_at
from .state import Progress

if TYPE_CHECKING:
    from pycocotools.coco import COCO

SCORE = 0.05
"""Detections with lower scores count as none."""

_STEPS = 10  # first and last steps whose mean losses are compared
_STILL, _RISING = 0.02, 1.5  # a loss that changed by this share, or grew to this multiple
_IDLE_RATE = 1e-6  # a lower learning rate changes no weight in any reasonable time
_FEW_MET = 0.5  # share of objects that match an anchor, below which anchors are suspicious
_IMAGES = 4  # images on which the network's outputs are checked
_BEGIN_AGAIN = "begin again with --set train.gradient_clip=10"


@dataclass
class LossTrend:
    """The losses of the first and of the last steps of a run."""

    first: list[Mapping[str, float]] = field(default_factory=list)
    last: deque[Mapping[str, float]] = field(default_factory=lambda: deque(maxlen=_STEPS))

    def add(self, losses: Mapping[str, float]) -> None:
        """Add the losses of a step, by name."""
        if len(self.first) < _STEPS:
            self.first.append(losses)
        else:
            self.last.append(losses)

    def change(self, name: str = "") -> tuple[float, float] | None:
        """Return the mean of a loss in the first and in the last steps, by default of the total.

        Returns:
            None while there are too few steps.
        """
        if len(self.last) < _STEPS:
            return None

        def mean(steps: Iterable[Mapping[str, float]]) -> float:
            return float(np.mean([each[name] if name else sum(each.values()) for each in steps]))

        return mean(self.first), mean(self.last)


@dataclass(frozen=True)
class Signs:
    """Measurements after a validation without a correct detection.

    Attributes:
        images: number of validation images.
        detections: number of detections in these with a score above `SCORE`.
        objects: number of objects in these, without crowds.
        misnamed: (class of the object, class of the detection) of objects found as another class.
        unlearned: classes of validation objects without any training object.
        met: share of the training objects that match an anchor.
        iteration: steps taken.
        warmup: steps during which the learning rate rises.
        rate: highest learning rate of the steps taken.
        skipped: number of steps that were not finite.
        total: total loss, in the first and in the last steps; None after too few steps.
        mask: mask loss, in the first and in the last steps; None after too few steps.
        best_score: highest score of any class anywhere; None if unknown.
        prototypes: largest value of the prototypes; None if there are none.
        dataset: name of the dataset.
    """

    images: int
    detections: int
    objects: int
    misnamed: tuple[tuple[str, str], ...]
    unlearned: tuple[str, ...]
    met: float
    iteration: int
    warmup: int
    rate: float
    skipped: int
    total: tuple[float, float] | None
    mask: tuple[float, float] | None
    best_score: float | None
    prototypes: float | None
    dataset: str


def finds_nothing(metrics: CocoMetrics) -> bool:
    """Tell whether no detection is correct, or none scores above `SCORE`."""
    found = metrics.box.matches.detections
    return not (found["found"].any() and (found["score"] > SCORE).any())


def read_signs(
    evaluator: CocoEvaluator,
    train_data: Dataset,
    val_data: Dataset,
    model: AnySegmenter,
    config: Config,
    progress: Progress,
    trend: LossTrend,
) -> Signs:
    """Measure the signs of likely causes.

    Args:
        evaluator: evaluator of the validation.
        train_data: its objects are compared with the anchors.
        val_data: the network's outputs are checked on a few of its images.
        model: in evaluation mode.
        config: configuration of the run.
        progress: progress of the run.
        trend: trend of the run's losses.
    """
    names = dict(zip(evaluator.category_ids, config.model.names, strict=True))
    truth = evaluator.ground_truth()
    objects = [part for part in truth.anns.values() if not part["iscrowd"]]
    detections = [found for found in evaluator.results.detections if found.box_score > SCORE]
    measured = measure_objects(train_data, max_images=500)
    learned = set(measured.labels.tolist())
    if isinstance(train_data, CocoInstances):
        learned = set(np.flatnonzero(train_data.has_class().any(axis=0)).tolist())
    known = {names[i] for i in np.array(evaluator.category_ids)[sorted(learned)].tolist()}
    sought = {names[part["category_id"]] for part in objects}
    met = best_overlaps(measured.boxes, config.model) >= config.loss.positive_iou
    best_score, prototypes = _outputs(model, val_data)
    return Signs(
        images=len(evaluator.results.images),
        detections=len(detections),
        objects=len(objects),
        misnamed=tuple(_misnamed(truth, detections, names)),
        unlearned=tuple(sorted(sought - known)),
        met=float(met.float().mean()) if len(met) else 0.0,
        iteration=progress.iteration,
        warmup=config.train.warmup_iterations,
        rate=max(learning_rate_at(i, config.train) for i in range(max(progress.iteration, 1))),
        skipped=progress.skipped,
        total=trend.change(),
        mask=trend.change("mask"),
        best_score=best_score,
        prototypes=prototypes,
        dataset=config.dataset,
    )


def diagnosis(signs: Signs) -> list[str]:
    """Return a line with the findings, and one line for each likely cause."""
    seen = f"no detection in {counted(signs.images, 'image')} scores above {SCORE:g}"
    if signs.detections:
        seen = f"none of {signs.detections} detections covers an object of its class by half"
    causes = (
        ("classes", _classes(signs)),
        ("anchors", _anchors(signs)),
        ("learning rate", _learning_rate(signs)),
        ("masks", _masks(signs)),
        ("background", _background(signs)),
    )
    likely = [f"  {topic}: {text}" for topic, text in causes if text]
    unknown = "  no cause stands out: look at train_pictures.jpg, and train longer"
    after = counted(signs.iteration, "step")
    return [f"nothing is found after {after}: {seen}", *(likely or [unknown])]


def _classes(signs: Signs) -> str:
    if not signs.objects:
        return "there is no object to find in the validation images: label some"
    if signs.unlearned:
        listed = ", ".join(signs.unlearned[:5])
        return f"no training object is a {listed}: call them alike in both splits"
    if 2 * len(signs.misnamed) >= signs.objects:
        ((actual, found), count), *_ = Counter(signs.misnamed).most_common(1)
        return (
            f"{len(signs.misnamed)} of {signs.objects} objects are found, but called differently, "
            f"such as {actual} called {found} ({count}): compare the class lists of both splits"
        )
    return ""


def _anchors(signs: Signs) -> str:
    if signs.met >= _FEW_MET:
        return ""
    return (
        f"{signs.met:.0%} of the training objects meet one: yolact anchors {signs.dataset} "
        "proposes better ones, --set model.image_size=... larger objects"
    )


def _learning_rate(signs: Signs) -> str:
    first, last = signs.total or (0.0, 0.0)
    if signs.rate < _IDLE_RATE:
        return f"{signs.rate:g} moves no weight: raise it (--lr)"
    if signs.skipped or last > _RISING * first:
        what = f"the loss went from {first:.3g} to {last:.3g}" if last > first else "it diverges"
        skipped = f"{counted(signs.skipped, 'step')} skipped"
        return f"{signs.rate:g} is too high, {what}, {skipped}: lower it (--lr)"
    if signs.total and _stands_still(signs.total):
        return f"at {signs.rate:g} the loss stands still at {last:.3g}: raise it (--lr)"
    if signs.iteration <= signs.warmup:
        return f"{signs.rate:g}, rising until step {signs.warmup}: wait for another validation"
    return ""


def _masks(signs: Signs) -> str:
    if signs.prototypes == 0:
        return f"every prototype is 0 everywhere, which training does not mend: {_BEGIN_AGAIN}"
    if signs.mask and signs.mask[1] > 0 and _stands_still(signs.mask):
        return f"their loss stands still at {signs.mask[1]:.3g}: {_BEGIN_AGAIN}"
    return ""


def _background(signs: Signs) -> str:
    if signs.best_score is None or signs.best_score > SCORE:
        return ""
    return (
        f"everything is taken for it, the highest score anywhere is {signs.best_score:.2g}: label "
        "every object in the training images, begin with trained weights (--weights), train longer"
    )


def _stands_still(change: tuple[float, float]) -> bool:
    return abs(change[1] - change[0]) <= _STILL * abs(change[0])


def _misnamed(
    truth: COCO, detections: Iterable[Result], names: Mapping[int, str]
) -> Iterable[tuple[str, str]]:
    """Yield (class, detected class) of each object that only detections of other classes cover."""
    by_image: dict[int, list[Result]] = {}
    for found in detections:
        by_image.setdefault(found.image_id, []).append(found)
    for image_id, results in by_image.items():
        parts = [part for part in truth.imgToAnns[image_id] if not part["iscrowd"]]
        if not parts:
            continue
        boxes, own = ([list(r.box) for r in results], [part["bbox"] for part in parts])
        for part, column in zip(parts, overlaps(boxes, own).T, strict=True):
            called = [results[i].category_id for i in np.flatnonzero(column >= 0.5)]
            if called and part["category_id"] not in called:
                yield names[part["category_id"]], names[called[0]]


@torch.no_grad()
def _outputs(model: AnySegmenter, data: Dataset) -> tuple[float | None, float | None]:
    """Return the highest score and the largest prototype value in a few images."""
    if not isinstance(model, Yolact) or not len(data):
        return None, None
    scores, values = [], []
    for index in range(min(len(data), _IMAGES)):
        try:
            image = to_tensor(data.sample(index).image).to(model.device)
        except (ValueError, OSError):  # told when it was to be evaluated
            continue
        predictions = model.network(model.preprocess([image]))
        scores.append(predictions.class_logits.float().softmax(dim=2)[..., 1:].max().item())
        values.append(predictions.prototypes.max().item())
    return max(scores, default=None), max(values, default=None)
