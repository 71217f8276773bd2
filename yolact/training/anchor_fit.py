"""Measure the IoU of anchors with the objects of a dataset, and search for better anchors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from layers.anchors import AnchorGenerator
from layers.boxes import box_iou, cxcywh_to_xyxy
from yolact.build import model_class
from yolact.config import ModelConfig

_LEVELS = 5
_SCALE_LIMITS = (1.0, 8.0)  # in strides of the level; beyond, other levels fit better
_RATIO_LIMITS = (0.2, 5.0)
_STEPS = (1.4, 1.2, 1.1, 1.05)
_GAIN = 1e-4  # minimum gain of the score that counts as progress
_MAX_BOXES = 4000  # boxes used for the search


def best_overlaps(boxes: Tensor, model: ModelConfig) -> Tensor:
    """Return the IoU of each object with its best anchor.

    Among the anchors of one size on one level, the one in the nearest cell overlaps most, so only
    that cell is evaluated.

    Args:
        boxes: (M, 4) cxcywh relative to the image.
        model: configuration of the anchors.

    Returns:
        (M,) in [0, 1].
    """
    levels = AnchorGenerator(
        model.anchor_scales, model.anchor_ratios, model.image_size, model.square_anchors
    ).sizes
    best = torch.zeros(len(boxes))
    for cells, sizes in zip(_cells(model), levels, strict=True):
        for size in sizes:
            best = torch.maximum(best, _overlaps(boxes, cells, size))
    return best


def count_anchors(model: ModelConfig) -> int:
    """Return how many anchors an input image has."""
    return sum(cells**2 for cells in _cells(model)) * model.num_anchors


def propose_anchors(boxes: Tensor, model: ModelConfig, scales: int, ratios: int) -> ModelConfig:
    """Search for anchors that match the objects of a dataset better.

    Coordinate search, starting from the quantiles of the objects' sizes and shapes, and from the
    present anchors: one number after the other is moved by smaller and smaller steps, as long as
    this raises the mean IoU and the share of objects with an anchor of IoU 0.5 or more.

    Args:
        boxes: (M, 4) cxcywh relative to the image, M > 0.
        model: configuration of the present anchors.
        scales: number of scales on each level.
        ratios: number of ratios on all levels.

    Returns:
        The model with other anchors; always the same for the same arguments.
    """
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))
    boxes = boxes[order[:_MAX_BOXES]]
    starts = [_from_quantiles(boxes, model, scales, ratios)]
    if (len(model.anchor_scales[0]), len(model.anchor_ratios)) == (scales, ratios):
        starts.append([*sum(model.anchor_scales, ()), *model.anchor_ratios])
    found = [_climb(boxes, model, start, ratios) for start in starts]
    _, numbers = max(found)
    return _with_anchors(model, [_rounded(number) for number in numbers], ratios)


def anchor_settings(model: ModelConfig) -> tuple[str, ...]:
    """Return the assignments for `Config.override` that give a configuration these anchors."""
    scales, ratios = [list(level) for level in model.anchor_scales], list(model.anchor_ratios)
    return (
        f"model.anchor_scales={scales}".replace(" ", ""),
        f"model.anchor_ratios={ratios}".replace(" ", ""),
        f"model.square_anchors={model.square_anchors}",
    )


def _overlaps(boxes: Tensor, cells: int, size: Tensor) -> Tensor:
    """Return the IoU of each object with the nearest anchor of one size, (M,)."""
    centres = ((boxes[:, :2] * cells).floor().clamp(0, cells - 1) + 0.5) / cells
    anchors = torch.cat((centres, size.expand(len(boxes), 2)), dim=1)
    overlaps = box_iou(cxcywh_to_xyxy(boxes)[:, None], cxcywh_to_xyxy(anchors)[:, None])
    return overlaps[:, 0, 0]


def _cells(model: ModelConfig) -> list[int]:
    """Return the number of cells in a row of each level."""
    return [-(-model.image_size // stride) for stride in _strides(model)]


def _strides(model: ModelConfig) -> list[int]:
    return [model_class(model).first_stride << level for level in range(_LEVELS)]


def _from_quantiles(boxes: Tensor, model: ModelConfig, scales: int, ratios: int) -> list[float]:
    """Spread scales and ratios evenly over the objects."""
    sides = boxes[:, 2:].prod(dim=1).sqrt() * model.image_size
    shapes = boxes[:, 2] / boxes[:, 3]
    return [
        *sides.quantile(_centres(_LEVELS * scales)).tolist(),
        *shapes.quantile(_centres(ratios)).tolist(),
    ]


def _centres(parts: int) -> Tensor:
    return (torch.arange(parts) + 0.5) / parts


def _climb(
    boxes: Tensor, model: ModelConfig, start: Sequence[float], ratios: int
) -> tuple[float, list[float]]:
    """Improve scales and ratios one by one; return the score and the numbers."""
    limits = [
        (stride * _SCALE_LIMITS[0], stride * _SCALE_LIMITS[1])
        for stride in _strides(model)
        for _ in range((len(start) - ratios) // _LEVELS)
    ] + [_RATIO_LIMITS] * ratios
    score = _scorer(boxes, model, ratios)
    numbers = [min(max(n, low), high) for n, (low, high) in zip(start, limits, strict=True)]
    best = score(numbers)
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for i, (low, high) in enumerate(limits):
                for factor in (step, 1 / step):
                    moved = [*numbers]
                    moved[i] = min(max(numbers[i] * factor, low), high)
                    if (reached := score(moved)) > best + _GAIN:
                        best, numbers, improved = reached, moved, True
    return best, numbers


def _scorer(boxes: Tensor, model: ModelConfig, ratios: int) -> Callable[[list[float]], float]:
    """Return a function that scores scales and ratios, with a cache of its measurements."""

    @lru_cache(maxsize=1024)  # one number moves at a time
    def overlaps(cells: int, scale: float, ratio: float) -> Tensor:
        size = AnchorGenerator([[scale]], [ratio], model.image_size, square=False).sizes[0]
        return _overlaps(boxes, cells, size)

    def score(numbers: list[float]) -> float:
        scales, shapes = numbers[:-ratios], numbers[-ratios:]
        levels = [cells for cells in _cells(model) for _ in range(len(scales) // _LEVELS)]
        columns = [
            overlaps(cells, scale, shape)
            for cells, scale in zip(levels, scales, strict=True)
            for shape in shapes
        ]
        best = torch.stack(columns).amax(dim=0)
        return float(best.mean() + (best >= 0.5).float().mean())

    return score


def _with_anchors(model: ModelConfig, numbers: Sequence[float], ratios: int) -> ModelConfig:
    """Return the model with these scales, level by level, and the ratios that follow them."""
    per_level = (len(numbers) - ratios) // _LEVELS
    levels = [numbers[i * per_level : (i + 1) * per_level] for i in range(_LEVELS)]
    return replace(
        model,
        anchor_scales=tuple(tuple(sorted(level)) for level in levels),
        anchor_ratios=tuple(sorted(numbers[-ratios:])),
        square_anchors=False,
    )


def _rounded(number: float) -> float:
    """Round to three significant digits."""
    return float(f"{number:.3g}")
