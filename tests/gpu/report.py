"""What a check tells beside passing or failing."""

from __future__ import annotations

from dataclasses import dataclass, field


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
