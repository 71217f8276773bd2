"""Overfit a light preset from scratch to a few real images, to check that every loss falls.

Example:
  python scripts/overfit.py path/to/coco_small --images=8
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from data.annotations.as_coco import coco_content
from data.annotations.coco import CocoInstances
from data.catalog import open_dataset
from data.conversion import WRITERS, ImagePlaces
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command
from yolact.cli.train_flags import parse_arguments
from yolact.errors import UsageError
from yolact.files import write_json
from yolact.runs.names import find_checkpoints
from yolact.training.log import read_log

ROOT = Path(__file__).resolve().parent.parent
MARKER = ".overfit"  # a file in the folders that this script makes


def main(argv: Sequence[str] | None = None) -> None:
    """Make a dataset of a few images, train on it, and score on the same images."""
    parser = make_parser("overfit.py", __doc__)
    parser.add_argument("dataset", help="as in train.py; its training split is used")
    add_flags(
        parser,
        "options",
        (
            flag("--images", "number of images", int, 8),
            flag("--min_area", "minimum area of an object, as a share of the image", float, 0.01),
            flag("--image_size", "side of the network input in pixels", int, 256),
            flag("--config", "preset", str, "yolact_resnet18"),
            flag("--iterations", "steps, each on all images", int, 400),
            flag("--lr", "learning rate", float, 4e-3),
            flag("--precision", "precision of the arithmetic", str, "bfloat16"),
            flag("--output", "folder for data, weights and log", Path, Path("results/overfit")),
        ),
    )
    args = parser.parse_args(argv)
    at_least(args, images=1, iterations=20)  # whose losses are logged at every tenth
    refuse_foreign(args.output)
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
    flags = [
        f"--config={args.config}", f"--dataset={args.output / 'data'}",
        f"--batch_size={args.images}", "--no_autoscale", f"--lr={args.lr}", "--num_workers=1",
        f"--precision={args.precision}", f"--save_folder={args.output}",
        f"--log_folder={args.output}", "--validation_epoch=-1",
        *(f"--set={path}={value}" for path, value in settings.items()),
    ]  # fmt: skip
    name = parse_arguments(None, flags)[0].name  # refuses what cannot be
    log = args.output / f"{name}.log"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=args.output.parent) as made:
        make_subset(args.dataset, args.images, args.min_area, Path(made) / "data")
        args.output.mkdir(exist_ok=True)
        (args.output / MARKER).touch()
        for folder in (args.output / "data", args.output / name):
            if folder.exists():
                shutil.rmtree(folder)
        best = args.output / f"{name}_best.pth"
        for file in (log, best, *find_checkpoints(args.output, name)):
            file.unlink(missing_ok=True)
        (Path(made) / "data").rename(args.output / "data")
    if subprocess.run([sys.executable, str(ROOT / "train.py"), *flags], check=False).returncode:
        raise ValueError("training failed, see above")
    print(summarize(log))


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that this script did not make, in which it would replace things.

    Raises:
        UsageError: so it is.
    """
    here, place = Path.cwd(), folder.resolve()
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if place in (here, *here.parents) or not (is_free or (folder / MARKER).is_file()):
        raise UsageError(
            f"--output={folder}: expected a new or empty folder, or one of an earlier run, and not "
            "the working folder; name another"
        )


def make_subset(name: str, count: int, min_area: float, folder: Path) -> None:
    """Copy the first training images without crowds or tiny objects, as both splits.

    Raises:
        ValueError: there is none.
    """
    dataset = open_dataset(name, "train")
    if not isinstance(dataset, CocoInstances):
        raise UsageError(f"{name}: expected a dataset of files")
    usable = []
    for index in range(len(dataset)):
        info, objects = dataset.image_info(index), dataset.annotations(index)
        least = min_area * info["width"] * info["height"]
        if objects and all(not o["iscrowd"] and o["area"] >= least for o in objects):
            usable.append(index)
    if not usable:
        raise ValueError(
            f"{name}: no image has objects of at least {min_area:g} of its area alone; give a "
            "lower --min_area"
        )
    places = ImagePlaces(folder, WRITERS["coco"].images, "copy")
    for split in ("train", "val"):
        content = coco_content(dataset, 0)
        for index in usable[:count]:
            info = dataset.image_info(index)
            info["file_name"] = places.put(dataset.image_path(index), info["file_name"], split)
            content["images"].append(info)
            content["annotations"] += dataset.annotations(index)
        write_json(folder / "annotations" / f"instances_{split}.json", {**content})


def summarize(log: Path) -> str:
    """Compare the first and the last losses of a run."""
    losses = [record["data"]["loss"] for record in read_log(log) if record["type"] == "train"]
    first, last = losses[0], losses[-1]
    return "\n".join(f"loss {name}: {first[name]:.3f} -> {last[name]:.3f}" for name in first)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
