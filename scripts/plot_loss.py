"""Plot a training log: the terms of the loss, or average precision, over the iterations.

python scripts/plot_loss.py logs/yolact_base.log
python scripts/plot_loss.py logs/yolact_base.log val --out ap.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from yolact.drawing.plots import Curves, collect_curves, draw_curves, save_figure
from yolact.models.mask_rcnn import MaskRcnn
from yolact.models.yolact import Yolact
from yolact.training.log import Record, read_log

NAMES = {"T": "total"} | {
    letter: name for model in (MaskRcnn, Yolact) for name, letter in model.loss_letters.items()
}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(description="Plot a training log.")
    parser.add_argument("log", type=Path, help="a file of logs/")
    parser.add_argument("what", nargs="?", choices=("train", "val"), default="train")
    parser.add_argument("--out", type=Path, help="picture to write; by default beside the log")
    return parser.parse_args(arguments)


def curves_of(records: Sequence[Record], what: str) -> Curves:
    """Gather (iteration, value) by the name of each curve; undefined values are left out."""
    events = [record["data"] for record in records if record["type"] == what]
    return collect_curves([data["iter"] for data in events], (_values(d, what) for d in events))


def _values(data: Record, what: str) -> dict[str, float | None]:
    if what == "train":
        return {NAMES.get(letter, letter): loss for letter, loss in data["loss"].items()}
    return {f"{kind} AP": data[kind].get("all") for kind in ("box", "mask")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the plot and print its path; return the exit status."""
    options = parse_arguments(arguments)
    out = options.out or options.log.with_name(f"{options.log.stem}_{options.what}.png")
    try:
        curves = curves_of(read_log(options.log), options.what)
        if not curves:
            raise ValueError(f"{options.log} has no {options.what} events to plot")
        label = "loss" if options.what == "train" else "AP (%)"
        save_figure(draw_curves(options.log.stem, {label: curves}), out)
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
