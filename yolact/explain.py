"""How masks came about: prototypes times coefficients, as pictures and as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.images import to_tensor
from layers.detect import detect
from layers.masks import assemble_masks
from layers.structures import Candidates
from yolact.drawing.lincomb import draw_lincomb
from yolact.models.yolact import Yolact

from .predictor import Predictor

Image = NDArray[np.uint8]


@torch.inference_mode()
def explain(
    predictor: Predictor, image: Image, score_threshold: float, top_k: int | None
) -> list[Image]:
    """Draw, for each detection, its prototypes by weight, their running sum, and the mask.

    Args:
        predictor: runs the network.
        image: (H, W, 3) uint8 RGB.
        score_threshold: detections scoring lower are left out.
        top_k: at most this many, best first.

    Raises:
        ValueError: the model has no prototypes.
    """
    model, prototypes, candidates = _look(predictor, image)
    candidates = candidates[candidates.scores >= score_threshold]
    coefficients = candidates.coefficients
    soft_masks = assemble_masks(prototypes, coefficients, candidates.boxes)
    if model.mask_rescorer is not None:
        scores = candidates.scores * model.mask_rescorer(soft_masks, candidates.labels)
        order = scores.argsort(descending=True)[: int((scores >= score_threshold).sum())]
        coefficients, soft_masks = coefficients[order], soft_masks[order]
    return [
        draw_lincomb(prototypes, weights, mask)
        for weights, mask in zip(coefficients[:top_k], soft_masks[:top_k], strict=True)
    ]


@torch.inference_mode()
def save_prototypes(predictor: Predictor, image: Image, folder: Path) -> tuple[Path, Path]:
    """Write an image's prototypes (K, h, w) and soft masks (N, h, w) as .npy files.

    Returns:
        The files, proto.npy and masks.npy.

    Raises:
        ValueError: the model has no prototypes.
    """
    _, prototypes, candidates = _look(predictor, image)
    soft_masks = assemble_masks(prototypes, candidates.coefficients, candidates.boxes)
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "proto.npy", folder / "masks.npy"
    for file, array in zip(files, (prototypes, soft_masks), strict=True):
        np.save(file, array.float().cpu().numpy())
    return files


def _look(predictor: Predictor, image: Image) -> tuple[Yolact, Tensor, Candidates]:
    """Return the model, and the prototypes (K, h, w) and candidates of one image."""
    model = predictor.model
    if not isinstance(model, Yolact):
        raise ValueError("--display_lincomb, --mask_proto_debug: only YOLACT has prototypes")
    predictions = predictor.run_network(model.preprocess([to_tensor(image)]))
    candidates = detect(predictions, **vars(model.detection))[0]
    return model, predictions.prototypes[0], candidates
