"""Matching of anchors to objects for training (YOLACT sec. 3.2, after SSD and RetinaNet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import box_iou, cxcywh_to_xyxy, intersection_over_area
from .structures import fetch, upload

IGNORE, BACKGROUND = -1, 0


class Matches(NamedTuple):
    """The matches of P anchors in each of B images.

    Attributes:
        classes: (B, P) int64: -1 ignored, 0 background, 1..C foreground.
        objects: (B, P) int64 index, within the whole batch, of the object that each anchor overlaps
            most or is forced to match.
    """

    classes: Tensor
    objects: Tensor


@torch.no_grad()
def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    counts: Sequence[int],
    crowd_boxes: Sequence[Tensor],
    positive_iou: float = 0.5,
    negative_iou: float = 0.4,
    crowd_overlap: float = 0.7,
) -> Matches:
    """Match every anchor of B images to an object, to background or to nothing.

    All images are matched at once, so that there is one wait for a GPU, not one per image.

    Args:
        anchors: (P, 4) cxcywh relative.
        boxes: (M, 4) xyxy relative, of all images, one image after the other.
        labels: (M,) 0-based.
        counts: number of objects in each image.
        crowd_boxes: (Q, 4) xyxy relative for each image; anchors mostly inside a crowd are not used
            as background.
        positive_iou: an anchor with at least this IoU is positive.
        negative_iou: an anchor below this IoU is background; between the two it is ignored.
        crowd_overlap: a background anchor is ignored if more than this share of it is in a crowd.
    """
    anchor_boxes = cxcywh_to_xyxy(anchors.float())
    shape = len(counts), len(anchors)
    if len(boxes):
        overlaps = box_iou(boxes.float(), anchor_boxes)  # (M, P)
        best_overlap, objects = _closest(overlaps, counts)
        images, forced_anchors, forced_objects = _strongest_pairs(overlaps, counts)
        objects[images, forced_anchors] = forced_objects
        forced = best_overlap.new_full((len(images),), torch.inf)  # a float would wait for a GPU
        best_overlap[images, forced_anchors] = forced
        classes = labels[objects] + 1
        classes.masked_fill_(best_overlap < positive_iou, IGNORE)
        classes.masked_fill_(best_overlap < negative_iou, BACKGROUND)
    else:
        classes = torch.full(shape, BACKGROUND, device=anchors.device)
        objects = torch.zeros_like(classes)
    for row, crowds in zip(classes, crowd_boxes, strict=True):
        if len(crowds):
            in_crowd = intersection_over_area(anchor_boxes, crowds.float()) > crowd_overlap
            row.masked_fill_(in_crowd.any(dim=1) & (row <= BACKGROUND), IGNORE)
    return Matches(classes, objects)


def _closest(overlaps: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return each anchor's largest IoU per image, (B, P), -1 without objects; and its object."""
    none = overlaps.new_full(overlaps.shape[1:], -1.0)
    nothing = none, torch.zeros_like(none, dtype=torch.int64)
    best = [
        part.max(dim=0) if len(part) else nothing for part in torch.split(overlaps, list(counts))
    ]
    values, objects = (torch.stack(each) for each in zip(*best, strict=True))
    first = torch.tensor([0, *counts[:-1]]).cumsum(0).clamp(max=len(overlaps) - 1)
    return values, objects + upload(first, overlaps.device)[:, None]


def _strongest_pairs(overlaps: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
    """Pair every object with an anchor of its own, greedily by IoU within each image.

    Only an object's M best anchors are candidates, as the other objects take M - 1 at most. Ties go
    to the first object, then to the first anchor.

    Args:
        overlaps: (M, P) float32 >= 0, for the objects of all images.
        counts: number of objects in each image.

    Returns:
        images, anchors and objects of min(M, P) pairs per image, int64.
    """
    best = min(max(counts), overlaps.shape[1])
    # Non-negative floats sort like their bits; the low 32 bits rank the first of equals first.
    keys = overlaps.abs().view(torch.int32).long()
    keys <<= 32
    keys -= torch.arange(overlaps.shape[1], device=overlaps.device)
    anchors = keys.topk(best, dim=1).indices  # (M, best), strongest first
    values, candidates = fetch(overlaps.gather(1, anchors), anchors)  # the one wait for a GPU
    pairs: list[tuple[int, int, int]] = []
    first = 0
    for image, count in enumerate(counts):
        here = slice(first, first + count)
        order = values[here].flatten().argsort(descending=True, stable=True)
        anchor_of: dict[int, int] = {}
        taken = set()
        ranked = candidates[here].flatten()[order].tolist()  # sync: on the CPU
        for i, anchor in zip((order // max(best, 1)).tolist(), ranked, strict=True):  # sync: no GPU
            if i not in anchor_of and anchor not in taken:
                anchor_of[i] = anchor
                taken.add(anchor)
        pairs += [(image, anchor, first + i) for i, anchor in anchor_of.items()]
        first += count
    found = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 3).T
    return upload(found, overlaps.device).unbind()
