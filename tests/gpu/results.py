"""The outcomes of a run as JSON, as text, and as a table in a document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .report import Outcome

HEADING = "## Results\n"


@dataclass
class Results:
    """Everything that a run has told so far.

    Attributes:
        machine: what it ran on, see `worker.describe`.
        outcomes: in the order in which they came.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """What did not pass."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @classmethod
    def read(cls, file: Path) -> Results:
        """Read what `write` wrote."""
        content = json.loads(file.read_text(encoding="utf-8"))
        return cls(content["machine"], [Outcome.from_dict(each) for each in content["checks"]])

    def write(self, folder: Path) -> None:
        """Write gpu.json and gpu.txt, each whole or not at all."""
        content = {"machine": self.machine, "checks": [asdict(each) for each in self.outcomes]}
        forms = {"gpu.json": json.dumps(content, indent=1) + "\n", "gpu.txt": self.text()}
        for name, text in forms.items():
            part = folder / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(folder / name)

    def summary(self) -> str:
        """Count the outcomes in one line."""
        counts = [
            f"{sum(each.status == status for each in self.outcomes)} {status}"
            for status in ("ok", "failed", "not here", "skipped")
        ]
        seconds = sum(outcome.seconds for outcome in self.outcomes)
        return f"{', '.join(counts)}; {seconds:.0f} s"

    def text(self) -> str:
        """Return everything, to be read."""
        numbers = [(n.name, _digits(n.value), n.unit) for o in self.outcomes for n in o.numbers]
        notes = [note for outcome in self.outcomes for note in outcome.notes]
        parts = [
            "\n".join(f"{name}: {value}" for name, value in self.machine.items()),
            "\n".join(outcome.line() for outcome in self.outcomes),
            self.summary(),
            _columns(numbers),
            *notes,
            *(f"{outcome.name}\n{outcome.traceback}" for outcome in self.failed),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def document(self, text: str) -> str:
        """Return a document in Markdown with these results in the section `HEADING`, its last."""
        before, heading, _ = text.partition(HEADING)
        if not heading:
            raise ValueError(f"no section {HEADING.strip()!r} to put the results into")
        machine = self.machine
        where = machine.get("card") or machine["device"]
        versions = ", ".join(
            f"{name} {machine[key]}"
            for name, key in (("driver", "driver"), ("PyTorch", "torch"), ("CUDA", "cuda"))
            if machine.get(key)
        )
        rows = [
            f"| {n.name} | {_digits(n.value)} {n.unit} |" for o in self.outcomes for n in o.numbers
        ]
        table = ["| what | measured |", "| --- | --- |", *rows]
        lines = [f"{where}, {versions}, {machine['date'][:10]}: {self.summary()}.", "", *table]
        return before + heading + "\n" + "\n".join(lines) + "\n"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:>{widths[1]}} {unit}" for name, value, unit in rows
    )
