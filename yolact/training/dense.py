"""Images with more objects than the published settings are for."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from data.annotations.coco import CocoInstances
from data.sample import Dataset
from yolact.config import Config, DetectConfig
from yolact.evaluation.limits import with_room

from .anchor_fit import count_anchors

logger = logging.getLogger(__name__)


def fitted_to_density(config: Config, datasets: Iterable[Dataset | None]) -> Config:
    """Let as many detections be found as the images have objects, and tell what falls short.

    Args:
        config: left alone where `max_detections` or `top_k` is not as published: then it is meant.
        datasets: to learn and to validate on.
    """
    known = [data.counts() for data in datasets if isinstance(data, CocoInstances)]
    most = max((found.most_in_image for found in known), default=0)
    of_class = max((found.most_of_class for found in known), default=0)
    published, own = DetectConfig(), config.detect
    if (own.max_detections, own.top_k) == (published.max_detections, published.top_k):
        config = with_room(config, most, of_class)
    if config.model.architecture == "mask_rcnn":
        return config
    masks, anchors = config.loss.masks_to_train, count_anchors(config.model)
    if most > masks:
        logger.warning(
            "an image has %d objects, but each step learns %d masks of an image, a random part: "
            "--set loss.masks_to_train=%d learns all, and takes more memory",
            *(most, masks, most),
        )
    if most > anchors:
        logger.warning(
            "an image has %d objects, but there are %d anchors, one object each: raise "
            "model.image_size (--set), or cut the images in parts",
            *(most, anchors),
        )
    return config
