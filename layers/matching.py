"""Assignment of objects to anchors for training (YOLACT sec. 3.2, after SSD and RetinaNet)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import box_iou, cxcywh_to_xyxy, intersection_over_area

IGNORE, BACKGROUND = -1, 0


class Matches(NamedTuple):
    """The assignment of P anchors.

    Attributes:
        classes: (P,) int64: -1 ignored, 0 background, 1..C foreground.
        objects: (P,) int64 index of the object each anchor is closest to, or is forced to take.
    """

    classes: Tensor
    objects: Tensor


@torch.no_grad()
def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    crowd_boxes: Tensor,
    positive_iou: float = 0.5,
    negative_iou: float = 0.4,
    crowd_overlap: float = 0.7,
) -> Matches:
    """Assign an object, background or nothing to every anchor.

    Args:
        anchors: (P, 4) cxcywh relative.
        boxes: (M, 4) xyxy relative.
        labels: (M,) 0-based.
        crowd_boxes: (Q, 4) xyxy relative; anchors mostly inside one are not used as background.
        positive_iou: at least this overlap makes an anchor positive.
        negative_iou: below this overlap it is background; between the two it is ignored.
        crowd_overlap: share of an anchor inside a crowd above which it is ignored.
    """
    anchor_boxes = cxcywh_to_xyxy(anchors.float())
    if len(boxes):
        overlaps = box_iou(boxes.float(), anchor_boxes)  # (M, P)
        best_overlap, objects = overlaps.max(dim=0)  # (P,)
        forced_objects, forced_anchors = _strongest_pairs(overlaps)
        objects[forced_anchors] = forced_objects
        best_overlap[forced_anchors] = torch.inf
        classes = labels[objects] + 1
        classes[best_overlap < positive_iou] = IGNORE
        classes[best_overlap < negative_iou] = BACKGROUND
    else:
        classes = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
        objects = torch.zeros_like(classes)
    if len(crowd_boxes):
        in_crowd = intersection_over_area(anchor_boxes, crowd_boxes.float()) > crowd_overlap
        classes[in_crowd.any(dim=1) & (classes <= BACKGROUND)] = IGNORE
    return Matches(classes, objects)


def _strongest_pairs(overlaps: Tensor) -> tuple[Tensor, ...]:
    """Pair every object with an anchor of its own, the strongest pair first.

    The others take at most M - 1 anchors from an object: its M best are enough to choose from. Of
    equal overlaps the first object's goes first, and of one object's the first anchor's.

    Args:
        overlaps: (M, P) float32, at least 0.

    Returns:
        objects and anchors of min(M, P) pairs, int64.
    """
    count = min(overlaps.shape)
    # The bits of floats from 0 up rise with the floats; the position below them parts equal ones.
    keys = overlaps.abs().view(torch.int32).long()
    keys <<= 32
    keys -= torch.arange(overlaps.shape[1], device=overlaps.device)
    anchors = keys.topk(count, dim=1).indices  # (M, count), strongest first
    order = overlaps.gather(1, anchors).flatten().argsort(descending=True, stable=True)
    objects = order.div(max(count, 1), rounding_mode="floor")
    pairs = torch.stack((objects, anchors.flatten()[order]))  # (2, M * count), strongest first
    anchor_of: dict[int, int] = {}
    taken = set()
    for i, anchor in zip(*pairs.tolist(), strict=True):  # the one wait for a GPU
        if i not in anchor_of and anchor not in taken:
            anchor_of[i] = anchor
            taken.add(anchor)
    found = torch.tensor([list(anchor_of), list(anchor_of.values())], dtype=torch.int64)
    return found.to(overlaps.device).unbind()
