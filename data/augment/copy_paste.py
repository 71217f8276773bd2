"""Copy-paste: objects of one training image on another (Ghiasi et al. 2021)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes

from layers.structures import Target

_CHOSEN = 0.5  # of the other image's objects
_LEAST_VISIBLE = 0.1  # of an object's pixels; what is hidden further is no object any more


def paste_objects(
    image: Tensor, target: Target, other_image: Tensor, other: Target, rng: np.random.Generator
) -> tuple[Tensor, Target]:
    """Put random objects of another image on an image, in front of what is there.

    Args:
        image: (3, S, S) uint8.
        target: its objects, crowds last. Masks lose what is covered, boxes shrink to what is left,
            and objects of which less than a tenth is left are dropped; crowds stay as they are.
        other_image: (3, S, S) uint8; both are left as they were.
        other: its objects, of which crowds are never taken.
        rng: chooses each object half the time.

    Returns:
        The new image, and its target with the crowds last.
    """
    chosen = torch.from_numpy(rng.random(len(other)) < _CHOSEN) & ~other.is_crowd
    pasted = other[chosen & other.masks.flatten(1).any(dim=1)]
    if not len(pasted):
        return image, target
    covered = pasted.masks.any(dim=0)
    own, crowds = _behind(target[~target.is_crowd], covered), target[target.is_crowd]
    return torch.where(covered, other_image, image), _joined(own, pasted, crowds)


def _behind(objects: Target, covered: Tensor) -> Target:
    """Take what is covered from every mask, and make the boxes of those that change anew."""
    masks = objects.masks & ~covered
    before, after = objects.masks.sum(dim=(1, 2)), masks.sum(dim=(1, 2))
    changed = after < before
    visible = ~changed | (after > (_LEAST_VISIBLE * before))
    boxes = objects.boxes.clone()
    fitted = visible & changed
    boxes[fitted] = masks_to_boxes(masks[fitted]) + boxes.new_tensor((0, 0, 1, 1))
    return Target(boxes, objects.labels, masks, objects.is_crowd)[visible]


def _joined(*targets: Target) -> Target:
    return Target(
        *(
            torch.cat([getattr(target, name) for target in targets])
            for name in ("boxes", "labels", "masks", "is_crowd")
        )
    )
