"""How masks came about: prototypes times coefficients, as pictures and as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.images import Image, to_tensor
from yolact.drawing.lincomb import draw_lincomb
from yolact.models.yolact import Yolact
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds

from .predictor import Predictor


class Parts(NamedTuple):
    """What masks are made of.

    Attributes:
        prototypes: (K, h, w) after ReLU, of the whole image.
        coefficients: (N, K) in [-1, 1].
        detections: N objects.
    """

    prototypes: Tensor
    coefficients: Tensor
    detections: Detections


@torch.no_grad()
def find_parts(predictor: Predictor, image: Image, thresholds: Thresholds) -> Parts:
    """Segment an image, and keep what the masks are made of.

    Args:
        predictor: runs the network.
        image: (H, W, 3) uint8 RGB.
        thresholds: which detections count.

    Raises:
        ValueError: the model has no prototypes.
    """
    model = predictor.model
    if not isinstance(model, Yolact):
        raise ValueError(f"{type(model).__name__} cannot be explained: only YOLACT has prototypes")
    outputs = predictor.run_network(model.preprocess([to_tensor(image)]))
    (detections,) = model.postprocess(outputs, [image.shape[:2]], thresholds)
    assert detections.coefficients is not None
    # A copy: the engine's next call may write over its outputs.
    return Parts(outputs.prototypes[0].clone(), detections.coefficients, detections)


def explain(predictor: Predictor, image: Image, thresholds: Thresholds) -> list[Image]:
    """Draw, for each detection, its prototypes by weight, their running sum, and the mask.

    Arguments and errors as those of `find_parts`.
    """
    prototypes, coefficients, detections = find_parts(predictor, image, thresholds)
    return [
        draw_lincomb(prototypes, weights, mask)
        for weights, mask in zip(coefficients, detections.soft_masks, strict=True)
    ]


def save_prototypes(predictor: Predictor, image: Image, folder: Path) -> tuple[Path, Path]:
    """Write an image's prototypes (K, h, w) and soft masks (N, h, w) as .npy files.

    Returns:
        The files, proto.npy and masks.npy.

    Raises:
        ValueError: the model has no prototypes.
    """
    prototypes, _, detections = find_parts(predictor, image, Thresholds())
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "proto.npy", folder / "masks.npy"
    for file, array in zip(files, (prototypes, detections.soft_masks), strict=True):
        np.save(file, array.float().cpu().numpy())
    return files
