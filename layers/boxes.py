"""Boxes: formats, overlaps, and SSD's encoding against anchors."""

from __future__ import annotations

import torch
from torch import Tensor

# Scales of the encoded offsets of centre and size; the released weights are trained with them.
VARIANCES = (0.1, 0.2)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert (..., 4) centre-size boxes to corners."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert (..., 4) corner boxes to centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def box_area(boxes: Tensor) -> Tensor:
    """Return the area of (..., 4) xyxy boxes; inverted boxes have area 0."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(-1)
    return width * height


def _intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    # One axis at a time: arrays of (x, y) pairs take two to four times as long on a CPU.
    left1, top1, right1, bottom1 = boxes1[..., :, None, :].unbind(-1)  # (..., N, 1)
    left2, top2, right2, bottom2 = boxes2[..., None, :, :].unbind(-1)  # (..., 1, M)
    width = torch.minimum(right1, right2) - torch.maximum(left1, left2)  # (..., N, M)
    height = torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)
    return width.clamp(min=0) * height.clamp(min=0)


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the pairwise intersection over union.

    Args:
        boxes1: (..., N, 4) xyxy.
        boxes2: (..., M, 4) xyxy.

    Returns:
        (..., N, M) in [0, 1]; 0 where both boxes are empty.
    """
    intersection = _intersection(boxes1, boxes2)
    union = box_area(boxes1)[..., :, None] + box_area(boxes2)[..., None, :] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def intersection_over_area(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return how much of each box in `boxes1` lies inside each of `boxes2` (COCO's crowd overlap).

    Args:
        boxes1: (N, 4) xyxy; their area is the divisor.
        boxes2: (M, 4) xyxy.

    Returns:
        (N, M) in [0, 1].
    """
    area = box_area(boxes1)[..., :, None]
    return _intersection(boxes1, boxes2) / area.clamp(min=torch.finfo(area.dtype).tiny)


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Express boxes as offsets from their anchors (SSD eq. 2).

    Args:
        boxes: (P, 4) xyxy relative. Sizes are clamped to 1e-6, so a degenerate box stays finite.
        anchors: (P, 4) cxcywh relative.

    Returns:
        (P, 4) box deltas.
    """
    target = xyxy_to_cxcywh(boxes)
    centre = (target[:, :2] - anchors[:, :2]) / (VARIANCES[0] * anchors[:, 2:])
    size = (target[:, 2:].clamp(min=1e-6) / anchors[:, 2:]).log() / VARIANCES[1]
    return torch.cat((centre, size), dim=1)


def decode_boxes(box_deltas: Tensor, anchors: Tensor) -> Tensor:
    """Invert `encode_boxes`.

    Args:
        box_deltas: (..., P, 4).
        anchors: (P, 4) cxcywh relative.

    Returns:
        (..., P, 4) xyxy relative, unclipped.
    """
    centre = anchors[:, :2] + box_deltas[..., :2] * VARIANCES[0] * anchors[:, 2:]
    # No box is e^8 times its anchor; larger values would only give overflow and NaN.
    size = anchors[:, 2:] * torch.exp((box_deltas[..., 2:] * VARIANCES[1]).clamp(max=8))
    low = centre - size / 2
    return torch.cat((low, low + size), dim=-1)
