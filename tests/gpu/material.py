"""Images, models and folders that several checks use."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from data.images import Image
from data.shapes.scenes import ShapeScenes
from yolact import Yolact, build_model, get_config
from yolact.models.segmenter import AnySegmenter

from .report import NotHere

ROOT = Path(__file__).resolve().parents[2]
_SPREAD = 3.0  # standard deviation of class logits


def folder(variable: str, name: str) -> Path:
    """Return a folder of test data: what a variable names, else one in or beside the checkout.

    Raises:
        NotHere: there is none.
    """
    beside = [ROOT / "shared" / name, ROOT.parent / "shared" / name]
    for path in [Path(os.environ[variable])] if variable in os.environ else beside:
        if path.is_dir():
            return path
    raise NotHere(f"no folder of test data {name!r}: set {variable}")


def needs(*packages: str) -> None:
    """Raise `NotHere` unless packages are installed."""
    absent = [package for package in packages if find_spec(package) is None]
    if absent:
        raise NotHere(f"{', '.join(absent)} not installed")


def needs_cuda(device: torch.device) -> None:
    """Raise `NotHere` unless the device is an NVIDIA card."""
    if device.type != "cuda":
        raise NotHere(f"for CUDA, not for {device}")


def scenes(count: int, side: int, seed: int = 5) -> list[Image]:
    """Return generated images, (side, side, 3) uint8 RGB."""
    data = ShapeScenes(count, side, seed)
    return [data.sample(index).image for index in range(count)]


def untrained(preset: str, device: torch.device, *settings: str) -> AnySegmenter:
    """Return a model with random weights that finds a hundred objects anywhere.

    A usual initialisation is sure of nothing; here class scores are spread, so that suppression and
    masks have as much to do as in a crowded image.
    """
    torch.manual_seed(0)
    model = build_model(get_config(preset).override(*settings)).eval().to(device)
    if isinstance(model, Yolact):
        noise = torch.randn((1, 3, model.image_size, model.image_size), device=device)
        with torch.no_grad():
            spread = model.network(noise).class_logits.std()
            model.network.head.classes.weight *= _SPREAD / spread
    else:
        nn.init.normal_(model.network.roi_heads.box_predictor.cls_score.weight, std=0.3)
    return model
