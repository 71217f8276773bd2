"""Download published weights.

python scripts/download_weights.py yolact_resnet50
python scripts/download_weights.py --list
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from yolact.files import whole_file
from yolact.hub.released import OFFICIAL_WEIGHTS, fetch_weights


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(description="Download published YOLACT weights.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(OFFICIAL_WEIGHTS)}"
    )
    parser.add_argument("--folder", type=Path, default=Path("weights"), help="folder to write to")
    parser.add_argument("--list", action="store_true", help="print the names and addresses")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in OFFICIAL_WEIGHTS]
    if unknown:
        parser.error(f"no weights named {', '.join(unknown)}; see --list")
    if not options.names and not options.list:
        parser.error("name the weights to download; see --list")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the path of each file, downloaded now or before; return the exit status."""
    options = parse_arguments(arguments)
    if options.list:
        for name, official in OFFICIAL_WEIGHTS.items():
            print(f"{name:<22} {official.url}")
    try:
        for name in options.names:
            print(_keep(fetch_weights(name, options.folder), options.folder))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _keep(file: Path, folder: Path) -> Path:
    """Copy a file to a folder, unless it is there."""
    kept = folder / file.name
    if kept != file:
        with whole_file(kept) as part:
            shutil.copyfile(file, part)
    return kept


if __name__ == "__main__":
    sys.exit(main())
