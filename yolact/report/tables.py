"""The tables of an evaluation report."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yolact.evaluation.confusion import Outcome, SizeRecall
from yolact.evaluation.matches import Matches
from yolact.evaluation.metrics import CocoMetrics
from yolact.files import as_cell, whole_file

Cell = str | int | float


class Table(NamedTuple):
    """Rows of cells under their headings; an undefined number is NaN."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def write_csv(path: Path, table: Table) -> None:
    """Write a table, numbers with three decimals and undefined ones as nothing."""
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(as_cell, table.columns))
        writer.writerows([_plain(cell) for cell in row] for row in table.rows)


def summary_table(metrics: CocoMetrics, masks: bool) -> Table:
    """Return COCO's twelve numbers in percent, a row for masks and one for boxes."""
    rows: list[tuple[Cell, ...]] = [
        (kind, *scores.coco.values()) for kind, scores in metrics.kinds(masks).items()
    ]
    return Table(("", *metrics.box.coco), rows[::-1])


def class_table(metrics: CocoMetrics, outcome: Outcome, names: Sequence[str], masks: bool) -> Table:
    """Return a row for each class, in percent: the best average precision first."""
    kinds = {kind: scores.matches for kind, scores in metrics.kinds(masks).items()}
    kinds = dict(reversed(kinds.items()))  # masks first
    columns = ["class", "objects"]
    columns += [f"{kind} {name}" for kind in kinds for name in ("AP", "AP50", "AP75")]
    columns += ["detected", "right", "precision", "recall"]
    objects = np.bincount(outcome.objects["label"], minlength=len(names))
    detected = np.bincount(outcome.detections["label"], minlength=len(names))
    right = outcome.confusion.diagonal()
    rows: list[list[Cell]] = []
    for label, name in enumerate(names):
        counts = [int(count[label]) for count in (objects, detected, right)]
        average = [ap for matches in kinds.values() for ap in _average_precisions(matches, label)]
        shares = (_percent(counts[2], counts[1]), _percent(counts[2], counts[0]))
        rows.append([name, counts[0], *average, counts[1], counts[2], *shares])
    rows.sort(key=lambda row: (math.isnan(float(row[2])), -float(row[2])))
    return Table(columns, rows)


def size_table(recalls: Sequence[SizeRecall]) -> Table:
    """Return the recall by size of the objects, in percent."""
    columns = ("side from", "side to", "objects", "found", "found at any score", "average recall")
    rows = []
    for sides, objects, *shares in recalls:
        rows.append((*sides, objects, *(100 * share for share in shares)))
    return Table(columns, rows)


def confusion_table(outcome: Outcome, names: Sequence[str]) -> Table:
    """Return the confusion matrix."""
    heads = [*names, "(background)"]
    counts = outcome.confusion.tolist()
    rows = [[head, *row] for head, row in zip(heads, counts, strict=True)]
    return Table(("true class", *names, "(missed)"), rows)


def frequent_confusions(outcome: Outcome, names: Sequence[str], count: int = 10) -> Table:
    """Return the pairs of classes that are most often taken for each other."""
    counts = outcome.confusion[:-1, :-1].copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:count]
    pairs = [divmod(int(place), len(names)) for place in order]
    rows = [(names[t], names[d], int(counts[t, d])) for t, d in pairs if counts[t, d]]
    return Table(("true class", "detected as", "objects"), rows)


def image_table(outcome: Outcome, files: Mapping[int, str]) -> Table:
    """Return a row for each image with an error, the worst first.

    Args:
        outcome: of all images.
        files: image id -> file name.
    """
    rows = [(row.image_id, files[row.image_id], row.missed, row.false) for row in outcome.errors()]
    return Table(("image_id", "file", "missed", "false"), rows)


def _average_precisions(matches: Matches, label: int) -> list[float]:
    """Return AP, AP50 and AP75 of a class in percent."""
    precision = matches.precision[:, :, label]  # (10, 101)
    if (precision < 0).any():
        return [math.nan] * 3
    return [100 * float(part.mean()) for part in (precision, precision[0], precision[5])]


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan


def _plain(cell: Cell) -> Cell:
    if isinstance(cell, str):
        return as_cell(cell)
    if isinstance(cell, int):
        return cell
    return round(cell, 3) if math.isfinite(cell) else ""
