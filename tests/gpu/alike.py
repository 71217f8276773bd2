"""How far results of different engines and precisions may differ."""

from __future__ import annotations

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
    worst = 1.0
    for one, other in ((expected, found), (found, expected)):
        masks = other.masks
        for mask, label, score in zip(one.masks, one.labels, one.scores, strict=True):
            if score < SCORE:
                continue
            same = (other.labels == label) & (other.scores > SCORE - MARGIN)
            ious = [float((mask & m).sum() / max(1, (mask | m).sum())) for m in masks[same.numpy()]]
            best = max(ious, default=0.0)
            assert best >= overlap, f"{one.class_names[int(label)]} {score:.2f}: IoU {best:.3f}"
            worst = min(worst, best)
    return worst
