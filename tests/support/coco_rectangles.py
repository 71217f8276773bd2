"""A tiny COCO ground truth of rectangles, and detections to score against it."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from yolact.evaluation.coco import CocoEvaluator
from yolact.results.detections import Detections

HW = (120, 160)
CATEGORY_IDS = (3, 7, 90)
NAMES = ("cat", "dog", "toothbrush")
Box = tuple[int, int, int, int]


def bitmap(box: Box) -> NDArray[np.uint8]:
    mask = np.zeros(HW, dtype=np.uint8, order="F")
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = 1
    return mask


def annotation(number: int, image_id: int, label: int, box: Box, crowd: int = 0) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    area = (x2 - x1) * (y2 - y1)
    rle = mask_utils.encode(bitmap(box))
    return {
        "id": number,
        "image_id": image_id,
        "category_id": CATEGORY_IDS[label],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": area,
        "iscrowd": crowd,
        "segmentation": {"size": list(HW), "counts": rle["counts"].decode()},
    }


def ground_truth(annotations: Sequence[dict[str, Any]], images: Sequence[int] = (1, 2, 5)) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i, "height": HW[0], "width": HW[1]} for i in images],
        "annotations": list(annotations),
        "categories": [{"id": i, "name": n} for i, n in zip(CATEGORY_IDS, NAMES, strict=True)],
    }
    with contextlib.redirect_stdout(None):
        coco.createIndex()
    return coco


def detections(
    boxes: Sequence[Box] = (),
    labels: Sequence[int] = (),
    scores: Sequence[float] = (),
    box_scores: Sequence[float] | None = None,
    mask_boxes: Sequence[Box] | None = None,
) -> Detections:
    """Rectangles, as bitmaps over the whole image."""
    masks = [bitmap(box) for box in (boxes if mask_boxes is None else mask_boxes)]
    count = len(boxes)
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(count, 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.int64),
        soft_masks=torch.tensor(np.array(masks), dtype=torch.float32).reshape(count, *HW),
        mask_frames=torch.tensor([[0.0, 0.0, HW[1], HW[0]]]).expand(count, 4),
        box_scores=torch.tensor(scores if box_scores is None else box_scores, dtype=torch.float32),
        image_hw=HW,
        class_names=NAMES,
    )


SMALL, MEDIUM, LARGE = (10, 10, 30, 30), (40, 40, 90, 90), (20, 10, 150, 115)
TRUTH = (
    annotation(11, 1, 0, SMALL),
    annotation(12, 1, 1, MEDIUM),
    annotation(13, 2, 0, LARGE),
    annotation(14, 2, 0, (100, 60, 150, 110), crowd=1),
)


def perfect() -> dict[int, Detections]:
    return {
        1: detections([SMALL, MEDIUM], [0, 1], [0.9, 0.8]),
        2: detections([LARGE], [0], [0.7]),
        5: detections(),
    }


def random_detections(seed: int) -> dict[int, Detections]:
    rng = np.random.default_rng(seed)
    found = {}
    for image_id in (1, 2, 5):
        near = [SMALL, MEDIUM, LARGE, (100, 60, 150, 110)]
        boxes = [near[k] for k in rng.integers(0, 4, 30)] + rng.integers(-9, 9, (30, 4))
        boxes = np.clip(boxes, 0, (160, 120, 160, 120)).tolist()
        masks = np.clip(boxes + rng.integers(-4, 4, (30, 4)), 0, (160, 120, 160, 120)).tolist()
        # few distinct scores, so that ties occur
        scores = np.sort(rng.integers(1, 9, 30) / 10)[::-1].tolist()
        box_scores = (rng.integers(1, 9, 30) / 10).tolist()
        labels = rng.integers(0, 2, 30).tolist()
        found[image_id] = detections(boxes, labels, scores, box_scores, masks)
    return found


def evaluated(coco: COCO, found: dict[int, Detections]) -> CocoEvaluator:
    evaluator = CocoEvaluator(coco, CATEGORY_IDS)
    for image_id, one in found.items():
        evaluator.add(image_id, one)
    return evaluator
