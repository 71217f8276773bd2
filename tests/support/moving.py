"""Generated videos, and detections in them as a perfect model would make them."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from data.classes import SHAPE_CLASSES
from data.shapes.motion import GroundTruthFrame, Kind, moving_shapes
from yolact.results.detections import Detections

HW = (96, 128)
GRID = (48, 64)


def film(kind: Kind, frames: int = 40, seed: int = 0) -> list[GroundTruthFrame]:
    return list(moving_shapes(kind, frames, HW, seed))


def found_in(frame: GroundTruthFrame) -> Detections:
    """Return its objects with soft masks on a grid, as YOLACT has them."""
    count = len(frame.ids)
    soft = [
        cv2.resize(m.astype(np.float32), GRID[::-1], interpolation=cv2.INTER_AREA)
        for m in frame.masks
    ]
    boxes = [cv2.boundingRect(mask.astype(np.uint8)) for mask in frame.masks]
    corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    scores = torch.linspace(0.9, 0.6, count)
    return Detections(
        boxes=torch.tensor(corners, dtype=torch.float32).reshape(count, 4),
        scores=scores,
        labels=torch.from_numpy(frame.labels),
        soft_masks=torch.from_numpy(np.array(soft, np.float32).reshape(count, *GRID)),
        mask_frames=torch.tensor([[0.0, 0.0, HW[1], HW[0]]]).repeat(count, 1),
        box_scores=scores,
        image_hw=HW,
        class_names=SHAPE_CLASSES.names,
    )
