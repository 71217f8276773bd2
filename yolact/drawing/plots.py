"""Figures in one style, drawn without a display."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from yolact.files import whole_file

Parameters = ParamSpec("Parameters")

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""The (x, y) points of each curve, by its name."""

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a class may be called "US$"
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "font.size": 9,
}


def in_style(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Make a function that draws a figure use the common style."""

    @wraps(draw)
    def styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def collect_curves(
    iterations: Sequence[int], values: Iterable[Mapping[str, float | None]]
) -> Curves:
    """Collect the points of each curve.

    Args:
        iterations: N positions on the x axis.
        values: for each of these, values by name; None and NaN are left out.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for iteration, row in zip(iterations, values, strict=True):
        for name, value in row.items():
            if value is not None and math.isfinite(value):
                curves.setdefault(name, []).append((iteration, value))
    return curves


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure atomically, as PNG or in the format of its suffix."""
    with warnings.catch_warnings(), mpl.rc_context(_STYLE), whole_file(path) as part:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a class name: a box is drawn
        figure.savefig(part, format=path.suffix[1:] or "png", dpi=110)
    return path


@in_style
def draw_curves(title: str, panels: Mapping[str, Curves]) -> Figure:
    """Draw curves over the iterations of a run, in panels side by side.

    A curve is interrupted where its iterations go back, as a new session of the log begins there.

    Args:
        title: title above all panels.
        panels: y label -> curves; empty panels are left out.
    """
    panels = {label: curves for label, curves in panels.items() if curves} or {"": {}}
    figure = Figure(figsize=(2 + 6 * len(panels), 4.5), layout="constrained")
    figure.suptitle(title)
    for axes, (label, curves) in zip(_row(figure, len(panels)), panels.items(), strict=True):
        for name, points in curves.items():
            few = "o" if len(points) < 20 else ""
            x, y = np.array(points, np.float64).T
            back = 1 + np.flatnonzero(np.diff(x) < 0)
            broken = (np.insert(values, back, np.nan) for values in (x, y))
            axes.plot(*broken, label=name, linewidth=1.2, marker=few, ms=3)
        axes.set(xlabel="iteration", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylim(bottom=0)
        if curves:
            axes.legend()
    return figure


def _row(figure: Figure, columns: int) -> list[Axes]:
    return list(figure.subplots(1, columns, squeeze=False)[0])
