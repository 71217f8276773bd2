"""Plot a training log: the loss terms, or average precision, over the iterations.

python scripts/plot_loss.py logs/yolact_base.log
python scripts/plot_loss.py logs/yolact_base.log val --out ap.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolact.cli.common import make_parser, run_command, writable_file
from yolact.drawing.plots import Curves, collect_curves, draw_curves, save_figure
from yolact.models.mask_rcnn import MaskRcnn
from yolact.models.yolact import Yolact
from yolact.training.log import Record, read_log

NAMES = {"T": "total"} | {
    letter: name for model in (MaskRcnn, Yolact) for name, letter in model.loss_letters.items()
}


def curves_of(records: Sequence[Record], what: str) -> Curves:
    """Gather (iteration, value) by the name of each curve; undefined values are left out."""
    events = [record["data"] for record in records if record["type"] == what]
    return collect_curves([data["iter"] for data in events], (_values(d, what) for d in events))


def _values(data: Record, what: str) -> dict[str, float | None]:
    if what == "train":
        return {NAMES.get(letter, letter): loss for letter, loss in data["loss"].items()}
    return {f"{kind} AP": data[kind].get("all") for kind in ("box", "mask")}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the plot and print its path."""
    parser = make_parser("plot_loss.py", __doc__)
    parser.add_argument("log", type=Path, help="log file, in logs/")
    parser.add_argument("what", nargs="?", choices=("train", "val"), default="train")
    parser.add_argument("--out", type=Path, help="picture to write; by default beside the log")
    args = parser.parse_args(argv)
    writable_file("--out", args.out)
    records = read_log(args.log)
    try:
        curves = curves_of(records, args.what)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{args.log} is not a training log") from None
    if not curves:
        raise ValueError(f"{args.log} has no {args.what} events to plot")
    label = "loss" if args.what == "train" else "AP (%)"
    out = args.out or args.log.with_name(f"{args.log.stem}_{args.what}.png")
    print(save_figure(draw_curves(args.log.stem, {label: curves}), out))


if __name__ == "__main__":
    raise SystemExit(run_command(main))
