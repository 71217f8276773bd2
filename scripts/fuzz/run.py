"""Feed damaged files to a parser, guided by code coverage, and keep those that it fails on.

A parser may return, or raise an error of one line that the project wrote. Everything else is a
finding: another error, a crash, more than 5 s of processor time, or more memory than it is allowed.
The first input of each kind is kept as OUT/PARSER/KIND. The parser works in a process of its own,
which is restarted after a crash. Without atheris (pip install atheris) the damage is unguided.

Examples:
  python scripts/fuzz/run.py coco
  python scripts/fuzz/run.py all --executions=2000
  python scripts/fuzz/run.py coco --input=results/fuzz/coco/TypeError-reader-104
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from parsers import MODULE_OF, make_parser
from worker import Note, keep

OUT = Path("results") / "fuzz"
_WAIT = 300.0  # seconds without a new execution after which a process counts as hanging
_MOST_CRASHES = 40
_IN_MEMORY = Path("/dev/shm")  # files in it are
_WORKER = Path(__file__).with_name("worker.py")


class Summary(NamedTuple):
    """What came of a run.

    Attributes:
        executions: contents that were read.
        seconds: that it took.
        kinds: of findings.
    """

    executions: int
    seconds: float
    kinds: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one parser or all; return 1 if something was found."""
    form = argparse.RawDescriptionHelpFormatter
    flags = argparse.ArgumentParser("run.py", description=__doc__, formatter_class=form)
    flags.add_argument(
        "parser",
        choices=[*MODULE_OF, "all"],
        metavar="parser",
        help="one of {}, or all".format(", ".join(MODULE_OF)),
    )
    flags.add_argument("--executions", type=int, default=100_000, help="runs of each parser")
    flags.add_argument("--seed", type=int, default=1, help="seed of the damage, from 1")
    flags.add_argument("--out", type=Path, default=OUT, help="folder for the findings")
    flags.add_argument("--input", type=Path, help="read only this file, and report what happens")
    args = flags.parse_args(argv)
    if args.input:
        return _once(args.parser, args.input)
    found = False
    for name in MODULE_OF if args.parser == "all" else [args.parser]:
        summary = fuzz(name, args.executions, args.seed, args.out)
        found |= bool(summary.kinds)
        told = ", ".join(summary.kinds) or "nothing"
        print(f"{name}: {summary.executions:,} executions, {summary.seconds:.0f} s, found {told}")
    return int(found)


def fuzz(name: str, executions: int, seed: int, out: Path) -> Summary:
    """Run a parser, in a new process after every crash, until it has read so many contents."""
    start, done, kinds = time.monotonic(), 0, set[str]()
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as folder:
        for crashes in range(_MOST_CRASHES):
            note = Note(Path(folder) / "note")
            died = _watch(name, executions - done, seed + crashes, out, note)
            count, content = note.read()
            done += count
            if died:
                kind = f"{died}-{hashlib.sha256(content).hexdigest()[:8]}"
                kinds.add(kind)
                keep(out / name, kind, content)
                print(f"{name}: {kind}\n{note.trace.read_text()}", flush=True)
            if not died or done >= executions or not count:
                break
        kinds |= set(note.kinds.read_text().split())
    return Summary(done, time.monotonic() - start, sorted(kinds))


def _watch(name: str, executions: int, seed: int, out: Path, note: Note) -> str:
    """Start a worker and wait for it; return how it died, "" if it did not."""
    command = [sys.executable, str(_WORKER), name, str(executions), str(seed), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    with subprocess.Popen([*command, str(note.file)], env=environment) as worker:
        last, since = -1, time.monotonic()
        try:
            while worker.poll() is None:
                time.sleep(0.05)
                count = note.read()[0]
                if count != last:
                    last, since = count, time.monotonic()
                elif time.monotonic() - since > _WAIT:
                    return "hang"
        finally:
            worker.kill()
    if worker.returncode == -signal.SIGPROF:
        return "hang"
    code = worker.returncode
    return f"crash-{signal.Signals(-code).name if code < 0 else code}" if code else ""


def _once(name: str, file: Path) -> int:
    from oracle import outcome

    with tempfile.TemporaryDirectory() as folder:
        kind, told = outcome(make_parser(name, Path(folder)), file.read_bytes())
    print(f"{name}: {kind or 'as it should be'}\n{told}")
    return int(bool(kind))


if __name__ == "__main__":
    raise SystemExit(main())
