"""How masks came about: prototypes times coefficients, as pictures and as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.images import Image, to_tensor
from layers.masks import assemble_masks
from layers.paste import has_pixels
from layers.structures import Candidates
from yolact.drawing.lincomb import draw_lincomb
from yolact.models.yolact import Yolact
from yolact.results.thresholds import Thresholds

from .predictor import Predictor


@torch.inference_mode()
def explain(predictor: Predictor, image: Image, thresholds: Thresholds) -> list[Image]:
    """Draw, for each detection, its prototypes by weight, their running sum, and the mask.

    Args:
        predictor: runs the network.
        image: (H, W, 3) uint8 RGB.
        thresholds: which detections are drawn.

    Raises:
        ValueError: the model has no prototypes.
    """
    model, prototypes, candidates = _look(predictor, image)
    candidates = candidates[thresholds.admit(candidates.scores, candidates.labels)]
    coefficients = candidates.coefficients
    soft_masks = assemble_masks(prototypes, coefficients, candidates.boxes)
    if model.mask_rescorer is not None:
        scores = candidates.scores * model.mask_rescorer(soft_masks, candidates.labels)
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] >= thresholds.score]
        coefficients, soft_masks = coefficients[order], soft_masks[order]
    if thresholds.drop_empty:
        height, width = image.shape[:2]
        frame = soft_masks.new_tensor((0, 0, width, height))
        filled = [i for i, m in enumerate(soft_masks) if has_pixels(m, frame, (height, width))]
        coefficients, soft_masks = coefficients[filled], soft_masks[filled]
    top = slice(thresholds.top_k)
    return [
        draw_lincomb(prototypes, weights, mask)
        for weights, mask in zip(coefficients[top], soft_masks[top], strict=True)
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
        raise ValueError(f"{type(model).__name__} cannot be explained: only YOLACT has prototypes")
    predictions = predictor.run_network(model.preprocess([to_tensor(image)]))
    return model, predictions.prototypes[0], model.find(predictions)[0]
