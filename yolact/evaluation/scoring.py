"""COCO average precision, computed by pycocotools: the number that papers quote.

The original had its own computation and dropped tiny objects from the ground truth, so its eval
printed slightly higher values than COCO's own tools. Here only pycocotools is used.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.annotations.as_coco import coco_index
from data.annotations.run_lengths import measure

from .matches import collect_matches
from .metrics import OVERLAPS, STANDARD_LIMIT, CocoMetrics, Scores, coco_titles
from .result_files import CocoResults, Result

if TYPE_CHECKING:
    from pycocotools.coco import COCO

Annotation = dict[str, Any]
"""An entry of COCO's `annotations`."""


def score(
    truth: COCO, results: CocoResults, category_ids: Sequence[int], limit: int = STANDARD_LIMIT
) -> CocoMetrics:
    """Score detections against the annotations of their images.

    Args:
        truth: from `ground_truth`.
        results: N detections.
        category_ids: label -> category id.
        limit: number of best detections that count per image and class; COCO's maxDets.
    """
    boxes = map(_box_annotation, results.detections)
    masks = (_mask_annotation(results, result) for result in results.detections)
    box, mask = (
        _score(truth, index_annotations(results, found, category_ids), kind, category_ids, limit)
        for truth, kind, found in ((truth, "bbox", boxes), (_of_masks(truth), "segm", masks))
    )
    return CocoMetrics(box, mask, limit)


def ground_truth(coco: COCO, results: CocoResults, category_ids: Sequence[int]) -> COCO:
    """Copy the annotations of the evaluated images, so that pycocotools may modify them.

    They are renumbered: pycocotools takes an annotation with id 0 as never found. An object without
    an outline is marked as `box_only`, and its box is its outline: detections there do not count in
    the scores of masks.
    """
    groups = (coco.imgToAnns.get(image_id, ()) for image_id in results.images)
    truth = index_annotations(results, itertools.chain.from_iterable(groups), category_ids)
    for annotation in truth.dataset["annotations"]:
        annotation.setdefault("iscrowd", 0)
        annotation["box_only"] = not annotation.get("segmentation")
        if annotation["box_only"]:
            annotation["segmentation"] = [_corners(annotation["bbox"])]
        if "area" not in annotation or "bbox" not in annotation:
            box, area = measure(truth.annToRLE(annotation))
            annotation.setdefault("area", area)
            annotation.setdefault("bbox", box)
    return truth


def index_annotations(
    results: CocoResults, annotations: Iterable[Mapping[str, object]], category_ids: Sequence[int]
) -> COCO:
    """Index copies of the annotations of the evaluated images, numbered from 1."""
    images = results.images.items()
    return coco_index(
        {
            "images": [{"id": i, "height": hw[0], "width": hw[1]} for i, hw in images],
            "annotations": [{**a, "id": number} for number, a in enumerate(annotations, start=1)],
            "categories": [{"id": category_id} for category_id in sorted(set(category_ids))],
        }
    )


def _score(truth: COCO, found: COCO, kind: str, category_ids: Sequence[int], limit: int) -> Scores:
    from pycocotools.cocoeval import COCOeval

    scorer = COCOeval(truth, found, kind)
    scorer.params.maxDets = [min(1, limit), min(10, limit), limit]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    matches = collect_matches(scorer, category_ids)
    precision = matches.precision  # (10, 101, C)
    labels = range(len(category_ids))
    numbers = [_percent(value) for value in scorer.stats]
    if limit != STANDARD_LIMIT:  # pycocotools gives the first number only for a limit of 100
        numbers[0] = _percent(precision)
    return Scores(
        overlaps=dict(zip(OVERLAPS, map(_percent, (precision, *precision)), strict=True)),
        coco=dict(zip(coco_titles(limit), numbers, strict=True)),
        per_class={label: _percent(precision[:, :, label]) for label in labels},
        matches=matches,
    )


def _of_masks(truth: COCO) -> COCO:
    """Mark objects without outlines as crowds: pycocotools ignores them and detections in them."""
    annotations = truth.dataset["annotations"]
    if not any(annotation["box_only"] for annotation in annotations):
        return truth
    copied = [{**a, "iscrowd": int(a["iscrowd"] or a["box_only"])} for a in annotations]
    return coco_index({**truth.dataset, "annotations": copied})


def _percent(values: NDArray[np.float64] | float) -> float:
    """Average the defined values, in percent; pycocotools marks undefined ones with -1."""
    defined = np.asarray(values)[np.asarray(values) > -1]
    return 100 * float(defined.mean()) if defined.size else math.nan


def _corners(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x, y + height, x + width, y + height, x + width, y]


def _box_annotation(result: Result) -> Annotation:
    return {
        "image_id": result.image_id,
        "category_id": result.category_id,
        "bbox": list(result.box),
        "area": result.box[2] * result.box[3],
        "score": result.box_score,
        "iscrowd": 0,
    }


def _mask_annotation(results: CocoResults, result: Result) -> Annotation:
    run_lengths = results.run_lengths(result)
    return {
        "image_id": result.image_id,
        "category_id": result.category_id,
        "segmentation": run_lengths,
        "area": measure(run_lengths)[1],
        "score": result.mask_score,
        "iscrowd": 0,
    }
