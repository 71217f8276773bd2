"""Explain masks: prototypes times coefficients, as pictures and as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.images import Image, to_tensor
from layers.structures import Predictions
from yolact.drawing.lincomb import draw_lincomb
from yolact.models.yolact import Yolact
from yolact.results.thresholds import Thresholds

from .predictor import Predictor


@torch.no_grad()
def prototypes_of(predictor: Predictor, image: Image) -> Tensor:
    """Return the prototypes (K, h, w) of an image, after ReLU.

    Args:
        predictor: runs the network.
        image: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the model has no prototypes.
    """
    return _look(predictor, image).prototypes[0].clone()  # the engine's next call overwrites them


@torch.no_grad()
def explain(predictor: Predictor, image: Image, thresholds: Thresholds) -> list[Image]:
    """Draw, for each detection, its prototypes by weight, their running sum, and the mask.

    Args:
        predictor: runs the network.
        image: (H, W, 3) uint8 RGB.
        thresholds: which detections are drawn.

    Raises:
        ValueError: the model has no prototypes.
    """
    outputs = _look(predictor, image)
    (found,) = predictor.postprocess(outputs, [image.shape[:2]], thresholds)
    assert found.coefficients is not None
    return [
        draw_lincomb(outputs.prototypes[0], weights, mask)
        for weights, mask in zip(found.coefficients, found.soft_masks, strict=True)
    ]


@torch.no_grad()
def save_prototypes(predictor: Predictor, image: Image, folder: Path) -> tuple[Path, Path]:
    """Write an image's prototypes (K, h, w) and soft masks (N, h, w) as .npy files.

    Returns:
        The files, proto.npy and masks.npy.

    Raises:
        ValueError: the model has no prototypes.
    """
    outputs = _look(predictor, image)
    (found,) = predictor.postprocess(outputs, [image.shape[:2]], Thresholds())
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "proto.npy", folder / "masks.npy"
    for file, array in zip(files, (outputs.prototypes[0], found.soft_masks), strict=True):
        np.save(file, array.float().cpu().numpy())
    return files


def _look(predictor: Predictor, image: Image) -> Predictions:
    """Run the network of a model that has prototypes."""
    model = predictor.model
    if not isinstance(model, Yolact):
        raise ValueError("Mask R-CNN has no prototypes that could be shown")
    outputs: Predictions = predictor.run_network(model.preprocess([to_tensor(image)]))
    return outputs
