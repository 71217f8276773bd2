"""Overfit a light preset, from scratch, to a few real images, to see that every loss falls.

Example:
  python scripts/overfit.py path/to/coco_small --images=8
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from data.catalog import resolve_dataset
from yolact.cli.common import add_flags, flag, make_parser, run_command
from yolact.errors import UsageError
from yolact.training.log import read_log


def main(argv: Sequence[str] | None = None) -> None:
    """Make a dataset of a few images, train on it, and score on the same images."""
    parser = make_parser("overfit.py", __doc__)
    parser.add_argument("dataset", help="in COCO's format; its training split is used")
    add_flags(
        parser,
        "options",
        (
            flag("--images", "number of images", int, 8),
            flag("--min_area", "least area of each object, as a share of the image", float, 0.01),
            flag("--image_size", "side of the network input", int, 256),
            flag("--config", "preset", str, "yolact_resnet18"),
            flag("--iterations", "steps, each on all images", int, 400),
            flag("--lr", "learning rate", float, 4e-3),
            flag("--precision", "of the arithmetic", str, "bfloat16"),
            flag("--output", "folder for data, weights and log", Path, Path("results/overfit")),
        ),
    )
    args = parser.parse_args(argv)
    if args.output.exists() and not (args.output / "data" / "annotations").is_dir():
        raise UsageError(f"--output={args.output}: expected a new folder, or one of an earlier run")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=args.output.parent) as made:
        make_subset(args.dataset, args.images, args.min_area, Path(made) / "data")
        shutil.rmtree(args.output, ignore_errors=True)
        args.output.mkdir()
        (Path(made) / "data").rename(args.output / "data")
    settings = {
        "model.image_size": args.image_size,
        "train.max_iterations": args.iterations,
        "train.learning_rate_steps": (int(0.8 * args.iterations),),
        "train.warmup_iterations": args.iterations // 3,
        "train.pretrained_backbone": False,
        "train.gradient_clip": 10,
        "augment.photometric": False,
        "augment.expand": False,
        "augment.crop": False,
        "augment.mirror": False,
    }
    train = [
        "train.py", f"--config={args.config}", f"--dataset={args.output / 'data'}",
        f"--batch_size={args.images}", "--no_autoscale", f"--lr={args.lr}", "--num_workers=1",
        f"--precision={args.precision}", f"--save_folder={args.output}",
        f"--log_folder={args.output}", "--validation_epoch=-1",
        *(f"--set={path}={value}" for path, value in settings.items()),
    ]  # fmt: skip
    if subprocess.run([sys.executable, *train], check=False).returncode:
        raise ValueError("training failed, see above")
    print(summarize(args.output / f"{args.config}.log"))


def make_subset(dataset: str, count: int, min_area: float, folder: Path) -> None:
    """Copy the first training images without crowds or tiny objects, as both splits."""
    paths = resolve_dataset(dataset)
    if paths.train is None or paths.train.format != "coco":
        raise UsageError(f"dataset {dataset!r}: expected a training split in COCO's format")
    content: dict[str, Any] = json.loads(paths.train.annotations.read_text())
    pixels = {image["id"]: image["width"] * image["height"] for image in content["images"]}
    smallest: dict[int, float] = {}
    for a in content["annotations"]:
        area = 0 if a.get("iscrowd") else a["area"] / pixels[a["image_id"]]
        smallest[a["image_id"]] = min(area, smallest.get(a["image_id"], 1.0))
    usable = [i for i in content["images"] if smallest.get(i["id"], 0.0) >= min_area]
    content["images"] = usable[:count]
    chosen = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in chosen]
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (folder / split).mkdir()
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        for image in content["images"]:
            target = folder / split / image["file_name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.train.images / image["file_name"], target)


def summarize(log: Path) -> str:
    """Compare the first and the last losses of a run."""
    losses = [record["data"]["loss"] for record in read_log(log) if record["type"] == "train"]
    first, last = losses[0], losses[-1]
    return "\n".join(f"loss {name}: {first[name]:.3f} -> {last[name]:.3f}" for name in first)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
