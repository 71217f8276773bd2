"""Selecting objects of an image, and joining two results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layers.instances import InstancesT

from .compact import compact_masks

Region = Sequence[float] | Sequence[Sequence[float]] | NDArray[np.generic]
"""x1, y1, x2, y2, or the (P, 2) points of a polygon, in pixels."""


def centres_inside(boxes: Tensor, region: Region) -> Tensor:
    """Tell which of N boxes have their centre in a region, (N,) bool.

    Raises:
        ValueError: neither a box nor a polygon.
    """
    corners = np.asarray(region, np.float32)
    if corners.shape == (4,):
        corners = corners[[[0, 1], [2, 1], [2, 3], [0, 3]]]
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"inside={region!r:.80}: expected x1, y1, x2, y2 or (P, 2) points")
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).tolist()
    inside = [cv2.pointPolygonTest(corners, centre, False) >= 0 for centre in centres]
    return torch.tensor(inside, dtype=torch.bool, device=boxes.device)


def concatenate(first: InstancesT, second: InstancesT) -> InstancesT:
    """Return the objects of the first, then of the second; with track ids if both have them.

    Raises:
        ValueError: the image sizes or the class names differ.
    """
    for name in ("image_hw", "class_names"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            raise ValueError(f"detections with {name} {ours} and {theirs} do not join")
    grids = [(part.soft_masks.shape[1:], part.crop_to_boxes) for part in (first, second)]
    shared = ["boxes", "scores", "labels", "box_scores"]
    changed: dict[str, Any] = {"track_ids": None}
    if first.track_ids is not None and second.track_ids is not None:
        shared.append("track_ids")
    if grids[0] == grids[1]:
        shared += ["soft_masks", "mask_frames"]
    else:  # convert each mask to pixels in its own window
        crops = [each.crop(index) for each in (first, second) for index in range(len(each))]
        soft_masks, frames = compact_masks([(bits.cpu().numpy(), at[:2]) for at, bits in crops])
        changed |= {"soft_masks": soft_masks, "mask_frames": frames, "crop_to_boxes": False}
    for name in shared:
        changed[name] = torch.cat((getattr(first, name), getattr(second, name)))
    return replace(first, **changed)
