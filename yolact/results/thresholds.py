"""Which detections count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """The detections that count.

    Attributes:
        score: those that score lower are dropped.
        top_k: at most this many are kept, best first; None keeps all.
    """

    score: float = 0.0
    top_k: int | None = None
