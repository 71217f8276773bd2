"""The numbers that the original made, and what the CPU finds, again on this device."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from support.golden import LOSSES, OUTPUTS, Golden
from torch import Tensor

from layers.detect import detect
from layers.structures import Predictions
from yolact import Predictor, build_model, get_config
from yolact.checkpoint import Checkpoint, load_matching_weights
from yolact.engines.names import Precision
from yolact.engines.pytorch import autocast
from yolact.models.segmenter import AnySegmenter

from .alike import share_found
from .material import folder, needs, needs_cuda, scenes
from .report import Report

# The largest difference of any output; on an H200 they were 2e-5, 0.009, 0.013 and 0.087.
TOLERANCES = {"float32": 1e-3, "TF32": 0.03, "float16": 0.04, "bfloat16": 0.25}


def check_float32(device: torch.device, report: Report) -> None:
    """Outputs, losses, gradients and detections, within the tolerances of the CPU's tests."""
    for path in golden_files(device):
        golden, model = Golden(path), golden_model(path, device).train()
        with autocast(device, "float32"):
            predictions = outputs_of(golden, model, device)
            losses = model.criterion(predictions, [t.to(device) for t in golden.targets()])
            torch.stack(list(losses.values())).sum().backward()
        compare_outputs(golden, predictions, "float32", report)
        for name, letter in LOSSES.items():
            if f"loss_{letter}" in golden.arrays:
                close(f"{path.stem}: loss {name}", losses[name], golden[f"loss_{letter}"], 1e-3)
        for name, key in OUTPUTS.items():
            gradient = getattr(predictions, key).grad.norm()
            close(f"{path.stem}: gradient of {key}", gradient, golden[f"{name}_gradnorm"], 1e-2)
        first = [part[:1].detach() for part in predictions[:4]]
        for nms, prefix in (("fast", "fast"), ("cross_class", "cross")):
            found = detect(Predictions(*first, predictions.anchors), nms=nms)[0]
            scores = found.scores.cpu().numpy()
            assert scores.shape == golden[f"{prefix}_score"].shape, f"{path.stem}: {scores.shape}"
            worst = np.abs(scores - golden[f"{prefix}_score"]).max(initial=0)
            assert worst <= 1e-4, f"{path.stem}, {nms}: scores differ by {worst:.2g}"


def check_tf32(device: torch.device, report: Report) -> None:
    """What PyTorch does by itself, with TF32 in convolutions."""
    needs_cuda(device)
    compare_in("TF32", device, report)


def check_bfloat16(device: torch.device, report: Report) -> None:
    """Outputs in half precision."""
    compare_in("bfloat16", device, report)


def check_float16(device: torch.device, report: Report) -> None:
    """Outputs in the narrower half precision."""
    needs_cuda(device)
    compare_in("float16", device, report)


def check_shapes_as_on_cpu(device: torch.device, report: Report) -> None:
    """The bundled model finds the same shapes with the same masks."""
    compare_with_cpu("yolact_resnet18_shapes", device, report)


def check_persons_as_on_cpu(device: torch.device, report: Report) -> None:
    """The bundled model of persons, if it finds any in generated scenes, finds the same."""
    needs("timm")
    compare_with_cpu("yolact_lite2_person", device, report, score=0.05, least=0.9)


def check_tiles_as_on_cpu(device: torch.device, report: Report) -> None:
    """A large image in tiles, which run in batches on a GPU."""
    (image,) = scenes(1, 512)
    ours, theirs = (
        Predictor.from_checkpoint("yolact_resnet18_shapes", each, "float32", "eager").tiled(
            image, tile=256
        )
        for each in (str(device), "cpu")
    )
    share = share_found(theirs, ours, overlap=0.98, reach=1e-2)
    assert share >= 0.9, f"{100 * share:.0f} % of {len(theirs)} objects found"


