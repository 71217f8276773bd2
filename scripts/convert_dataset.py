"""Convert a dataset to another format: classes, splits and masks stay unchanged.

Any format that train.py takes is read; docs/formats.md says what each format can hold.

Examples:
  python scripts/convert_dataset.py my_data out --format=labelme
  python scripts/convert_dataset.py project.xml out --format=yolo --images=link
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from data.conversion import WRITERS, convert_dataset
from data.problems import summarize
from yolact.cli.common import add_flags, flag, make_parser, run_command
from yolact.errors import UsageError

SHOWN = 20
"""Lines about what was left out, before they are counted only."""

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert one dataset; say on standard error what was left out."""
    parser = make_parser("convert_dataset.py", __doc__)
    parser.add_argument("source", help="dataset to read, as in train.py")
    parser.add_argument("target", type=Path, help="folder to write")
    add_flags(
        parser,
        "options",
        (
            flag("--format", "format to write", required=True, choices=list(WRITERS)),
            flag("--images", "how to add images", str, "copy", choices=("copy", "link", "none")),
            flag("--overwrite", "write into a folder that is not empty", bool),
        ),
    )
    args = parser.parse_args(argv)
    check_target(args.source, args.target, args.overwrite)
    problems = convert_dataset(args.source, args.target, args.format, args.images)
    for problem in problems[:SHOWN]:
        logger.warning("%s: %s", "changed" if problem.is_used else "left out", problem)
    if len(problems) > SHOWN:
        logger.warning("in all: %s", summarize(problems))
    print(args.target)


def check_target(source: str, target: Path, overwrite: bool) -> None:
    """Refuse a folder that would mix with what is there.

    Raises:
        UsageError: it is not empty, no folder, or the dataset itself.
    """
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file: name a folder to write")
    read, written = Path(source).resolve(), target.resolve()
    is_file, above = read.is_file(), (written, *written.parents)
    if (is_file and written == read.parent) or (read.is_dir() and read in above):
        raise UsageError(f"{target} is in the dataset itself: name another folder to write")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty: name another folder, or add --overwrite")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
