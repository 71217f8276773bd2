"""What a check tells: passed or failed, and beside that what it measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "failed", "not here", "skipped"]


class NotHere(Exception):
    """Something that a check needs is absent; the message names it."""


@dataclass(frozen=True)
class Number:
    """One measurement."""

    name: str
    value: float
    unit: str


@dataclass
class Report:
    """Collects what one check measures and notes."""

    numbers: list[Number] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def number(self, name: str, value: float, unit: str) -> None:
        """Record a measurement, such as ("yolact_base, eager, bfloat16: p50", 3.1, "ms")."""
        self.numbers.append(Number(name, float(value), unit))

    def note(self, text: str) -> None:
        """Record a text of any number of lines, such as a table."""
        self.notes.append(text)


@dataclass(frozen=True)
class Outcome:
    """What became of one check.

    Attributes:
        name: module and function, as in "goldens.check_float32".
        status: "skipped" for want of time.
        seconds: that it took.
        message: one line, why it did not pass.
        traceback: of its failure.
        peak_mb: the most memory on the card; 0 without one.
        numbers: what it measured.
        notes: what it noted.
    """

    name: str
    status: Status
    seconds: float = 0.0
    message: str = ""
    traceback: str = ""
    peak_mb: float = 0.0
    numbers: list[Number] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict) -> Outcome:
        """Undo `dataclasses.asdict`."""
        return cls(**{**values, "numbers": [Number(**each) for each in values["numbers"]]})

    def line(self) -> str:
        """Say it in one line."""
        reason = f"  {self.message}" if self.message else ""
        status = "FAILED" if self.status == "failed" else self.status
        return f"{status:<8}  {self.seconds:6.1f} s  {self.name}{reason}"
