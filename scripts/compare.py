"""Compare models on one dataset: average precision, speed and size, and the trade-off.

All models find everything that counts for the AP, in the precision that is fast on this machine;
for the speed they take turns at each image. Writes compare.csv and compare.png, the plot of AP over
time.

Examples:
  python scripts/compare.py a.pth b.pth --dataset=my_data --out=results/compare
  python scripts/compare.py yolact_resnet50 maskrcnn_resnet50_fpn --device=cuda --max_images=500
  python scripts/compare.py a.pth b.pth --detect --engine=eager --precision=float32
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data.catalog import open_dataset
from data.classes import Categories
from data.options import DataOptions
from data.problems import counted
from yolact import Predictor
from yolact.checkpoint import Checkpoint, is_exported
from yolact.cli.common import (
    DATA,
    add_flags,
    add_machine_flags,
    at_least,
    device_name,
    flag,
    make_parser,
    run_command,
    with_data,
    with_settings,
    writable_folder,
)
from yolact.cli.eval_flags import parse_arguments as parse_eval_arguments
from yolact.cli.evaluate import warn_of_learned_images
from yolact.cli.from_flags import choose_model, engine_for, load_predictor, with_limits
from yolact.config import Config
from yolact.drawing.plots import in_style, save_figure
from yolact.engines.names import EngineName
from yolact.errors import naming_checkpoint
from yolact.evaluation.coco import CocoEvaluator, eval_order, evaluate
from yolact.evaluation.speed import (
    WARM_UP,
    BenchmarkReport,
    Variant,
    align,
    benchmark,
    network_gflop,
)
from yolact.report.tables import Cell, Table, write_csv
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.timing import summarize

logger = logging.getLogger("compare")

SCORES = ("AP", "AP50", "APs", "APm", "APl")
SIZES = ("M parameters", "weights MB", "peak MB", "GFLOP")
COLUMNS = ("model", *SCORES, "ms", "fps", *SIZES, "engine")


@dataclass(frozen=True)
class Entry:
    """One of the models, scored.

    Attributes:
        variant: to be timed.
        scores: AP in percent by the names in `SCORES`.
        images: of which it is.
        parameters: without the branch that only training uses.
        weights: bytes, as they are held, or of an exported model the files.
        peak: most bytes in use on the GPU; NaN on a CPU.
    """

    variant: Variant
    scores: dict[str, float]
    images: int
    parameters: int
    weights: int
    peak: float


def main(argv: Sequence[str] | None = None) -> None:
    """Score every model, then time them in turn; print the table, write table and plot."""
    args = parse_arguments(argv)
    read = (choose_model(eval_arguments(args, model)) for model in args.models)
    (first, of_first), *others = ((config, checkpoint.config) for checkpoint, config in read)
    if any(set(other.model.names) != set(first.model.names) for other, _ in others):
        logger.warning("the models know other classes: the AP of each is of its own alone")
    args.dataset = args.dataset or first.dataset
    trained = [config for config in (of_first, *(own for _, own in others)) if config is not None]
    options = shared_options(args, first, trained)
    entries = [score(args, model, options) for model in args.models]
    images = timed_images(args, options)
    report = benchmark([entry.variant for entry in entries], images, Thresholds(), batch_sizes=())
    table = tabulate(entries, report, images[0])
    print(align([table.columns, *(list(map(show, row)) for row in table.rows)]))
    images_of = f"{counted(entries[0].images, 'image')} of {args.dataset}"
    print(f"\n{'box' if args.detect else 'mask'} AP on {images_of}; {report.machine}")
    write_csv(args.out / "compare.csv", table)
    print(args.out / "compare.csv")
    print(save_figure(draw(table, args.detect), args.out / "compare.png"))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("compare.py", __doc__)
    parser.add_argument("models", nargs="+", help="checkpoints, exported files, or released names")
    add_flags(
        parser,
        "options",
        (
            flag("--dataset", "as in eval.py; by default the first model's"),
            flag("--out", "folder to write to", Path, Path("results/compare")),
            flag("--max_images", "number of images to score; -1 for all", int, -1),
            flag("--max_detections", "as in eval.py", int),
            flag("--speed_images", "number of images to time", int, 50),
            flag("--engine", "engine of the networks", str, "auto", choices=get_args(EngineName)),
            flag("--detect", "compare boxes, not masks", bool),
            *DATA,
        ),
    )
    add_machine_flags(parser)
    args = parser.parse_args(argv)
    at_least(args, speed_images=1)
    writable_folder("--out", args.out)
    return args


def shared_options(
    args: argparse.Namespace, first: Config, trained: Sequence[Config]
) -> DataOptions:
    """Return how all models take the dataset: as the first that was trained on it, and the flags.

    Args:
        args: the flags.
        first: of the first model.
        trained: with which the models were trained, as far as they tell.
    """
    place = Path(args.dataset).resolve()
    there = [config for config in trained if Path(config.dataset).resolve() == place]
    shares = dict.fromkeys(config.data.val for config in there)
    if args.val is None and len(shares) > 1:
        listed = " and ".join(f"--val={share}" if share else "without --val" for share in shares)
        logger.warning(
            "the models were trained %s: the images are those of the first, and others may have "
            "learned them; --val chooses images",
            listed,
        )
    return with_settings(with_data(next(iter(there), first), args), args.set).data


def score(args: argparse.Namespace, model: str, options: DataOptions) -> Entry:
    """Load a model and compute its average precision."""
    each = eval_arguments(args, model)
    checkpoint, config = choose_model(each)
    classes = Categories.from_names(config.model.names)
    own = checkpoint.config
    with naming_checkpoint((own.dataset, own.data.val) if own else ()):
        dataset = open_dataset(args.dataset, "val", classes, options=options)
    if own is not None:
        warn_of_learned_images(args.dataset, options, own)
    order = eval_order(dataset.image_ids)[: args.max_images if args.max_images >= 0 else None]
    config, limit = with_limits(each, config, dataset)
    engine = engine_for(each, checkpoint, config)
    on_gpu = engine.device.type == "cuda"
    before = torch.cuda.memory_allocated(engine.device) if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(engine.device)
    predictor = load_predictor(each, checkpoint, config, engine)
    evaluator = CocoEvaluator(dataset.coco, dataset.categories.category_ids, limit=limit)
    metrics = evaluate(predictor.find_all, dataset, evaluator, order=order).summarize()
    peak = torch.cuda.max_memory_allocated(engine.device) - before if on_gpu else np.nan
    return Entry(
        Variant(label(model, args.models), predictor, no_drawing, engine),
        metrics.main(not args.detect).coco,
        len(order),
        count_parameters(predictor),
        weights_size(checkpoint, predictor),
        peak,
    )


def eval_arguments(args: argparse.Namespace, model: str) -> argparse.Namespace:
    """Return what eval.py would be called with to time a model."""
    flags = [f"--trained_model={model}", f"--engine={args.engine}", "--benchmark"]
    flags += [f"--device={device_name(args)}", f"--precision={args.precision}"]
    flags += [f"--set={assignment}" for assignment in args.set]
    flags += [f"--dataset={args.dataset}"] if args.dataset else []
    flags += [f"--max_detections={args.max_detections}"] if args.max_detections is not None else []
    return parse_eval_arguments(None, flags + ["--detect"] * args.detect)


def label(model: str, models: Sequence[str]) -> str:
    """Return the name of a file, with as much of its path as tells it from the others."""
    short = Path(model).stem
    return short if sum(Path(other).stem == short for other in models) == 1 else model


def timed_images(args: argparse.Namespace, options: DataOptions) -> list[NDArray[np.uint8]]:
    """Return decoded images to time: the first ones that were scored, after some to warm up."""
    dataset = open_dataset(args.dataset, "val", options=options)
    indices = eval_order(dataset.image_ids)[: args.speed_images]
    images = [dataset.sample(index).image for index in indices]
    if not images:
        raise ValueError(f"{args.dataset}: no images to compare on")
    return images[:1] * WARM_UP + images


def no_drawing(image: NDArray[np.uint8], detections: Detections) -> NDArray[np.uint8]:
    """Draw nothing."""
    return image


def count_parameters(predictor: Predictor) -> int:
    """Count the parameters that detecting needs."""
    parameters = predictor.model.named_parameters()
    return sum(p.numel() for name, p in parameters if not name.startswith("network.semantic."))


def weights_size(checkpoint: Checkpoint, predictor: Predictor) -> int:
    """Return the bytes of a model's weights."""
    if is_exported(checkpoint.path):
        is_openvino = checkpoint.path.suffix.lower() == ".xml"
        files = [checkpoint.path, *([checkpoint.path.with_suffix(".bin")] * is_openvino)]
        return sum(file.stat().st_size for file in files)
    return sum(tensor.nbytes for tensor in predictor.model.state_dict().values())


