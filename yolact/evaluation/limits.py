"""Limits of detections: how many are kept of an image, and how many an AP counts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from pycocotools.coco import COCO

from yolact.config import Config, DetectConfig

from .metrics import STANDARD_LIMIT

logger = logging.getLogger(__name__)


def scored_detections(detection: DetectConfig) -> int:
    """Return how many detections of an image and class an AP counts: COCO's 100 at least."""
    return max(STANDARD_LIMIT, detection.max_detections)


def kept_detections(config: Config) -> tuple[int, int]:
    """Return how many detections are kept of an image, and of each class in it."""
    detection = config.detect
    most, top_k = detection.max_detections, detection.top_k
    if config.model.architecture == "mask_rcnn" or detection.nms == "greedy":
        return most, most
    return (top_k, top_k) if detection.nms == "cross_class" else (most, min(most, top_k))


def tell_limits(coco: COCO, image_ids: Iterable[int], config: Config, mend: str) -> None:
    """Warn of images with more objects than are kept, or than an AP counts.

    Args:
        coco: the ground truth.
        image_ids: the images to evaluate.
        config: of the model.
        mend: which settings to raise, in the words of the command line.
    """
    of_image, of_class = kept_detections(config)
    of_class = min(of_class, scored_detections(config.detect))
    if told := too_many_objects(coco, image_ids, of_image, of_class):
        logger.warning("%s: detections beyond that are dropped or do not count; %s", told, mend)


def too_many_objects(
    coco: COCO, image_ids: Iterable[int], detections: int, limit: int
) -> str | None:
    """Say whether images have more objects than there may be detections.

    Args:
        coco: the ground truth.
        image_ids: the images that are looked at.
        detections: of an image.
        limit: detections of each class in it.

    Returns:
        The beginning of a sentence, or None where all is well.
    """
    images = [
        Counter(part["category_id"] for part in coco.imgToAnns[i] if not part.get("iscrowd"))
        for i in image_ids
        if i in coco.imgs
    ]
    for counts, most, of_what in (
        ([sum(image.values()) for image in images], detections, ""),
        ([max(image.values(), default=0) for image in images], limit, " of a class"),
    ):
        above = [count for count in counts if count > most]
        if above:
            have = "has" if len(above) == 1 else "have"
            return (
                f"{len(above)} of {len(counts)} images {have} more than {most} objects{of_what} "
                f"(up to {max(above)})"
            )
    return None
