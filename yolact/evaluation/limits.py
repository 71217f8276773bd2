"""Limits of detections: how many are kept per image, and how many the AP counts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from yolact.config import Config, DetectConfig

from .metrics import STANDARD_LIMIT

if TYPE_CHECKING:
    from pycocotools.coco import COCO

logger = logging.getLogger(__name__)


def scored_detections(detection: DetectConfig) -> int:
    """Return how many detections per image and class the AP counts: at least COCO's 100."""
    return max(STANDARD_LIMIT, detection.max_detections)


def kept_detections(config: Config) -> tuple[int, int]:
    """Return how many detections are kept per image, and per class in an image."""
    detection = config.detect
    most, top_k = detection.max_detections, detection.top_k
    if config.model.architecture == "mask_rcnn" or detection.nms == "greedy":
        return most, most
    return (top_k, top_k) if detection.nms == "cross_class" else (most, min(most, top_k))


def limit_for(objects: int) -> int:
    """Return a limit of detections for a number of objects, in hundreds: at least COCO's 100."""
    return max(STANDARD_LIMIT, -(-objects // 100) * 100)


def detection_settings(detections: int, own: DetectConfig) -> tuple[str, ...]:
    """Return settings for a number of detections, and twice as many boxes in NMS, as published.

    With cross-class NMS, only `top_k` limits the number of detections.
    """
    top_k = detections if own.nms == "cross_class" else max(own.top_k, 2 * detections)
    return f"detect.max_detections={detections}", f"detect.top_k={top_k}"


def with_raised_limits(config: Config, most: int, most_of_class: int) -> Config:
    """Raise the limits of detections to the number of objects if needed, and log it.

    Args:
        config: configuration of the model.
        most: maximum number of objects in an image.
        most_of_class: maximum number of objects of one class in an image.
    """
    of_image, of_class = kept_detections(config)
    if most <= of_image and most_of_class <= min(of_class, scored_detections(config.detect)):
        return config
    room = max(limit_for(most), config.detect.max_detections)
    logger.warning(
        "an image has %d objects: %d detections are kept of each and count in an AP, where %d "
        "are usual (--max_detections to evaluate, --set detect.max_detections to train)",
        *(most, room, STANDARD_LIMIT),
    )
    return config.override(*detection_settings(room, config.detect))


def max_objects_per_image(coco: COCO) -> tuple[int, int]:
    """Return the most objects that an image has, and the most of one class; crowds excepted."""
    totals, of_class = _objects(coco, coco.imgs)
    return max(totals, default=0), max(of_class, default=0)


def warn_of_limits(coco: COCO, image_ids: Iterable[int], config: Config, mend: str) -> None:
    """Warn of images with more objects than are kept, or than the AP counts.

    Args:
        coco: the ground truth.
        image_ids: the images to evaluate.
        config: of the model.
        mend: which settings to raise, in the words of the command line.
    """
    totals, of_class = _objects(coco, image_ids)
    kept, kept_of_class = kept_detections(config)
    limit = min(kept_of_class, scored_detections(config.detect))
    for counts, most, of_what in ((totals, kept, ""), (of_class, limit, " of a class")):
        above = [count for count in counts if count > most]
        if above:
            have = "has" if len(above) == 1 else "have"
            logger.warning(
                f"{len(above)} of {len(counts)} images {have} more than {most} objects{of_what} "
                f"(up to {max(above)}): detections beyond that are dropped or do not count; {mend}"
            )
            return


def _objects(coco: COCO, image_ids: Iterable[int]) -> tuple[list[int], list[int]]:
    """Count the objects of each image, and those of its largest class; crowds excepted."""
    images = [
        Counter(part["category_id"] for part in coco.imgToAnns[i] if not part.get("iscrowd"))
        for i in image_ids
        if i in coco.imgs
    ]
    return (
        [image.total() for image in images],
        [max(image.values(), default=0) for image in images],
    )
