"""Which anchor learns which object (YOLACT sec. 3.2, after SSD and RetinaNet)."""

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
    anchor_boxes = cxcywh_to_xyxy(anchors)
    if len(boxes):
        overlaps = box_iou(boxes, anchor_boxes)
        best_overlap, objects = overlaps.max(dim=0)
        _force_best_anchors(overlaps, best_overlap, objects)
        classes = labels[objects] + 1
        classes[best_overlap < positive_iou] = IGNORE
        classes[best_overlap < negative_iou] = BACKGROUND
    else:
        classes = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
        objects = torch.zeros_like(classes)
    if len(crowd_boxes):
        in_crowd = intersection_over_area(anchor_boxes, crowd_boxes).amax(dim=1) > crowd_overlap
        classes[in_crowd & (classes <= BACKGROUND)] = IGNORE
    return Matches(classes, objects)


def _force_best_anchors(overlaps: Tensor, best_overlap: Tensor, objects: Tensor) -> None:
    """Give every object one anchor of its own, the strongest pair first. Works in place."""
    for _ in range(min(overlaps.shape)):
        pair = overlaps.argmax()
        taken, anchor = pair // overlaps.shape[1], pair % overlaps.shape[1]
        overlaps[:, anchor] = -1
        overlaps[taken] = -1
        best_overlap[anchor] = 2
        objects[anchor] = taken
