"""Measure how well a preset's anchors match the objects of a dataset, and propose better ones.

An object is learned from the anchors whose IoU with it is 0.5 or more; without such an anchor, only
from its best one. Objects are measured at their size in training, at S x S pixels.

Examples:
  python scripts/anchors.py my_folder --config=yolact_resnet50
  python scripts/anchors.py my_folder --config=yolact_resnet18 --scales=2 --ratios=3
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from data.catalog import has_one_split, open_dataset
from data.options import DEFAULT_OPTIONS, DataOptions
from yolact.cli.common import (
    DATA,
    SETTING,
    add_flags,
    flag,
    make_parser,
    named_config,
    run_command,
    with_data,
    with_settings,
)
from yolact.config import ModelConfig
from yolact.errors import UsageError
from yolact.training.anchor_fit import anchor_settings, best_overlaps, propose_anchors
from yolact.training.dataset_report import measure_objects


def main(argv: Sequence[str] | None = None) -> None:
    """Print recall before and after, and the flags that make the difference."""
    parser = make_parser("anchors.py", __doc__)
    parser.add_argument("dataset", help="as in train.py; anchors are fitted to its training split")
    add_flags(
        parser,
        "options",
        (
            flag("--config", "preset", str, "yolact_base"),
            flag("--scales", "number of anchor sides per level; by default the preset's", int),
            flag("--ratios", "number of aspect ratios; by default the preset's", int),
            *DATA,
            SETTING,
        ),
    )
    args = parser.parse_args(argv)
    config = with_settings(named_config(args.config), args.set)
    model = config.model
    scales = len(model.anchor_scales[0]) if args.scales is None else args.scales
    ratios = len(model.anchor_ratios) if args.ratios is None else args.ratios
    for name, count in (("scales", scales), ("ratios", ratios)):
        if not 1 <= count <= 9:
            raise UsageError(f"--{name}={count}: expected 1 to 9")
    torch.set_num_threads(1)  # tensors are small: a second thread would only be waited for
    splits = boxes_by_split(args.dataset, with_data(config, args).data)
    if not len(splits["train"]):
        raise ValueError(f"dataset {args.dataset!r} has no objects to fit anchors to")
    proposed = propose_anchors(splits["train"], model, scales, ratios)
    for split, boxes in splits.items():
        print(f"{split}: {len(boxes)} objects at {model.image_size} x {model.image_size}")
        for name, anchors in ((config.name, model), ("proposed", proposed)):
            print(f"  {name:<24} {quality(boxes, anchors, config.loss.positive_iou)}")
    print("\nto train with the proposed anchors:")
    print(" ".join(f'--set "{setting}"' for setting in anchor_settings(proposed)))


def boxes_by_split(name: str, options: DataOptions = DEFAULT_OPTIONS) -> dict[str, Tensor]:
    """Return the boxes of the training split and, if it is another one, of the validation split."""
    train = open_dataset(name, "train", options=options)
    boxes = {"train": measure_objects(train).boxes}
    if not has_one_split(name, options=options):
        with contextlib.suppress(ValueError, FileNotFoundError):  # it has none
            val = open_dataset(name, "val", train.categories, options=options)
            boxes["val"] = measure_objects(val).boxes
    return boxes


def quality(boxes: Tensor, model: ModelConfig, threshold: float) -> str:
    """Say how many objects meet an anchor, and how well."""
    if not len(boxes):
        return "no objects to measure"
    overlaps = best_overlaps(boxes, model)
    recall, mean = (overlaps >= threshold).float().mean(), overlaps.mean()
    return f"recall at IoU {threshold:g}: {recall:6.1%}   mean best IoU: {mean:.3f}"


if __name__ == "__main__":
    raise SystemExit(run_command(main))
