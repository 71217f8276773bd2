"""Copy-paste: objects of one training image on another (Ghiasi et al. 2021)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from layers.masks import box_windows, mask_boxes
from layers.structures import Target, concatenate_groups

from .transform import LEARNED_SIDE

_SHARE_PASTED = 0.5  # of the other image's objects
_LEAST_VISIBLE = 0.1  # visible share of an object's pixels, at or below which it is dropped

# For an object that is placed beside another one:
_HEIGHTS = 0.75, 1.33  # ratio of its height to the other's
_SCALES = 0.3, 3.0  # ratio of its size to its original size
_DISTANCES = 0.35, 1.0  # of the centres, as a share of the distance at which the boxes touch
_FEET = 0.1  # deviation of its lower edge from the other's, as a share of the other's height


def paste_objects(
    image: Tensor,
    target: Target,
    other_image: Tensor,
    other: Target,
    rng: np.random.Generator,
    beside: float = 0.0,
) -> tuple[Tensor, Target]:
    """Paste random objects of another image in front of the objects of an image.

    Args:
        image: (3, S, S) uint8.
        target: objects of the image, crowds last. Masks lose the covered pixels, boxes shrink to
            fit, and objects with a tenth of their pixels left or less are dropped. For an object
            without a mask, the pixels of its box count, and the box stays. Crowds do not change.
        other_image: (3, S, S) uint8. Neither image is changed.
        other: objects of the other image; crowds and objects without a mask are never pasted.
        rng: chooses each object half the time.
        beside: share of pasted objects that are placed beside one of the image's objects, scaled to
            about its height, so that one touches or hides the other; the others keep their place.

    Returns:
        The new image, and its target with the crowds last.
    """
    chosen = torch.from_numpy(rng.random(len(other)) < _SHARE_PASTED) & ~other.is_crowd
    pasted = other[chosen & other.masks.flatten(1).any(dim=1)]
    moved = torch.zeros(len(pasted), dtype=torch.bool)
    if beside and not target.is_crowd.all():
        moved = torch.from_numpy(rng.random(len(pasted)) < beside)
    image, target = _paste(image, target, other_image, pasted[~moved])
    for index in moved.nonzero()[:, 0].tolist():
        there = _set_beside(target, other_image, pasted[index], rng)
        image, target = _paste(image, target, *there)
    return image, target


def _paste(
    image: Tensor, target: Target, other_image: Tensor, pasted: Target
) -> tuple[Tensor, Target]:
    if not len(pasted):
        return image, target
    covered = pasted.masks.any(dim=0)  # (S, S)
    own, crowds = _cover(target[~target.is_crowd], covered), target[target.is_crowd]
    return torch.where(covered, other_image, image), concatenate_groups((own, pasted, crowds))


def _set_beside(
    target: Target, image: Tensor, pasted: Target, rng: np.random.Generator
) -> tuple[Tensor, Target]:
    """Move one object to a place beside a random object of the target.

    Args:
        target: objects to choose a neighbour from, not all of them crowds.
        image: (3, S, S) uint8, which shows the object to move.
        pasted: that object alone, with a mask that is not empty.
        rng: chooses neighbour, size, side, distance and whether the object is mirrored.

    Returns:
        An image and a target of the moved object; an empty target if its centre would be outside
        of the image, as in `TrainTransform`, or if it would be too small.
    """
    boxes = target.boxes[~target.is_crowd]
    x1, y1, x2, y2 = boxes[int(rng.integers(len(boxes)))].tolist()
    left, top, right, bottom = mask_boxes(pasted.masks)[0].tolist()
    part = slice(None), slice(top, bottom), slice(left, right)
    cut = torch.cat((image[part], pasted.masks[part].byte() * 255))
    height, width = cut.shape[1:]
    scale = (y2 - y1) / height * np.exp(rng.uniform(*np.log(_HEIGHTS)))
    scale = float(np.clip(scale, *_SCALES))
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    cut = F.interpolate(cut[None], size, mode="bilinear", antialias=True)[0]
    if rng.random() < 0.5:
        cut = cut.flip(2)
    away = rng.choice((-1, 1)) * rng.uniform(*_DISTANCES) * (x2 - x1 + size[1]) / 2
    lower = y2 + rng.normal() * _FEET * (y2 - y1)
    top, left, side = round(lower) - size[0], round((x1 + x2 - size[1]) / 2 + away), image.shape[1]
    there = _put(cut, top, left, side)
    mask = there[3:] > 127
    is_seen = 0 <= left + size[1] / 2 < side and 0 <= top + size[0] / 2 < side
    if not (is_seen and mask.any()):
        return image, pasted[:0]
    box = mask_boxes(mask)
    if (box[:, 2:] - box[:, :2] < LEARNED_SIDE).any():
        return image, pasted[:0]
    return there[:3], Target(box.to(pasted.boxes), pasted.labels, mask, pasted.is_crowd)


def _put(cut: Tensor, top: int, left: int, side: int) -> Tensor:
    """Place (C, h, w) on a black (C, side, side) canvas, cut at its edges."""
    canvas = cut.new_zeros((len(cut), side, side))
    height, width = cut.shape[1:]
    rows, columns = slice(max(top, 0), top + height), slice(max(left, 0), left + width)
    if rows.start < min(rows.stop, side) and columns.start < min(columns.stop, side):
        inside = cut[:, max(-top, 0) : side - top, max(-left, 0) : side - left]
        canvas[:, rows, columns] = inside
    return canvas


def _cover(objects: Target, covered: Tensor) -> Target:
    """Remove the covered pixels from the masks, and refit the boxes of masks that change."""
    masks, has_mask = objects.masks & ~covered, objects.has_mask
    windows = box_windows(objects.boxes / len(covered), covered.shape, padding=0)
    extents = torch.where(has_mask[:, None, None], objects.masks, windows)
    before, after = extents.sum(dim=(1, 2)), (extents & ~covered).sum(dim=(1, 2))  # (M,) pixels
    changed = after < before
    visible = ~changed | (after > _LEAST_VISIBLE * before)
    boxes = objects.boxes.clone()
    fitted = visible & changed & has_mask
    boxes[fitted] = mask_boxes(masks[fitted]).to(boxes)
    return Target(boxes, objects.labels, masks, objects.is_crowd, has_mask)[visible]
