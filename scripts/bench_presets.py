"""Compare light models: train them equally, time them in turn, and show what accuracy costs.

Every step adds to OUTPUT/results.json; models that are already trained are skipped. To make a short
training meaningful, pyramid, ProtoNet and head start from the bundled model of persons; all
backbones start from ImageNet, and the convolutions between the two from random weights. Batch norm
and the stages before stride 8 keep their ImageNet weights.

Examples:
  python scripts/bench_presets.py train OUTPUT --dataset=persons
  python scripts/bench_presets.py time OUTPUT --dataset=persons --video=clip.mp4
  python scripts/bench_presets.py table OUTPUT --plot=docs/light_presets.png
"""

from __future__ import annotations

import argparse
import json
import runpy
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import eval as evaluation
import train as training
from layers.blocks import init_convolutions
from yolact.checkpoint import read_checkpoint, trained_model
from yolact.cli.common import add_flags, checkpoint_config, flag, make_parser, run_command
from yolact.cli.train_flags import parse_arguments
from yolact.config import ModelConfig
from yolact.drawing.plots import in_style, save_figure
from yolact.errors import UsageError
from yolact.evaluation.speed import network_gflop
from yolact.files import as_file_name, write_json
from yolact.models.segmenter import AnySegmenter
from yolact.presets import get_config
from yolact.training.pretrained import load_backbone
from yolact.training.setup import set_up

Results = dict[str, dict[str, Any]]
"""What is known of each variant, by its name."""

PRESET = get_config("yolact_lite2_person")
BATCH = 4  # so few that batch norm is frozen


def variant(backbone: str, side: int) -> tuple[str, ...]:
    """Return the settings that make a variant of the preset; anchors grow with the input."""
    ratio = side / PRESET.model.image_size
    anchors = [[round(scale * ratio, 1) for scale in level] for level in PRESET.model.anchor_scales]
    return (
        f"model.backbone=timm/tf_efficientnet_{backbone}",
        f"model.image_size={side}",
        f"model.anchor_scales={tuple(map(tuple, anchors))}",
    )


VARIANTS = {
    "Lite0, 320 px": variant("lite0", 320),
    "Lite2, 320 px": variant("lite2", 320),
    "Lite0, 256 px": variant("lite0", 256),
    "Lite0, 384 px": variant("lite0", 384),
    "Lite1, 320 px": variant("lite1", 320),
    "Lite2, 256 px": variant("lite2", 256),
    "Lite1, 384 px": variant("lite1", 384),
    "Lite2, 384 px": variant("lite2", 384),
    "Lite2, 448 px": variant("lite2", 448),
}
"""Name -> settings."""


def main(argv: Sequence[str] | None = None) -> None:
    """Do one of the three steps."""
    parser = make_parser("bench_presets.py", __doc__)
    parser.add_argument("step", choices=list(STEPS))
    parser.add_argument("output", type=Path, help="folder for results.json and the checkpoints")
    add_flags(
        parser,
        "options",
        (
            flag("--dataset", "train: dataset to train and score on; time: to calibrate INT8"),
            flag("--images", "train: number of images for each variant", int, 800),
            flag("--video", "time: a file, for frames per second from file to file"),
            flag("--max_images", "time: frames of the video", int, 100),
            flag("--calibration_images", "time: images for INT8; 0: no INT8", int, 100),
            flag("--plot", "table: picture to write", Path),
        ),
    )
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    results = read_results(args.output)
    if not results and args.step != "train":
        raise UsageError(f"{args.output}: nothing is trained there yet; first comes the step train")
    if args.step == "time" and not args.video:
        raise UsageError("--video: expected a file to time on")
    STEPS[args.step](args, results)


def read_results(folder: Path) -> Results:
    """Return what is known so far."""
    path = folder / "results.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    return results


def train_all(args: argparse.Namespace, results: Results) -> None:
    """Train the variants that have no score yet, one after the other."""
    for name, settings in VARIANTS.items():
        if name in results:
            continue
        start = time.process_time()
        session = set_up(*parse_arguments(None, train_flags(args, name, settings)))
        start_anew(session.learner.model, session.learner.config.model)
        training.train(session)
        assert session.evaluator is not None  # there is a validation at the end
        metrics = session.evaluator.summarize()
        results[name] = {
            "AP": {kind: scores.overlaps for kind, scores in metrics.kinds(masks=True).items()},
            "images": args.images,
            **size_of(session.saver.best),
            "processor_seconds": round(time.process_time() - start),
            "checkpoint": session.saver.best.name,
            "date": date.today().isoformat(),
        }
        write_json(args.output / "results.json", results, indent=1)


def train_flags(args: argparse.Namespace, name: str, settings: Sequence[str]) -> list[str]:
    """Return the flags of train.py; a short training gains from objects as large as they come."""
    return [
        f"--config={PRESET.name}",
        f"--dataset={args.dataset}",
        f"--weights={PRESET.name}",
        "--recipe=modern",
        "--lr=1e-3",
        *(f"--set=augment.{name}" for name in ("expand=False", "crop=False", "copy_paste=0")),
        f"--batch_size={BATCH}",
        "--no_autoscale",
        f"--set=train.max_iterations={args.images // BATCH}",
        *(f"--set={setting}" for setting in settings),
        f"--name={as_file_name(name)}",
        f"--save_folder={args.output}",
        f"--log_folder={args.output}",
        "--keep_latest",
        "--validation_epoch=-1",
        "--no_report",
        "--num_workers=0",
    ]


