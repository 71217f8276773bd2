"""Describe a dataset, and list what looks wrong in it; exit with code 1 if anything is wrong.

Any format that train.py takes is understood. With a model, list also the labels that it
contradicts.

Examples:
  python scripts/check_dataset.py my_folder
  python scripts/check_dataset.py my_folder --val=0.2
  python scripts/check_dataset.py my_folder --config=yolact_resnet50 --picture=training.jpg
  python scripts/check_dataset.py my_folder --with=mine.pth --sheet=suspects.jpg --report=check.html
  python scripts/check_dataset.py my_folder --fix=mended
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.annotations.coco import CocoInstances
from data.catalog import SHAPES, Split, open_dataset
from data.checks.dataset import check_dataset
from data.checks.trainable import check_trainable
from data.problems import Problem, counted
from data.sample import Dataset
from yolact.cli.common import (
    DATA,
    add_flags,
    at_least,
    flag,
    make_parser,
    named_config,
    newest_checkpoint,
    run_command,
    with_data,
    with_settings,
    writable_file,
)
from yolact.config import Config
from yolact.doctor.findings import MOST, Findings, examine, with_suspects
from yolact.doctor.mend import write_mended
from yolact.doctor.page import write_page
from yolact.doctor.pictures import caption, write_sheet
from yolact.errors import UsageError
from yolact.files import write_json
from yolact.predictor import Predictor
from yolact.training.dataset_report import describe_dataset
from yolact.training.pictures import picture_of_training_data, training_data

FLAGS = (
    flag("--config", "preset, for its input size and anchors", str, "yolact_base"),
    flag("--picture", "JPEG file for a picture of augmented training images", Path),
    flag("--shown", "number of problems to list for each kind", int, 10),
    *DATA,
    flag("--set", "as in train.py", str, [], action="append", metavar="PATH=VALUE"),
)
MODEL_FLAGS = (
    flag("--with", "model whose detections are compared with the labels", dest="model"),
    flag("--suspects", "most contradicted labels to list", int, MOST),
    flag("--sheet", "JPEG file for pictures of these labels", Path),
    flag("--device", "auto, cpu, cuda, cuda:1 or mps", str, "auto"),
)
FILE_FLAGS = (
    flag("--report", "HTML file for the whole report, with pictures of examples", Path),
    flag("--json", "JSON file for the whole report", Path),
    flag("--fix", "new folder for a corrected copy in COCO format", Path, metavar="FOLDER"),
    flag("--link", "link the images of the copy instead of copying them", bool),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report, then the problems."""
    args = read_flags(argv)
    config = with_data(with_settings(named_config(args.config), args.set), args)
    problems = check_dataset(args.dataset, options=config.data)
    splits = open_splits(config, problems)
    model = newest_checkpoint("--with", args.model, Path("weights"), None) or args.model
    predictor = Predictor.from_checkpoint(model, args.device) if model else None
    findings = examine(args.dataset, splits, problems, config.model.image_size)
    for split, dataset in splits.items():
        print(describe_dataset(dataset, config, split), end="\n\n")
    if "val" not in splits and args.dataset != SHAPES and not args.val:
        print("no validation split: --val=0.2 holds out images, --val=path names others\n")
    print_problems("problems", findings.problems, args.shown)
    print_problems(
        "worth a look", {part: n for part, n in findings.notices.items() if n}, args.shown
    )
    unknown: ValueError | None = None
    if predictor is not None and findings.splits:
        try:
            findings = with_suspects(findings, predictor, args.suspects)
            print_suspects(findings, args.shown)
        except ValueError as error:  # the model knows none of the classes
            unknown = error
    write_files(args, findings, config, splits.get("train"))
    if unknown is not None:
        raise unknown
    count = sum(map(len, findings.problems.values()))
    if count:
        raise ValueError(f"{args.dataset} has {counted(count, 'problem')}, see above")


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UsageError: a flag that does nothing without another, or a count below 1.
    """
    parser = make_parser("check_dataset.py", __doc__)
    parser.add_argument("dataset", help="as in train.py")
    add_flags(parser, "options", FLAGS)
    add_flags(parser, "labels that a model contradicts", MODEL_FLAGS)
    add_flags(parser, "files", FILE_FLAGS)
    args = parser.parse_args(argv)
    at_least(args, shown=1, suspects=1)
    for name in ("picture", "sheet", "report", "json"):
        writable_file(f"--{name}", getattr(args, name))
    for name, default in (("sheet", None), ("suspects", MOST), ("device", "auto")):
        if getattr(args, name) != default and not args.model:
            raise UsageError(f"--{name}={getattr(args, name)}: needs --with=model.pth")
    if args.link and not args.fix:
        raise UsageError("--link: needs --fix=folder, whose images it links")
    if args.fix and args.fix.exists() and (not args.fix.is_dir() or any(args.fix.iterdir())):
        raise UsageError(f"--fix={args.fix}: expected a new or an empty folder")
    return args


def open_splits(config: Config, problems: dict[str, list[Problem]]) -> dict[str, Dataset]:
    """Open the splits that there are, and add what is wrong with their objects as a whole.

    One that cannot be opened has at least one problem.
    """
    name, options = config.dataset, config.data
    splits: dict[str, Dataset] = {}
    wanted: tuple[Split, ...] = ("train", "val")
    for split in wanted:
        held_out = split == "val" and options.val_share is not None and "train" in splits
        if split not in problems and name != SHAPES and not held_out:
            continue
        classes = splits["train"].categories if "train" in splits else None
        try:
            splits[split] = data = open_dataset(name, split, classes, options=options)
        except (ValueError, FileNotFoundError) as error:
            if all(problem.is_notice for problem in problems.setdefault(split, [])):
                what = "a split that cannot be used"
                problems[split].append(Problem.of_error(what, error, "mend it"))
            continue
        if isinstance(data, CocoInstances):
            problems.setdefault(split, []).extend(check_trainable(data, split))
    return splits


def print_problems(title: str, problems: Mapping[str, Sequence[Problem]], shown: int) -> None:
    """Print the problems of each part."""
    for part, found in problems.items():
        headline = f"{title} in {part}: {len(found) or 'none'}"
        print("\n  ".join([headline, *lines(found, shown)]))


def print_suspects(findings: Findings, shown: int) -> None:
    """Print the labels that a model contradicts."""
    classes = {name for dataset in findings.splits.values() for name in dataset.categories.names}
    known = ", ".join(findings.shared[:10]) + (", ..." if len(findings.shared) > 10 else "")
    others = len(classes) - len(findings.shared)
    left = f" and none of the {others} other classes, whose labels are left out" * (others > 0)
    count = len(findings.suspects)
    print(f"labels that the model contradicts: {count or 'none'}; it knows {known}{left}")
    for suspect in findings.suspects[:shown]:
        print(f"  {caption(findings, suspect)}")
    if count > shown:
        print(f"  {count - shown} more")


def write_files(
    args: argparse.Namespace, findings: Findings, config: Config, train: Dataset | None
) -> None:
    """Write the files that are asked for, and say where they are."""
    if args.picture is not None and train is not None:
        print(picture_of_training_data(training_data(train, config), args.picture))
    if args.sheet and findings.suspects:
        print(write_sheet(findings, args.sheet))
    if args.report:
        print(write_page(findings, args.report))
    if args.json:
        write_json(args.json, findings.to_record(), indent=1)
        print(args.json)
    if args.fix:
        for split, counts in write_mended(findings, args.fix, args.link).items():
            told = ", ".join(f"{what} {count}" for what, count in (+counts).items())
            print(f"{args.fix}: {split}: {told or 'nothing to mend'}")


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
