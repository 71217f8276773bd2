"""Starts the worker, watches it, and writes the results; starts another if it dies."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .report import Outcome
from .results import Results

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "gpu.md"
MODULES = (
    *("goldens", "benchmark", "profile", "pixels", "waits", "training", "faults"),
    *("video", "engines"),
)
WRONG_USAGE = 2
PATIENCE = 240.0  # seconds for one check
_POLL = 0.1


@dataclass
class Watched:
    """A run as its parent sees it.

    Args:
        asked: what the worker is told, see `worker.main`.
        folder: for the results.
        patience: seconds for one check.
        command: starts a worker.
    """

    asked: dict
    folder: Path
    patience: float = PATIENCE
    command: Sequence[str] = (sys.executable, "-m", "gpu.worker")
    results: Results = field(default_factory=Results)
    planned: list[str] | None = None
    begun: str | None = None

    def run(self) -> Results:
        """Run everything, in as many processes as it takes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            while self.planned is None or not set(self.planned) <= set(self.done):
                before = len(self.results.outcomes)
                file = Path(folder) / f"{before}.jsonl"
                self.asked |= {"file": str(file), "done": self.done}
                reason = self._watch(file)
                if self.begun is not None:
                    outcome = Outcome(self.begun, "failed", message=reason)
                    print(outcome.line(), flush=True)
                    self._add(outcome)
                elif self.planned != [] and len(self.results.outcomes) == before:
                    raise SystemExit(reason)  # it has said why
        return self.results

    @property
    def done(self) -> list[str]:
        """Names of what needs no other run."""
        return [outcome.name for outcome in self.results.outcomes]

    def _watch(self, file: Path) -> str:
        """Follow a worker to its end; return how it ended."""
        worker = subprocess.Popen([*self.command, json.dumps(self.asked)], env=environment())
        file.touch()
        since, rest = time.monotonic(), ""
        try:
            with file.open(encoding="utf-8") as told:
                while True:
                    code = worker.poll()  # before the last look
                    *lines, rest = (rest + told.read()).split("\n")
                    for line in lines:
                        since = time.monotonic()
                        self._take(json.loads(line))
                    if code == WRONG_USAGE and self.planned is None:
                        raise SystemExit(code)  # it has said why
                    if code is not None:
                        return f"the process ended with {code}"
                    if time.monotonic() - since > self.patience:
                        return f"no answer after {self.patience:.0f} seconds"
                    time.sleep(_POLL)
        finally:
            worker.kill()
            worker.wait()

    def _take(self, told: dict) -> None:
        (what, value), *_ = told.items()
        if what == "machine":
            self.results.machine = value
        elif what == "plan":
            self.planned = self.planned or value
        elif what == "begun":
            self.begun = value
        else:
            self._add(Outcome.from_dict(value))

    def _add(self, outcome: Outcome) -> None:
        self.begun = None
        self.results.outcomes.append(outcome)
        self.results.write(self.folder)


def environment() -> dict[str, str]:
    """Return the variables of a worker: where our packages are, and what determinism needs."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def main(description: str | None, argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    flag("--only", default="", metavar="NAME[,NAME]", help="parts of names of checks")
    flag("--out", type=Path, default=Path("results"), help="folder for gpu.json and gpu.txt")
    flag("--minutes", type=float, default=8.0, help="no measurement begins after them")
    flag("--document", type=Path, metavar="JSON", help="run nothing; put results into docs/gpu.md")
    args = parser.parse_args(argv)
    if args.document:
        text = Results.read(args.document).document(DOCUMENT.read_text(encoding="utf-8"))
        DOCUMENT.write_text(text, encoding="utf-8")
        return 0
    asked = {
        "package": "gpu",
        "modules": MODULES,
        "only": [part for part in args.only.split(",") if part],
        "device": args.device,
        "until": time.time() + 60 * args.minutes,
    }
    try:
        results = Watched(asked, args.out).run()
    except KeyboardInterrupt:
        print("stopped; what was done is in", args.out, file=sys.stderr)
        return 130
    print(results.summary(), args.out / "gpu.json", args.out / "gpu.txt", sep="\n")
    return 1 if results.failed else 0
