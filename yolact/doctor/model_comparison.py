"""Run a model over a dataset, to compare its detections with the labels."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from data.classes import Categories
from data.problems import some_of
from data.sample import Dataset
from yolact.predictor import Predictor
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.threads import map_ahead

from .image_comparison import Detection, ImageComparison, labels_of

logger = logging.getLogger(__name__)

_SHOWN = 5  # classes in a message
_LEAST = 0.75  # of the model's own threshold: lower scores are not reliable


def compare_with_model(
    predictor: Predictor,
    splits: Mapping[str, Dataset],
    shared: Mapping[str, Mapping[int, str]],
    progress: bool = True,
) -> list[ImageComparison]:
    """Run a model on all images of a dataset; images that cannot be read are skipped.

    Args:
        predictor: predictor of the model.
        splits: the splits of the dataset.
        shared: for each split, the classes that count, see `shared_classes`.
        progress: show a bar on standard error.
    """
    comparisons: list[ImageComparison] = []
    fast = predictor.for_many()
    least = _LEAST * predictor.model.score_threshold
    for split, dataset in splits.items():
        thresholds = Thresholds(least, labels=tuple(shared[split]))
        names = dataset.categories.name_of

        def detect(
            index: int, dataset: Dataset = dataset, thresholds: Thresholds = thresholds
        ) -> Detections | None:
            try:
                image = dataset.sample(index).image
            except (OSError, ValueError) as error:
                logger.warning("not looked at: %s", error)
                return None
            return fast.segment([image], thresholds)[0]

        indices = range(len(dataset))
        with contextlib.closing(map_ahead(detect, indices, fast.workers, fast.workers)) as results:
            bar = tqdm(results, f"look at {split}", len(dataset), unit="img", disable=not progress)
            for index, detections in enumerate(bar):
                info = dataset.image_info(index)
                image_hw = info["height"], info["width"]
                if detections is None or detections.image_hw != image_hw:
                    continue  # of another size than its labels, which is a problem of its own
                labels, crowds = labels_of(dataset.annotations(index), names, image_hw)
                found = _detections_of(detections, shared[split])
                comparisons.append(ImageComparison(split, index, image_hw, found, labels, crowds))
    return comparisons


def shared_classes(data: Categories, model_names: Sequence[str]) -> dict[int, str]:
    """Return the classes that a model and the data share: the model's label -> the data's name.

    Their names are equal, or equal except for case if that is unambiguous.

    Raises:
        ValueError: there are none.
    """
    folded = {name.casefold() for name in model_names}
    if folded.isdisjoint(name.casefold() for name in data.names):
        raise ValueError(
            "the model knows none of the classes of the data: it knows "
            f"{some_of(model_names, _SHOWN)}, the data have {some_of(data.names, _SHOWN)}"
        )
    _, known = data.matched_to(Categories.from_names(tuple(model_names)))
    return {label: data.name_of[number] for number, label in known.items()}


def _detections_of(found: Detections, names_of: Mapping[int, str]) -> tuple[Detection, ...]:
    corners = found.boxes.tolist()
    boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners]
    names = [names_of[label] for label in found.labels.tolist()]
    rows = zip(names, found.scores.tolist(), boxes, found.rle(), strict=True)
    return tuple(Detection(*row) for row in rows)