def tabulate(entries: Sequence[Entry], report: BenchmarkReport, image: NDArray[np.uint8]) -> Table:
    """Return a row for each model; operations are counted for one image."""
    rows: list[list[Cell]] = []
    for entry, measured in zip(entries, report.measurements, strict=True):
        engine, model = entry.variant.engine, entry.variant.predictor.model
        scores = [entry.scores[name] for name in SCORES]
        time = summarize(measured.seconds).median
        memory = [entry.weights / 2**20, entry.peak / 2**20]
        size = [entry.parameters / 1e6, *memory, network_gflop(model, image)]
        how = f"{engine.name}, {engine.precision}"
        rows.append([measured.label, *scores, time, 1000 / time, *size, how])
    return Table(COLUMNS, rows)


def show(cell: Cell) -> str:
    """Write a cell for people; what is not known is a dash."""
    if isinstance(cell, str):
        return cell
    return f"{cell:.1f}" if np.isfinite(cell) else "-"


@in_style
def draw(table: Table, boxes: bool) -> Figure:
    """Draw the trade-off: AP over the milliseconds of an image, a labelled point for each model."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    times, scores = ([float(row[COLUMNS.index(key)]) for row in table.rows] for key in ("ms", "AP"))
    for number, (row, time, ap) in enumerate(zip(table.rows, times, scores, strict=True)):
        axes.plot(time, ap, "o", color=f"C{number % 10}", markersize=8)
        axes.annotate(str(row[0]), (time, ap), (0, 9), textcoords="offset points", ha="center")
    best = max((score for score in scores if not np.isnan(score)), default=0.0)  # without truth
    axes.set(xlabel="milliseconds for an image", ylabel=f"{'box' if boxes else 'mask'} AP")
    axes.set(xlim=(0, 1.2 * max(times)), ylim=(0, 1.2 * best or 1))  # room for the labels
    return figure


if __name__ == "__main__":
    raise SystemExit(run_command(main))
