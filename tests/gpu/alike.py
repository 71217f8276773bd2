"""How far results of different engines and precisions may differ."""

from __future__ import annotations

import math

import torch

from layers.structures import Predictions
from yolact import Detections
from yolact.engines.names import Precision

# Largest difference of a network's outputs by their largest value, and least overlap of masks.
TOLERANCES: dict[Precision, tuple[float, float]] = {
    "float32": (1e-3, 0.99),
    "float16": (3e-2, 0.99),
    "bfloat16": (1e-1, 0.98),
}
SCORE, MARGIN = 0.5, 0.1  # objects that surely count, and by how much a score may change


def precisions(device: torch.device) -> list[Precision]:
    """Return those that a device computes in."""
    if device.type == "cpu":
        return ["float32", "bfloat16"]
    if device.type == "mps":
        return ["float32", "float16"]
    bfloat16: list[Precision] = ["bfloat16"] if torch.cuda.is_bf16_supported(False) else []
    return ["float32", "float16", *bfloat16]


def assert_outputs(found: Predictions, expected: Predictions, tolerance: float) -> float:
    """Compare a network's outputs; return the largest difference by the largest value."""
    worst = 0.0
    for name, a, b in zip(expected._fields[:5], found, expected, strict=False):
        assert a is not None and b is not None
        assert a.shape == b.shape, name
        difference = float((a.float() - b.float()).abs().max() / b.float().abs().max())
        assert difference <= tolerance, f"{name} differs by {difference:.2g} of its largest value"
        worst = max(worst, difference)
    return worst


def assert_objects(found: Detections, expected: Detections, overlap: float) -> float:
    """Find every object in the other detections; return the least overlap of masks."""
    pairs = (expected, found), (found, expected)
    least = min(o for pair in pairs for o in [1.0, *overlaps(*pair, MARGIN, SCORE - MARGIN)])
    assert least >= overlap, f"a mask overlaps by {least:.3f} < {overlap:g}"
    return least


def share_found(
    wanted: Detections, found: Detections, overlap: float, reach: float, score: float = -math.inf
) -> float:
    """Return the share of detections that are found, too, with masks that overlap so much."""
    every = overlaps(wanted, found, reach, score)
    return sum(o >= overlap for o in every) / len(every) if every else 1.0


def overlaps(wanted: Detections, found: Detections, reach: float, score: float) -> list[float]:
    """Return for each detection how well its mask agrees with the best of its class and score.

    Args:
        wanted: N detections.
        found: among these; one pixel of a mask may differ in any case.
        reach: of the scores.
        score: threshold of both; what scores just that may be absent.
    """
    best = []
    for i in (wanted.scores > score + reach).nonzero().flatten().tolist():
        near = (found.scores - wanted.scores[i]).abs() < reach
        same = found.masks[near & (found.labels == wanted.labels[i])]
        both = (same & wanted.masks[i]).flatten(1).sum(1)
        either = (same | wanted.masks[i]).flatten(1).sum(1)
        best.append(max(torch.where(either - both <= 1, 1.0, both / either).tolist(), default=0.0))
    return best
