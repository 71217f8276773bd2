"""The same mathematics as the released original, number by number, for every golden file."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from support.golden import LOSSES, OUTPUTS, Golden
from torch import Tensor

from layers.detect import detect
from layers.structures import Candidates, Predictions
from yolact import Yolact, build_model, get_config
from yolact.checkpoint import Checkpoint, load_matching_weights
from yolact.formats.official import official_name
from yolact.results.thresholds import Thresholds

FOLDER = Path(
    os.environ.get("YOLACT_GOLDEN", Path(__file__).parent.parent.parent / "shared" / "golden")
)
FILES = sorted(FOLDER.glob("*.npz"))
STEPS = sorted(FOLDER.glob("*_steps.json"))

pytestmark = pytest.mark.skipif(not FILES, reason="no golden files here")


class Run(NamedTuple):
    """One forward and backward pass of a golden file."""

    golden: Golden
    model: Yolact
    predictions: Predictions
    losses: dict[str, float]
    gradients: dict[str, float]
    fast: Candidates
    cross: Candidates


def load(golden: Golden) -> Yolact:
    model = build_model(get_config(golden.preset))
    checkpoint = Checkpoint(Path(), golden.official_state_dict(), official=True)
    assert load_matching_weights(model, checkpoint) == []
    return model.freeze_batch_norm()


@cache
def run(path: Path) -> Run:
    golden = Golden(path)
    model = load(golden).train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    predictions = model.network(golden.images())
    outputs = [p for name, p in predictions._asdict().items() if name != "anchors"]
    for output in outputs:
        output.retain_grad()
    losses = model.criterion(predictions, golden.targets())
    torch.stack(list(losses.values())).sum().backward()
    gradients = {
        name: p.grad.norm().item() for name, p in predictions._asdict().items() if name != "anchors"
    }
    gradients |= {
        official_name(name): p.grad.norm().item()
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    plain = Predictions(*(p.detach() for p in predictions))
    first = Predictions(*(p[:1] for p in plain[:4]), plain.anchors)
    return Run(
        golden,
        model.eval(),
        plain,
        {name: loss.item() for name, loss in losses.items()},
        gradients,
        detect(first)[0],
        detect(first, nms="cross_class")[0],
    )


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden_run(request: pytest.FixtureRequest) -> Run:
    return run(request.param)


def as_official(name: str, predictions: Predictions) -> Tensor:
    value = getattr(predictions, OUTPUTS[name])
    return value.permute(0, 2, 3, 1) if name == "proto" else value


@pytest.mark.parametrize("name", OUTPUTS)
def test_raw_outputs(golden_run: Run, name: str) -> None:
    golden, ours = golden_run.golden, as_official(name, golden_run.predictions)
    assert tuple(ours.shape) == tuple(golden[f"{name}_shape"])
    sample = ours.reshape(-1)[torch.from_numpy(golden[f"{name}_idx"])]
    np.testing.assert_allclose(sample, golden[f"{name}_val"], rtol=0, atol=1e-3)
    assert ours.mean().item() == pytest.approx(float(golden[f"{name}_mean"]), abs=1e-4)
    assert ours.std().item() == pytest.approx(float(golden[f"{name}_std"]), rel=1e-3)


def test_anchors(golden_run: Run) -> None:
    anchors = golden_run.predictions.anchors[::37]
    np.testing.assert_allclose(anchors, golden_run.golden["priors"], rtol=0, atol=1e-6)


def test_losses(golden_run: Run) -> None:
    expected = {
        name: float(golden_run.golden[f"loss_{letter}"])
        for name, letter in LOSSES.items()
        if f"loss_{letter}" in golden_run.golden.arrays
    }
    assert golden_run.losses == pytest.approx(expected, rel=1e-3)


def test_gradients(golden_run: Run) -> None:
    golden = golden_run.golden
    expected = {OUTPUTS[n]: float(golden[f"{n}_gradnorm"]) for n in OUTPUTS}
    expected |= {
        k.removeprefix("pgrad_"): float(golden[k]) for k in golden.arrays if k.startswith("pgrad_")
    }
    ours = {name: golden_run.gradients[name] for name in expected}
    assert ours == pytest.approx(expected, rel=1e-2)


def pair(
    labels: Tensor,
    scores: Tensor,
    expected_labels: np.ndarray,
    expected_scores: np.ndarray,
    boxes: Tensor,
    expected_boxes: np.ndarray,
    box_tolerance: float,
) -> list[int]:
    """Find each expected detection among ours; equal scores may come in either order."""
    free, found = set(range(len(labels))), []
    for label, score, box in zip(expected_labels, expected_scores, expected_boxes, strict=True):
        match = [
            i
            for i in free
            if labels[i] == label
            and abs(scores[i] - score) < 1e-3
            and (boxes[i] - torch.from_numpy(box)).abs().max() <= box_tolerance
        ]
        assert match, f"no detection of class {label} with score {score} at {box}"
        found.append(match[0])
        free.remove(match[0])
    assert not free
    return found


@pytest.mark.parametrize("kind", ["fast", "cross"])
def test_detections(golden_run: Run, kind: str) -> None:
    golden, ours = golden_run.golden, getattr(golden_run, kind)
    classes, scores = golden[f"{kind}_class"], golden[f"{kind}_score"]
    np.testing.assert_allclose(ours.scores, scores, rtol=0, atol=1e-4)
    order = pair(ours.labels, ours.scores, classes, scores, ours.boxes, golden[f"{kind}_box"], 1e-3)
    np.testing.assert_allclose(ours.coefficients[order], golden[f"{kind}_mask"], rtol=0, atol=1e-3)


def test_postprocess(golden_run: Run) -> None:
    golden, model = golden_run.golden, golden_run.model
    with torch.inference_mode():
        candidates, *_ = model.find(golden_run.predictions, thresholds := Thresholds(0.15))
        prototypes = golden_run.predictions.prototypes[0]
        ours = thresholds.select(model.assemble(candidates, prototypes, (427, 640), thresholds))
    scores = golden["post_rescored" if model.mask_rescorer else "post_score"]
    kept = scores >= 0.15  # the original drops by the final score where it draws
    order = pair(
        ours.labels,
        ours.scores,
        golden["post_class"][kept],
        scores[kept],
        ours.boxes,
        golden["post_box"][kept],
        1.01,
    )
    masks = ours.masks[order].numpy()
    areas = masks.sum(axis=(1, 2))
    np.testing.assert_allclose(areas, golden["post_mask_area"][kept], rtol=0.01, atol=4)
    top15 = np.unpackbits(golden["post_mask_top15"], axis=2)[:, :, :640].astype(bool)
    for mask, expected in zip(masks, top15[kept[:15]], strict=False):
        union = (mask | expected).sum()
        assert union == 0 or (mask & expected).sum() / union >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_five_training_steps(path: Path) -> None:
    steps = json.loads(path.read_text())
    golden = Golden(path.with_name(path.name.replace("_steps.json", ".npz")))
    model = load(golden).train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(
        model.parameters(), steps["lr"], steps["momentum"], weight_decay=steps["weight_decay"]
    )
    images, targets = golden.images(), golden.targets()
    for expected in steps["trace"]:
        optimizer.zero_grad()
        losses = model.criterion(model.network(images), targets)
        ours = {LOSSES[name]: loss.item() for name, loss in losses.items()}
        assert ours == pytest.approx(expected, rel=1e-2)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
