"""Plot a training log: the terms of the loss, or average precision, over the iterations.

python scripts/plot_loss.py logs/yolact_base.log
python scripts/plot_loss.py logs/yolact_base.log val --out ap.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from yolact.training_log import LOSS_LETTERS, read_log

NAMES = {letter: name for name, letter in LOSS_LETTERS.items()} | {"T": "total"}
Curves = dict[str, list[tuple[int, float]]]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(description="Plot a training log.")
    parser.add_argument("log", type=Path, help="a file of logs/")
    parser.add_argument("what", nargs="?", choices=("train", "val"), default="train")
    parser.add_argument("--out", type=Path, help="picture to write; by default beside the log")
    return parser.parse_args(arguments)


def collect_curves(records: Sequence[dict[str, Any]], what: str) -> Curves:
    """Gather (iteration, value) by the name of each curve; undefined values are left out."""
    curves: Curves = {}
    for data in (record["data"] for record in records if record["type"] == what):
        if what == "train":
            values = {NAMES.get(letter, letter): loss for letter, loss in data["loss"].items()}
        else:
            values = {f"{kind} AP": data[kind].get("all") for kind in ("box", "mask")}
        for name, value in values.items():
            if value is not None:
                curves.setdefault(name, []).append((data["iter"], value))
    return curves


def draw(curves: Curves, title: str) -> Figure:
    """Draw all curves on one pair of axes."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        iterations, values = zip(*points, strict=True)
        axes.plot(iterations, values, label=name, linewidth=1)
    axes.set(xlabel="iteration", ylabel="loss" if "total" in curves else "AP (%)", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the plot and print its path; return the exit status."""
    options = parse_arguments(arguments)
    out = options.out or options.log.with_name(f"{options.log.stem}_{options.what}.png")
    try:
        curves = collect_curves(read_log(options.log), options.what)
        if not curves:
            raise ValueError(f"{options.log} has no {options.what} events to plot")
        draw(curves, options.log.stem).savefig(out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyError, TypeError, AttributeError):
        print(f"{options.log} is not a training log", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
