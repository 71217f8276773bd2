"""Non-maximum suppression: Fast NMS (YOLACT sec. 5), cross-class NMS, and greedy NMS."""

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
    """Suppress in parallel: drop a box if any better one of its class overlaps it, kept or not.

    As released, a box that passed the score filter for one class is kept for every class that it is
    not suppressed in, however low its score there.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, C).
        iou_threshold: IoU above which the worse box is dropped.
        top_k: boxes considered per class.
        max_detections: detections kept over all classes.

    Returns:
        index into the boxes, label and score of the detections, (D,) each, highest score first.
    """

    def suppress(boxes: Tensor, scores: Tensor) -> NmsResult:
        return _unpadded(fast_nms_padded(boxes, scores, iou_threshold, top_k, max_detections))

    return _suppress_preselected(suppress, boxes, scores, max_detections)


def cross_class_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, top_k: int) -> NmsResult:
    """Run Fast NMS over all classes at once: each box has only its best class.

    As released, only `top_k` limits the result.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, C).
        iou_threshold: IoU above which the worse box is dropped.
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
    """Suppress greedily per class: drop a box if a better one of its class, itself kept, overlaps.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, C).
        iou_threshold: IoU above which the worse box is dropped.
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
    """Suppress among the few best boxes if that determines the result, else among all.

    Boxes suppress only worse ones. So a detection kept among the few is final if it scores higher
    than all boxes that were left out, and if such detections fill all places, nothing can be added.
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
    """Run `fast_nms` with operators of fixed shapes, which need not wait for a GPU.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, C); `PADDING_SCORE` for boxes to skip.
        iou_threshold: IoU above which the worse box is dropped.
        top_k: boxes considered per class.
        max_detections: D, unless there are fewer boxes of all classes.

    Returns:
        index into the boxes, label and score of D slots, highest score first; unused slots, at the
        end, score `PADDING_SCORE`.
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
    """Run `cross_class_nms` with fixed shapes, for `top_k` slots; see `fast_nms_padded`."""
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
    """Sort the scores that are kept, highest first; return them and their flat indices."""
    left = scores.masked_fill(~keep, PADDING_SCORE)
    return left.flatten().sort(descending=True, stable=True)


def batched_greedy_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float
) -> Tensor:
    """Run greedy NMS within groups: by the compiled kernel on the CPU, else by torchvision.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        groups: (N,) int64; boxes of different groups never suppress each other.
        iou_threshold: IoU above which the worse box is dropped.

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
    # Round like the IoUs compared with it, or an equal IoU would count as above.
    threshold = float(np.float32(iou_threshold))
    keep = torch.zeros_like(scores, dtype=torch.bool)
    # One group at a time: torchvision's batched_nms shifts boxes apart, which loses their last
    # digits, or all digits beside a huge box.
    for group in set(groups.tolist()):  # sync: on the CPU
        members = (groups == group).nonzero().squeeze(1)  # sync: on the CPU
        kept = torchvision.ops.nms(boxes[members], scores[members], threshold)
        keep[members[kept]] = True
    index = keep.nonzero().squeeze(1)  # sync: on the CPU
    return index[scores[index].argsort(descending=True, stable=True)]


def _not_suppressed(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Mark boxes that no better one of their group overlaps, (G, N) bool.

    Boxes (G, N, 4) and scores (G, N) are best first in each group. At least the `most` best of the
    boxes that qualify are marked; callers keep that many.
    """
    if not boxes.shape[1]:
        return torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    kernels = kernels_for(boxes)
    if kernels is not None:
        keep = np.zeros(boxes.shape[:2], np.uint8)
        kernels.fast_nms(as_floats(boxes), as_floats(scores), iou_threshold, most, keep)
        return torch.from_numpy(keep).bool()
    # Some groups at a time, so that hundreds of classes do not need hundreds of megabytes.
    overlaps = [box_iou(part, part).triu(diagonal=1).amax(dim=1) for part in torch.split(boxes, 32)]
    return torch.cat(overlaps) <= iou_threshold
