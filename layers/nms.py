"""Non-maximum suppression: Fast NMS (YOLACT sec. 5), across classes, and the greedy classic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torchvision
from torch import Tensor

from .boxes import box_iou
from .native import as_floats, kernels_for

NmsResult = tuple[Tensor, Tensor, Tensor]
"""Index into the boxes, label and score of D detections, highest score first."""

PRESELECT_COUNT = 500  # boxes that nearly always hold the detections
PADDING_SCORE = -1.0  # of a padded slot: a GPU is not asked how many detections there are


def fast_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, top_k: int, max_detections: int
) -> NmsResult:
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

    def suppress(boxes: Tensor, scores: Tensor) -> NmsResult:
        return _unpadded(fast_nms_padded(boxes, scores, iou_threshold, top_k, max_detections))

    return _suppress_preselected(suppress, boxes, scores, max_detections)


def cross_class_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, top_k: int) -> NmsResult:
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
    return _unpadded(cross_class_nms_padded(boxes, scores, iou_threshold, top_k))


def greedy_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    max_detections: int,
) -> NmsResult:
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

    def suppress(boxes: Tensor, scores: Tensor) -> NmsResult:
        index, labels = (scores > score_threshold).nonzero(as_tuple=True)  # sync: on the CPU
        pair_scores = scores[index, labels]
        keep = batched_greedy_nms(boxes[index], pair_scores, labels, iou_threshold)
        keep = keep[:max_detections]
        return index[keep], labels[keep], pair_scores[keep]

    return _suppress_preselected(suppress, boxes, scores, max_detections)


def _suppress_preselected(
    suppress: Callable[[Tensor, Tensor], NmsResult],
    boxes: Tensor,
    scores: Tensor,
    max_detections: int,
) -> NmsResult:
    """Suppress among a few boxes where that decides, else among all.

    Only better boxes suppress. So what is kept among the few is final where it scores higher than
    all boxes that were left out, and when it fills the places, nothing else can come in.
    """
    if len(scores) > PRESELECT_COUNT:
        best, few = scores.amax(dim=1).topk(PRESELECT_COUNT + 1)
        few = few[:-1].sort()[0]  # equal scores keep their order
        index, labels, kept_scores = suppress(boxes[few], scores[few])
        if 0 < len(index) == max_detections and kept_scores[-1] > best[-1]:
            return few[index], labels, kept_scores
    return suppress(boxes, scores)


def fast_nms_padded(
    boxes: Tensor, scores: Tensor, iou_threshold: float, top_k: int, max_detections: int
) -> NmsResult:
    """Run `fast_nms` by operators whose shapes are known beforehand: no GPU is waited for.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, C); `PADDING_SCORE` where a box is to be passed over.
        iou_threshold: overlap above which the worse box goes.
        top_k: boxes considered per class.
        max_detections: D, unless there are fewer boxes of all classes.

    Returns:
        index into the boxes, label and score of D slots, highest score first; the last ones score
        `PADDING_SCORE` where fewer are kept.
    """
    class_scores, order = scores.t().sort(dim=1, descending=True, stable=True)
    class_scores, order = class_scores[:, :top_k], order[:, :top_k]
    keep = _not_suppressed(boxes[order], class_scores, iou_threshold, max_detections)
    ranked, place = _sort_kept(class_scores, keep)
    ranked, place = ranked[:max_detections], place[:max_detections]
    return order.flatten()[place], place // max(order.shape[1], 1), ranked


def cross_class_nms_padded(
    boxes: Tensor, scores: Tensor, iou_threshold: float, top_k: int
) -> NmsResult:
    """Run `cross_class_nms` likewise, for `top_k` slots; see `fast_nms_padded`."""
    best, labels = scores.max(dim=1)
    best, order = best.sort(descending=True, stable=True)
    best, order = best[:top_k], order[:top_k]
    keep = _not_suppressed(boxes[order][None], best[None], iou_threshold, top_k)[0]
    ranked, place = _sort_kept(best, keep)
    index = order[place]
    return index, labels[index], ranked


def _unpadded(slots: NmsResult) -> NmsResult:
    """Leave out the padded slots, on the CPU."""
    index, labels, scores = slots
    keep = scores != PADDING_SCORE
    return index[keep], labels[keep], scores[keep]  # sync: on the CPU


def _sort_kept(scores: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Sort scores by what is kept, highest first, and tell where each was in the flat view."""
    left = scores.masked_fill(~keep, PADDING_SCORE)
    return left.flatten().sort(descending=True, stable=True)


def batched_greedy_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float
) -> Tensor:
    """Suppress exactly within groups: in Cython on the CPU, else by torchvision.

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
    ordered = groups[order].long().contiguous().numpy()  # sync: on the CPU
    kept = kernels.greedy_nms(as_floats(boxes[order]), ordered, iou_threshold)
    return order[torch.from_numpy(np.asarray(kept).view(np.bool_))]


def _torchvision_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    # Rounded like the overlaps it is compared with, or an equal one would count as above.
    threshold = float(np.float32(iou_threshold))
    keep = torch.zeros_like(scores, dtype=torch.bool)
    # One group at a time: boxes shifted apart, as in torchvision's batched_nms, lose their last
    # digits, and beside a huge box all of them.
    for group in set(groups.tolist()):  # sync: on the CPU
        members = (groups == group).nonzero().squeeze(1)  # sync: on the CPU
        kept = torchvision.ops.nms(boxes[members], scores[members], threshold)
        keep[members[kept]] = True
    index = keep.nonzero().squeeze(1)  # sync: on the CPU
    return index[scores[index].argsort(descending=True, stable=True)]


def _not_suppressed(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Mark the boxes (G, N, 4), best first in each group, that no better one overlaps: (G, N).

    At least the `most` best of them, by the scores (G, N), are marked; callers cut.
    """
    if not boxes.shape[1]:
        return torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    kernels = kernels_for(boxes)
    if kernels is not None:
        keep = np.zeros(boxes.shape[:2], np.uint8)
        kernels.fast_nms(as_floats(boxes), as_floats(scores), iou_threshold, most, keep)
        return torch.from_numpy(keep).bool()
    # Groups in slices, so that hundreds of classes need no hundreds of megabytes.
    overlaps = [box_iou(part, part).triu(diagonal=1).amax(dim=1) for part in torch.split(boxes, 32)]
    return torch.cat(overlaps) <= iou_threshold