def start_anew(model: AnySegmenter, config: ModelConfig) -> None:
    """Start the backbone from ImageNet, and what reads it from nothing; hold all before C3."""
    network: Any = model.network
    load_backbone(model, config)
    init_convolutions(network.fpn.lateral)
    features, first = network.backbone.features, network.backbone.indices[0]
    c3 = features.feature_info.module_name()[first]
    for name, parameter in features.named_parameters():  # in the order of their use
        if name.startswith(f"{c3}."):
            return
        parameter.requires_grad_(False)


def time_all(args: argparse.Namespace, results: Results) -> None:
    """Time what is trained, in every precision, all in turn."""
    names, compared = [], []
    for name, known in results.items():
        file = args.output / known["checkpoint"]
        files = {"float32": file, "bfloat16": file}
        if args.calibration_images:
            files["INT8"] = quantised(file, args)
        for precision, each in files.items():
            names.append((name, precision))
            rest = precision if each == file else "float32"  # of the layers that are not INT8
            compared.append(f"--compare=trained_model={each},precision={rest}")
    path = args.output / "speed.json"
    flags = ["--device=cpu", f"--video={args.video}", f"--max_images={args.max_images}"]
    evaluation.main([*flags, f"--json={path}", *compared])
    report = json.loads(path.read_text())
    for (name, precision), measured in zip(names, report["variants"], strict=True):
        speeds = results[name].setdefault("speed", {})
        speeds[precision] = {
            "network_ms": measured["network_ms"]["1"],
            "video_fps": float(np.median(measured["video_fps"])),
        }
        results[name]["timed"] = f"{report['machine']}, {date.today().isoformat()}"
    write_json(args.output / "results.json", results, indent=1)


def size_of(file: Path) -> dict[str, float]:
    """Count the parameters of a model, and its multiplications for an image."""
    checkpoint = read_checkpoint(file)
    model = trained_model(checkpoint, checkpoint_config(checkpoint, None))
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gmac": network_gflop(model, np.zeros((64, 64, 3), np.uint8)) / 2,
    }


def quantised(file: Path, args: argparse.Namespace) -> Path:
    """Export a model in 8 bits, unless it is there."""
    path = file.with_suffix(".xml")
    if not path.exists():
        main = runpy.run_path(str(Path(__file__).with_name("export.py")))["main"]
        calibration = f"--calibration_images={args.calibration_images}"
        data = [f"--dataset={args.dataset}", calibration, "--max_images=1"]
        main([str(path), f"--trained_model={file}", "--int8", *data])
    return path


def show(args: argparse.Namespace, results: Results) -> None:
    """Print the table, the cheapest first and the front in bold, and draw the plot.

    Once there are times, what has none is left out.
    """
    timed = {name: known for name, known in results.items() if "speed" in known}
    results = timed or results
    best = front(results)
    head = ["model", "parameters", "GMAC", "box AP / AP50", "mask AP / AP50"]
    if timed:
        head += ["network, ms", "video, frames/s"]
    print(f"| {' | '.join(head)} |\n" + "| --- " * len(head) + "|")
    for name in by_cost(results):
        cells = [f"**{name}**" if name in best else name, *row(results[name])]
        print(f"| {' | '.join(cells[: len(head)])} |")
    for known in [*timed.values()][:1]:
        print(f"\nspeeds: {' / '.join(known['speed'])}; {known['timed']}")
    if args.plot:
        print(save_figure(trade_off(results), args.plot))


def row(known: dict[str, Any]) -> list[str]:
    """Return the cells of a variant, speeds by precision in the order of their measurement."""
    scores = [known["AP"][kind] for kind in ("box", "mask")]
    speeds = list(known.get("speed", {}).values())
    return [
        f"{known['parameters'] / 1e6:.1f} M",
        f"{known['gmac']:.2f}",
        *(f"{score['all']:.1f} / {score['50']:.1f}" for score in scores),
        " / ".join(f"{speed['network_ms']:.1f}" for speed in speeds),
        " / ".join(f"{speed['video_fps']:.1f}" for speed in speeds),
    ]


def cost(known: dict[str, Any]) -> float:
    """Return the milliseconds of a network in float32, or its GMAC before it is timed."""
    speed = known.get("speed")
    return float(speed["float32"]["network_ms"] if speed else known["gmac"])


def by_cost(results: Results) -> list[str]:
    """Return the names, the cheapest first."""
    return sorted(results, key=lambda name: cost(results[name]))


def gain(known: dict[str, Any]) -> float:
    """Return the mask AP50."""
    return float(known["AP"]["mask"]["50"])


def front(results: Results) -> list[str]:
    """Return the variants that no cheaper one matches, the cheapest first."""
    best: list[str] = []
    for name in by_cost(results):
        if not best or gain(results[name]) > gain(results[best[-1]]):
            best.append(name)
    return best


@in_style
def trade_off(results: Results) -> Figure:
    """Draw mask AP50 over cost, and the front as a line."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    points = {name: (cost(known), gain(known)) for name, known in results.items()}
    axes.plot(*zip(*(points[name] for name in front(results)), strict=True), color="tab:gray", lw=1)
    axes.scatter(*zip(*points.values(), strict=True), zorder=2)
    for name, point in points.items():
        axes.annotate(name, point, (4, 3), textcoords="offset points", fontsize=7)
    is_timed = any("speed" in known for known in results.values())
    axes.set(xlabel="network, ms in float32" if is_timed else "GMAC", ylabel="mask AP50")
    axes.margins(x=0.25)
    return figure


STEPS = {"train": train_all, "time": time_all, "table": show}

if __name__ == "__main__":
    raise SystemExit(run_command(main))
