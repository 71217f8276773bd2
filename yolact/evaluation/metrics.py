"""The numbers of an evaluation, and the tables that show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data.problems import printable

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
"""COCO's twelve numbers, with pycocotools' titles."""


STANDARD_LIMIT = 100
"""Number of detections that count per image and class, for the numbers that papers quote."""


def coco_titles(limit: int = STANDARD_LIMIT) -> dict[str, str]:
    """Return `COCO_NUMBERS` for another limit of detections: AR100 becomes AR@400, for example."""
    if limit == STANDARD_LIMIT:
        return COCO_NUMBERS
    return {
        f"AR@{limit}" if name == "AR100" else name: text.replace(
            "maxDets=100", f"maxDets={limit:3}"
        )
        for name, text in COCO_NUMBERS.items()
    }


@dataclass(frozen=True)
class Scores:
    """Average precision of boxes, or of masks, in percent; NaN where there is no ground truth.

    Attributes:
        overlaps: IoU threshold "all", "50", "55", ..., "95" in percent -> average precision.
        coco: COCO's twelve numbers, by the keys of `coco_titles`.
        per_class: label -> average precision over all IoU thresholds.
        matches: the matches behind the averages.
    """

    overlaps: dict[str, float]
    coco: dict[str, float]
    per_class: dict[int, float]
    matches: Matches


@dataclass(frozen=True)
class CocoMetrics:
    """The scores of a set of detections.

    Attributes:
        box: scores by the IoU of boxes.
        mask: scores by the IoU of masks.
        limit: number of detections that count per image and class; COCO's maxDets.
    """

    box: Scores
    mask: Scores
    limit: int = STANDARD_LIMIT

    def main(self, masks: bool) -> Scores:
        """Return the scores of masks if `masks`, else those of boxes."""
        return self.mask if masks else self.box

    def kinds(self, masks: bool) -> dict[str, Scores]:
        """Return the scores by kind: box, then mask if `masks`."""
        return {"box": self.box, "mask": self.mask} if masks else {"box": self.box}


def format_table(metrics: CocoMetrics, masks: bool = True) -> str:
    """Return the original's table of average precision by IoU threshold.

    Args:
        metrics: from `CocoEvaluator.summarize`.
        masks: False omits their row.
    """
    rows = [["", *("all " if name == "all" else f".{name} " for name in OVERLAPS)]]
    for kind, scores in metrics.kinds(masks).items():
        values = scores.overlaps.values()
        rows.append([kind, *(_cell(value, 1 if value >= 99.995 else 2) for value in values)])
    lines = ["".join(f" {cell:>5} |" for cell in row) for row in rows]
    rule = "-------+" * len(rows[0])
    return "\n".join((lines[0], rule, *lines[1:], rule))


def format_coco_summary(metrics: CocoMetrics, masks: bool = True) -> str:
    """Return COCO's twelve numbers as fractions, as pycocotools prints them.

    Args:
        metrics: from `CocoEvaluator.summarize`.
        masks: False omits those of masks.
    """
    lines: list[str] = []
    for kind, scores in metrics.kinds(masks).items():
        lines.append(f"{kind}:")
        for name, title in coco_titles(metrics.limit).items():
            lines.append(f" {title} = {_cell(scores.coco[name] / 100, 3)}")
    return "\n".join(lines)


def format_per_class(metrics: CocoMetrics, names: Sequence[str], masks: bool = True) -> str:
    """Return the average precision of every class, best mask first, unseen classes last.

    Args:
        metrics: from `CocoEvaluator.summarize`.
        names: label -> class name.
        masks: False omits those of masks, and sorts by box.
    """
    kinds = {kind: scores.per_class for kind, scores in metrics.kinds(masks).items()}
    best = [*kinds.values()][-1]
    labels = sorted(best, key=lambda label: (math.isnan(best[label]), -best[label], names[label]))
    names = [printable(name) for name in names]
    width = max((len(name) for name in names), default=0)
    lines = [f"{'class':<{max(width, 5)}}" + "".join(f"  {kind:>6}" for kind in kinds)]
    for label in labels:
        cells = "".join(f"  {_cell(scores[label], 2):>6}" for scores in kinds.values())
        lines.append(f"{names[label]:<{max(width, 5)}}{cells}")
    return "\n".join(lines)


def plain_metrics(
    metrics: CocoMetrics, names: Sequence[str], masks: bool = True
) -> dict[str, object]:
    """Return the metrics as plain values for JSON, in percent; undefined values are null.

    Args:
        metrics: from `CocoEvaluator.summarize`.
        names: label -> class name.
        masks: False sets those of masks to null.
    """
    kinds = metrics.kinds(masks)
    record: dict[str, object] = {"mask": None}
    for kind, scores in kinds.items():
        record[kind] = {name: _defined(value) for name, value in scores.coco.items()}
    record["per_class"] = [
        {"name": name, **{kind: _defined(kinds[kind].per_class[label]) for kind in kinds}}
        for label, name in enumerate(names)
    ]
    return record


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _cell(value: float, decimals: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"
