"""Non-maximum suppression: Fast NMS (YOLACT sec. 3.5), across classes, and the greedy classic."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from torch import Tensor

from .boxes import box_iou
from .native import as_floats, kernels_for


def fast_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, top_k: int, max_detections: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress in parallel: a box goes if any better one of its class overlaps it, kept or not.

    As released, a box that passed the score filter for one class is kept for every class that it is
    not suppressed in, however low its score there.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, C).
        iou_threshold: overlap above which the worse box goes.
        top_k: boxes considered per class.
        max_detections: detections kept over all classes.

    Returns:
        index into the boxes, label and score of the detections, (D,) each, highest score first.
    """
    class_scores, order = scores.t().topk(min(top_k, len(scores)), dim=1)
    keep = _not_overlapped(boxes[order], iou_threshold)
    labels = torch.arange(len(order), device=boxes.device)[:, None].expand_as(order)[keep]
    kept_scores, best = class_scores[keep].sort(descending=True)
    best, kept_scores = best[:max_detections], kept_scores[:max_detections]
    return order[keep][best], labels[best], kept_scores


def cross_class_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, top_k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Run Fast NMS over all classes at once: one box, one class.

    As released, the result is bounded by `top_k` alone.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, C).
        iou_threshold: overlap above which the worse box goes.
        top_k: boxes considered.

    Returns:
        index into the boxes, label and score of the detections, (D,) each, highest score first.
    """
    best_scores, labels = scores.max(dim=1)
    order = best_scores.argsort(descending=True)[:top_k]
    order = order[_not_overlapped(boxes[order][None], iou_threshold)[0]]
    return order, labels[order], best_scores[order]


def greedy_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    max_detections: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress exactly, class by class: a box goes if a kept better one of its class overlaps it.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, C).
        iou_threshold: overlap above which the worse box goes.
        score_threshold: (box, class) pairs at or below this score are dropped.
        max_detections: detections kept over all classes.

    Returns:
        index into the boxes, label and score of the detections, (D,) each, highest score first.
    """
    index, labels = (scores > score_threshold).nonzero(as_tuple=True)
    pair_scores = scores[index, labels]
    keep = batched_greedy_nms(boxes[index], pair_scores, labels, iou_threshold)[:max_detections]
    return index[keep], labels[keep], pair_scores[keep]


def batched_greedy_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float
) -> Tensor:
    """Greedy NMS within groups: in Cython on the CPU, else by torchvision.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        groups: (N,) int64; boxes of different groups never suppress each other.
        iou_threshold: overlap above which the worse box goes.

    Returns:
        indices of the boxes kept, highest score first.
    """
    kernels = kernels_for(boxes)
    if kernels is None:
        return _torchvision_nms(boxes, scores, groups, iou_threshold)
    order = scores.argsort(descending=True, stable=True)
    kept = kernels.greedy_nms(
        as_floats(boxes[order]), groups[order].long().contiguous().numpy(), iou_threshold
    )
    return order[torch.from_numpy(np.asarray(kept).view(np.bool_))]


def _torchvision_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    if not len(boxes):
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    # Groups are moved apart by the whole extent; torchvision's own shift forgets negative corners.
    boxes = boxes - boxes.min()
    apart = boxes + (groups * (boxes.max() + 1))[:, None]
    # Rounded like the overlaps it is compared with, or an equal one would count as above.
    threshold = float(np.float32(iou_threshold))
    keep: Tensor = torchvision.ops.nms(apart, scores, threshold)
    return keep


def _not_overlapped(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Mark the boxes (G, N, 4), best first in each group, that no better one overlaps: (G, N)."""
    if not boxes.shape[1]:
        return torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    kernels = kernels_for(boxes)
    if kernels is not None:
        keep = np.zeros(boxes.shape[:2], np.uint8)
        kernels.not_overlapped(as_floats(boxes), iou_threshold, keep)
        return torch.from_numpy(keep).bool()
    # Groups in slices, so that hundreds of classes need no hundreds of megabytes.
    overlaps = [box_iou(part, part).triu(diagonal=1).amax(dim=1) for part in torch.split(boxes, 32)]
    return torch.cat(overlaps) <= iou_threshold
