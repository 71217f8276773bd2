"""The numbers of an evaluation, and the tables that show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .matches import Matches

OVERLAPS = ("all", "50", "55", "60", "65", "70", "75", "80", "85", "90", "95")
COCO_NUMBERS = {
    "AP": "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]",
    "AP50": "Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ]",
    "AP75": "Average Precision  (AP) @[ IoU=0.75      | area=   all | maxDets=100 ]",
    "APs": "Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ]",
    "APm": "Average Precision  (AP) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ]",
    "APl": "Average Precision  (AP) @[ IoU=0.50:0.95 | area= large | maxDets=100 ]",
    "AR1": "Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ]",
    "AR10": "Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets= 10 ]",
    "AR100": "Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]",
    "ARs": "Average Recall     (AR) @[ IoU=0.50:0.95 | area= small | maxDets=100 ]",
    "ARm": "Average Recall     (AR) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ]",
    "ARl": "Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ]",
}
"""COCO's twelve numbers, and how pycocotools prints them."""


@dataclass(frozen=True)
class CocoMetrics:
    """What a set of detections scores, in percent; NaN where there is no ground truth to find.

    Attributes:
        box: average precision at "all", "50", "55", ..., "95" of box overlap.
        mask: the same of mask overlap.
        box_coco: COCO's twelve numbers for boxes, by the keys of `COCO_NUMBERS`.
        mask_coco: the same for masks.
        box_per_class: label -> average precision over all thresholds.
        mask_per_class: the same for masks.
        box_matches: what lies behind the averages.
        mask_matches: the same for masks.
    """

    box: dict[str, float]
    mask: dict[str, float]
    box_coco: dict[str, float]
    mask_coco: dict[str, float]
    box_per_class: dict[int, float]
    mask_per_class: dict[int, float]
    box_matches: Matches
    mask_matches: Matches


def format_table(metrics: CocoMetrics, masks: bool = True) -> str:
    """Return the table of average precision by overlap that the original prints.

    Args:
        metrics: of `CocoEvaluator.summarize`.
        masks: False leaves their row out.
    """
    rows = [["", *("all " if name == "all" else f".{name} " for name in metrics.box)]]
    for kind, values in (("box", metrics.box), ("mask", metrics.mask))[: 1 + masks]:
        rows.append(
            [kind, *(_cell(value, 1 if value >= 99.995 else 2) for value in values.values())]
        )
    lines = ["".join(f" {cell:>5} |" for cell in row) for row in rows]
    rule = "-------+" * len(rows[0])
    return "\n".join((lines[0], rule, *lines[1:], rule))


def format_coco_summary(metrics: CocoMetrics, masks: bool = True) -> str:
    """Return COCO's twelve numbers as fractions, as pycocotools prints them.

    Args:
        metrics: of `CocoEvaluator.summarize`.
        masks: False leaves theirs out.
    """
    lines: list[str] = []
    for kind, numbers in (("box", metrics.box_coco), ("mask", metrics.mask_coco))[: 1 + masks]:
        lines.append(f"{kind}:")
        for name, title in COCO_NUMBERS.items():
            lines.append(f" {title} = {_cell(numbers[name] / 100, 3)}")
    return "\n".join(lines)


def format_per_class(metrics: CocoMetrics, names: Sequence[str]) -> str:
    """Return the average precision of every class, best mask first, unseen classes last.

    Args:
        metrics: of `CocoEvaluator.summarize`.
        names: label -> class name.
    """
    box, mask = metrics.box_per_class, metrics.mask_per_class
    labels = sorted(mask, key=lambda label: (math.isnan(mask[label]), -mask[label], names[label]))
    width = max((len(name) for name in names), default=0)
    lines = [f"{'class':<{max(width, 5)}}  {'box':>6}  {'mask':>6}"]
    for label in labels:
        cells = f"{_cell(box[label], 2):>6}  {_cell(mask[label], 2):>6}"
        lines.append(f"{names[label]:<{max(width, 5)}}  {cells}")
    return "\n".join(lines)


def plain_metrics(
    metrics: CocoMetrics, names: Sequence[str], masks: bool = True
) -> dict[str, object]:
    """Return the metrics as JSON holds them, in percent; what is undefined is null.

    Args:
        metrics: of `CocoEvaluator.summarize`.
        names: label -> class name.
        masks: False makes theirs null.
    """
    kinds = {"box": (metrics.box_coco, metrics.box_per_class)}
    if masks:
        kinds["mask"] = (metrics.mask_coco, metrics.mask_per_class)
    record: dict[str, object] = {"mask": None}
    for kind, (numbers, _) in kinds.items():
        record[kind] = {name: _defined(value) for name, value in numbers.items()}
    record["per_class"] = [
        {"name": name, **{kind: _defined(values[label]) for kind, (_, values) in kinds.items()}}
        for label, name in enumerate(names)
    ]
    return record


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _cell(value: float, decimals: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"
