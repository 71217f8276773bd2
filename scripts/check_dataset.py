"""Describe a dataset, and list what looks wrong in it: the exit code is 1 if anything does.

Any format that train.py takes is understood: docs/formats.md lists them.

Examples:
  python scripts/check_dataset.py my_folder
  python scripts/check_dataset.py my_folder --val=0.2
  python scripts/check_dataset.py my_folder --config=yolact_resnet50 --picture=training.jpg
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from data.annotations.coco import CocoInstances
from data.catalog import SHAPES, Split, open_dataset
from data.checks.dataset import check_dataset
from data.checks.trainable import check_trainable
from data.problems import Problem
from data.sample import Dataset
from yolact.cli.common import (
    DATA,
    add_flags,
    flag,
    make_parser,
    named_config,
    run_command,
    with_data,
    with_settings,
)
from yolact.config import Config
from yolact.errors import UsageError
from yolact.training.dataset_report import describe_dataset
from yolact.training.pictures import picture_of_training_data, train_transform


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report, then the problems."""
    parser = make_parser("check_dataset.py", __doc__)
    parser.add_argument("dataset", help="as in train.py")
    add_flags(
        parser,
        "options",
        (
            flag("--config", "preset, for its input size and anchors", str, "yolact_base"),
            flag("--picture", "JPEG file to show augmented training images in", Path),
            flag("--shown", "problems to list of each kind", int, 10),
            *DATA,
            flag("--set", "as in train.py", str, [], action="append", metavar="PATH=VALUE"),
        ),
    )
    args = parser.parse_args(argv)
    if args.shown < 1:
        raise UsageError(f"--shown={args.shown}: expected at least 1")
    config = with_settings(named_config(args.config), args.set)
    config = with_data(config, args)
    problems = check_dataset(args.dataset, options=config.data)
    splits = open_splits(config, problems)
    for split, dataset in splits.items():
        print(describe_dataset(dataset, config, split), end="\n\n")
    if "val" not in splits and args.dataset != SHAPES:
        print("no validation split: --val=0.2 holds out images, --val=path names others\n")
    for part, found in problems.items():
        headline = f"problems in {part}: {len(found) or 'none'}"
        print("\n  ".join([headline, *lines(found, args.shown)]))
    if args.picture is not None and "train" in splits:
        print(picture_of_training_data(splits["train"], train_transform(config), args.picture))
    count = sum(map(len, problems.values()))
    if count:
        raise ValueError(f"{args.dataset} has {count} problem{'s' * (count > 1)}, see above")


def open_splits(config: Config, problems: dict[str, list[Problem]]) -> dict[Split, Dataset]:
    """Open the splits that there are, and add what is wrong with their objects as a whole.

    One that cannot be opened has at least one problem.
    """
    name, options = config.dataset, config.data
    splits: dict[Split, Dataset] = {}
    wanted: tuple[Split, ...] = ("train", "val")
    for split in wanted:
        held_out = split == "val" and options.val_share is not None and "train" in splits
        if split not in problems and name != SHAPES and not held_out:
            continue
        classes = splits["train"].categories if "train" in splits else None
        try:
            splits[split] = data = open_dataset(name, split, classes, options=options)
        except (ValueError, FileNotFoundError) as error:
            if not problems.setdefault(split, []):
                problems[split].append(
                    Problem("a split that cannot be used", str(error), "mend it")
                )
            continue
        if isinstance(data, CocoInstances):
            problems.setdefault(split, []).extend(check_trainable(data, split))
    return splits


def lines(problems: Sequence[Problem], shown: int) -> list[str]:
    """List some problems of each kind, and how many more there are."""
    kinds: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.what].append(problem)
    result: list[str] = []
    for what, found in kinds.items():
        result += map(str, found[:shown])
        if len(found) > shown:
            result.append(f"{what}: {len(found) - shown} more")
    return result


if __name__ == "__main__":
    raise SystemExit(run_command(main))
