"""Detections whose masks are hard to write down: holes, parts, single pixels, nothing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.images import Image
from yolact.results.compact import compact_masks
from yolact.results.detections import Detections

HW = (120, 160)
NAMES = ("ring", "pair", "blob, with a comma", "dot")


def odd_bitmaps() -> NDArray[np.bool_]:
    """A ring, a ring with a dot in its hole beside a disc, a ragged blob, and a pixel."""
    masks = np.zeros((4, *HW), np.uint8)
    cv2.circle(masks[0], (40, 40), 30, 1, -1)
    cv2.circle(masks[0], (40, 40), 15, 0, -1)
    cv2.circle(masks[1], (110, 40), 25, 1, -1)
    cv2.circle(masks[1], (110, 40), 15, 0, -1)
    cv2.circle(masks[1], (110, 40), 5, 1, -1)
    cv2.ellipse(masks[1], (110, 95), (30, 15), 20, 0, 360, 1, -1)
    noise = np.random.default_rng(0).random((30, 40))
    masks[2, 85:115, 5:45] = cv2.GaussianBlur(noise, (0, 0), 2) > 0.5
    masks[3, 119, 159] = 1
    return masks.astype(bool)


def odd_detections(picture: Image | None = None, source: str = "") -> Detections:
    """Those masks, with the boxes around them."""
    masks = odd_bitmaps()
    soft_masks, frames = compact_masks([(mask, (0, 0)) for mask in masks])
    corners = [cv2.boundingRect(mask.astype(np.uint8)) for mask in masks]
    boxes = [(x, y, x + w, y + h) for x, y, w, h in corners]
    scores = torch.tensor([0.9, 0.8, 0.5, 0.25])
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32),
        scores=scores,
        labels=torch.arange(4),
        soft_masks=soft_masks,
        mask_frames=frames,
        box_scores=scores,
        image_hw=HW,
        class_names=NAMES,
        source=source,
        picture=picture,
    )


def photo(folder: Path) -> tuple[Path, Image]:
    """Write a small picture without loss, and return it."""
    noise = np.random.default_rng(1).integers(0, 256, (*HW, 3), dtype=np.uint8)
    image = np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.uint8)
    path = folder / "photo.png"
    cv2.imwrite(str(path), image[..., ::-1])
    return path, image


def iou(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    union = np.count_nonzero(a.astype(bool) | b.astype(bool))
    return np.count_nonzero(a.astype(bool) & b.astype(bool)) / union if union else 1.0
