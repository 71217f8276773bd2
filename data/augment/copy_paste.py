"""Copy-paste: objects of one training image on another (Ghiasi et al. 2021)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes

from layers.masks import box_windows
from layers.structures import Target

_SHARE_PASTED = 0.5  # of the other image's objects
_LEAST_VISIBLE = 0.1  # share of an object's pixels; one that is hidden further is dropped


def paste_objects(
    image: Tensor, target: Target, other_image: Tensor, other: Target, rng: np.random.Generator
) -> tuple[Tensor, Target]:
    """Paste random objects of another image in front of the objects of an image.

    Args:
        image: (3, S, S) uint8.
        target: its objects, crowds last. Masks lose the covered pixels, boxes shrink to fit, and
            objects with a tenth of their pixels left or less are dropped. Of an object without a
            mask, the pixels of its box count, and the box stays. Crowds do not change.
        other_image: (3, S, S) uint8. Neither image is changed.
        other: its objects; crowds, and what has no mask, are never pasted.
        rng: chooses each object half the time.

    Returns:
        The new image, and its target with the crowds last.
    """
    chosen = torch.from_numpy(rng.random(len(other)) < _SHARE_PASTED) & ~other.is_crowd
    pasted = other[chosen & other.masks.flatten(1).any(dim=1)]
    if not len(pasted):
        return image, target
    covered = pasted.masks.any(dim=0)  # (S, S)
    own, crowds = _cover(target[~target.is_crowd], covered), target[target.is_crowd]
    return torch.where(covered, other_image, image), _concatenate(own, pasted, crowds)


def _cover(objects: Target, covered: Tensor) -> Target:
    """Remove the covered pixels from the masks, and refit the boxes of those that change."""
    masks, has_mask = objects.masks & ~covered, objects.has_mask
    windows = box_windows(objects.boxes / len(covered), covered.shape, padding=0)
    extents = torch.where(has_mask[:, None, None], objects.masks, windows)
    before, after = extents.sum(dim=(1, 2)), (extents & ~covered).sum(dim=(1, 2))  # (M,) pixels
    changed = after < before
    visible = ~changed | (after > _LEAST_VISIBLE * before)
    boxes = objects.boxes.clone()
    fitted = visible & changed & has_mask
    boxes[fitted] = masks_to_boxes(masks[fitted]) + boxes.new_tensor((0, 0, 1, 1))
    return Target(boxes, objects.labels, masks, objects.is_crowd, has_mask)[visible]


def _concatenate(*targets: Target) -> Target:
    return Target(
        *(
            torch.cat([getattr(target, name) for target in targets])
            for name in ("boxes", "labels", "masks", "is_crowd", "has_mask")
        )
    )
