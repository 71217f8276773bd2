"""The figures of an evaluation report."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data.problems import printable
from yolact.drawing.detections import palette_color
from yolact.drawing.plots import in_style
from yolact.evaluation.confusion import SizeRecall
from yolact.evaluation.metrics import CocoMetrics

FEW_CLASSES = 10
MAX_CONFUSED = 80  # classes that a confusion matrix can show legibly
_NUMBERS_FIT = 15
_INK, _PALE = "#222222", "#d0d0d0"


@in_style
def draw_precision_recall(precision: NDArray[np.float64], names: Sequence[str]) -> Figure:
    """Draw precision over recall: at overlap .5, at .75, and the mean over all ten overlaps.

    Few classes get a curve each. Of many, the three best and the three worst stand out.

    Args:
        precision: (10, 101, C), see `Matches.precision`.
        names: label -> class name.
    """
    panels = {
        "IoU .5": precision[0],
        "IoU .75": precision[5],
        "mean of IoU .5 to .95": precision.mean(axis=0),
    }
    figure = Figure(figsize=(13, 5.8), layout="constrained")
    rows = figure.subplots(1, 3, sharey=True)
    ranked = _best_first(precision)
    for axes, (title, curves) in zip(rows, panels.items(), strict=True):
        _draw_classes(axes, curves, ranked, names)
        axes.set(title=title, xlabel="recall", xlim=(0, 1), ylim=(0, 1.02))
    rows[0].set_ylabel("precision")
    return figure


def _best_first(precision: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the labels that have objects, by falling average precision."""
    average = precision.mean(axis=(0, 1))
    ranked = np.argsort(-average, kind="stable")
    return np.asarray(ranked[average[ranked] >= 0])


def _draw_classes(
    axes: Axes, curves: NDArray[np.float64], ranked: NDArray[np.intp], names: Sequence[str]
) -> None:
    """Draw (101, C) curves of the ranked classes and their mean."""
    recalls = np.linspace(0, 1, len(curves))
    many = len(ranked) > FEW_CLASSES
    others = ranked[3:-3] if many else ranked[:0]
    for label in others:
        axes.plot(recalls, curves[:, label], color=_PALE, linewidth=0.6)
    for place, label in enumerate(label for label in ranked if label not in others):
        text = f"{_shorten(names[label])}  {_ap(curves[:, label])}"
        color, line = _color(place if many else label), "--" if many and place > 2 else "-"
        axes.plot(recalls, curves[:, label], line, label=text, color=color, clip_on=False)
    if len(ranked) > 1:
        mean = curves[:, ranked].mean(axis=1)
        axes.plot(recalls, mean, label=f"mean of {len(ranked)}  {_ap(mean)}", color=_INK, lw=2.4)
    if len(others):
        axes.plot([], [], color=_PALE, label=f"{len(others)} others")
    if len(ranked):
        _legend_below(axes, "AP, percent")
    else:
        axes.text(0.5, 0.5, "no objects to find", ha="center", color=_INK)


@in_style
def draw_confusion(counts: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Draw a confusion matrix.

    Objects are coloured by their share of the class, false detections by theirs of the detections.
    Beyond `MAX_CONFUSED` classes those with the most objects and detections are shown.

    Args:
        counts: (C+1, C+1), see `Outcome.confusion`.
        names: label -> class name.
    """
    weights = (counts.sum(axis=0) + counts.sum(axis=1))[:-1]
    labels = np.sort(np.argsort(-weights, kind="stable")[:MAX_CONFUSED])
    title = f"{len(labels)} of {len(names)} classes" if len(labels) < len(names) else ""
    shown = [*labels.tolist(), len(names)]
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares[-1] = 100 * counts[-1] / np.maximum(counts.sum(axis=0), 1)
    side = max(4.5, 1.5 + min(0.75 * len(shown), 6 + 0.1 * len(shown)))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares[np.ix_(shown, shown)], cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(
        image,
        label="percent of objects; last row: of detections",
        shrink=0.5,
        aspect=30,
    )
    size = 9 if len(shown) <= 2 * _NUMBERS_FIT else 7
    words = [_shorten(names[label]) for label in labels]
    places = range(len(shown))
    axes.set_yticks(places, [*words, "(background)"], fontsize=size)
    axes.set_xticks(
        places, [*words, "(missed)"], fontsize=size, rotation=90 if len(shown) > 4 else 0
    )
    axes.set(xlabel="detected as", ylabel="true class", title=title)
    axes.grid(visible=False)
    if len(shown) <= _NUMBERS_FIT:
        _write_counts(axes, counts[np.ix_(shown, shown)], shares[np.ix_(shown, shown)])
    return figure


def _write_counts(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 55 else _INK
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)


@in_style
def draw_sizes(
    metrics: CocoMetrics, recalls: Sequence[SizeRecall], score_threshold: float, masks: bool
) -> Figure:
    """Draw AP by COCO's three sizes, and recall over finer ones.

    Args:
        metrics: of `CocoEvaluator.summarize`.
        recalls: of `recall_by_size`.
        score_threshold: of the `found` curve.
        masks: whether there are masks beside the boxes.
    """
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    for number, (kind, scores) in enumerate(metrics.kinds(masks).items()):
        values = [scores.coco[f"AP{size}"] for size in "sml"]
        places = np.arange(3) + 0.4 * number
        bars = left.bar(
            places, np.nan_to_num(values), 0.38, label=kind, color=_color(1 + 2 * number)
        )
        texts = ["-" if math.isnan(value) else f"{value:.1f}" for value in values]
        left.bar_label(bars, texts, padding=2)
    left.set_xticks(np.arange(3) + 0.2 * masks, ["small\n< 32² px", "medium", "large\n> 96² px"])
    left.set(title="AP by size", ylabel="percent", ylim=(0, 105))
    left.grid(visible=False, axis="x")
    _legend_below(left)
    labels = [f"{_sides(row)}\n{row.objects}" for row in recalls]
    curves = {
        "IoU .5, any score": [row.findable for row in recalls],
        f"IoU .5, score from {score_threshold:.2f}": [row.found for row in recalls],
        "mean of IoU .5 to .95, any score": [row.recall for row in recalls],
    }
    for (name, shares), color in zip(curves.items(), (1, 3, 2), strict=True):
        percent = 100 * np.array(shares)
        right.plot(percent, marker="o", ms=4, label=name, color=_color(color))
    right.set_xticks(range(len(labels)), labels)
    right.set(title="recall by size", xlabel="square root of the area in pixels; number of objects")
    right.set(ylabel="percent", ylim=(0, 105))
    _legend_below(right)
    return figure


def _sides(row: SizeRecall) -> str:
    low, high = row.sides
    return f"from {low:.0f}" if math.isinf(high) else f"{low:.0f} to {high:.0f}"


def _legend_below(axes: Axes, title: str = "") -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, title=title or None)


def _shorten(name: str) -> str:
    """Cut a class name that would not fit beside a figure."""
    name = printable(name)  # matplotlib refuses half a character
    return textwrap.shorten(name, 24, placeholder="…") if " " in name else name[:24]


def _ap(curve: NDArray[np.float64]) -> str:
    return f"{100 * curve.mean():.1f}"


def _color(number: int) -> str:
    return "#" + bytes(palette_color(number)).hex()