def check_default_engine(device: torch.device, report: Report) -> None:
    """What is chosen where nothing is asked for finds the same shapes, less exactly."""
    images = scenes(4, 256)
    exact = Predictor.from_checkpoint("yolact_resnet18_shapes", "cpu", "float32", "eager")
    chosen = Predictor.from_checkpoint("yolact_resnet18_shapes", str(device))
    shares = [
        share_found(a, b, overlap=0.9, reach=0.1)
        for a, b in zip(exact(images), chosen(images), strict=True)
    ]
    report.number("default engine: shapes found as on the CPU", 100 * np.mean(shares), "%")
    assert np.mean(shares) >= 0.9, f"finds only {100 * np.mean(shares):.0f} % of the shapes"


def golden_files(device: torch.device) -> list[Path]:
    """Return the golden files; on a CPU, which is slow, only the smallest network's."""
    files = sorted(folder("YOLACT_GOLDEN", "golden").glob("*.npz"))
    return files if device.type != "cpu" else files[-1:]


def golden_model(path: Path, device: torch.device) -> AnySegmenter:
    """Return a model with a golden file's weights, whose gradients are asked for."""
    model = copy.deepcopy(_golden_model(path)).to(device)
    return model.requires_grad_(True)


@lru_cache(3)
def _golden_model(path: Path) -> AnySegmenter:
    model = build_model(get_config(path.stem))
    state = Golden(path).official_state_dict()
    unfit = load_matching_weights(model, Checkpoint(Path(), state, official=True))
    assert unfit == [], f"{path.stem}: {unfit}"
    return model.freeze_batch_norm()


def outputs_of(golden: Golden, model: AnySegmenter, device: torch.device) -> Predictions:
    """Run a network on a golden file's images; the outputs keep their gradients."""
    predictions: Predictions = model.network(golden.images().to(device))
    for name in OUTPUTS.values():
        output = getattr(predictions, name)
        if output.requires_grad:
            output.retain_grad()
    return predictions


def compare_in(precision: str, device: torch.device, report: Report) -> None:
    """Compare outputs in one precision."""
    asked: Precision = "auto" if precision == "TF32" else precision
    for path in golden_files(device):
        golden, model = Golden(path), golden_model(path, device).train()
        with torch.no_grad(), autocast(device, asked):
            predictions = outputs_of(golden, model, device)
        compare_outputs(golden, predictions, precision, report)


def compare_outputs(
    golden: Golden, predictions: Predictions, precision: str, report: Report
) -> None:
    """Compare samples of the outputs with the original's."""
    worst = 0.0
    for name, key in OUTPUTS.items():
        ours = getattr(predictions, key).detach()
        ours = (ours.permute(0, 2, 3, 1) if name == "proto" else ours).float().reshape(-1)
        sample = ours[torch.from_numpy(golden[f"{name}_idx"]).to(ours.device)].cpu().numpy()
        worst = max(worst, float(np.abs(sample - golden[f"{name}_val"]).max()))
    report.number(f"{golden.preset}, {precision}: largest difference", worst, "")
    limit = TOLERANCES[precision]
    assert worst <= limit, f"{golden.preset}, {precision}: differs by {worst:.2g} > {limit:g}"


def close(what: str, value: Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Compare two numbers, relatively."""
    difference = abs(value.item() - float(expected))
    limit = tolerance * abs(float(expected))
    assert difference <= limit, f"{what} is {value.item():.6g}, expected {float(expected):.6g}"


def compare_with_cpu(
    name: str,
    device: torch.device,
    report: Report,
    score: float | None = None,
    least: float = 1.0,
) -> None:
    """Compare what a model finds in float32 here and on the CPU, each in both directions."""
    images = scenes(4, 256)
    here, there = (
        Predictor.from_checkpoint(name, each, "float32", "eager") for each in (str(device), "cpu")
    )
    objects, shown = 0, here.model.score_threshold if score is None else score
    for index, image in enumerate(images):
        ours, theirs = here(image, score), there(image, score)
        objects += len(theirs)
        for a, b in ((ours, theirs), (theirs, ours)):
            share = share_found(a, b, overlap=0.99, reach=1e-3, score=shown)
            assert share >= least, f"{name}, scene {index}: {100 * share:.0f} % of {len(a)} found"
    report.number(f"{name}: objects as on the CPU", objects, "")
