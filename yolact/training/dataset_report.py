"""The description of a dataset before training: classes, sizes, anchors, and a picture."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.annotations.coco import CocoInstances, ObjectCounts
from data.augment.transform import LEARNED_SIDE
from data.checks.dataset import check_dataset
from data.checks.trainable import NOTHING, check_trainable
from data.problems import printable, some_of
from data.sample import Dataset, has_mask
from yolact.config import Config, DetectConfig
from yolact.evaluation.limits import with_raised_limits

from .anchor_fit import best_overlaps, count_anchors
from .pictures import picture_of_training_data, training_data

logger = logging.getLogger(__name__)

MAX_IMAGES = 2000
"""Maximum number of images that are measured, evenly spread: this takes seconds, not minutes."""

_SIZES = (("small", 0, 32), ("medium", 32, 96), ("large", 96, 10**9))  # COCO's, side in pixels
_MAX_ROWS = 20  # of the table of classes
_LOW_RECALL = 0.9
_DRAWN_AS_BOXES = 0.95  # share of rectangular outlines from which a warning is logged
_CHECKED_IMAGES, _TOLD_PROBLEMS = 5000, 5  # for larger datasets the check would take minutes


@dataclass(frozen=True)
class ObjectStatistics:
    """The M objects in N images of a dataset, without crowds.

    Attributes:
        boxes: (M, 4) cxcywh relative to the image.
        areas: (M,) areas of the masks, as shares of the image.
        labels: (M,) 0-based.
        images: (M,) 0..N-1, the image of each object.
        num_images: N, number of images measured.
        num_crowds: number of crowds in these images.
        num_boxes: number of objects without an outline.
        total_images: number of images in the dataset.
        names: one class name for each label value.
    """

    boxes: Tensor
    areas: Tensor
    labels: Tensor
    images: Tensor
    num_images: int
    num_crowds: int
    num_boxes: int
    total_images: int
    names: tuple[str, ...]


def measure_objects(dataset: Dataset, max_images: int = MAX_IMAGES) -> ObjectStatistics:
    """Collect the objects of a dataset, or of evenly spread images of a larger one."""
    label_of = dataset.categories.label_of
    indices = np.linspace(0, len(dataset) - 1, min(len(dataset), max_images)).round().astype(int)
    rows: list[tuple[float, ...]] = []
    crowds = boxes = 0
    for number, index in enumerate(indices.tolist()):
        info = dataset.image_info(index)
        height, width = info["height"], info["width"]
        for part in dataset.annotations(index):
            x, y, w, h = part["bbox"]
            crowds += part["iscrowd"]
            if not part["iscrowd"]:
                boxes += not has_mask(part["segmentation"])
                box = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                label = label_of[part["category_id"]]
                rows.append((*box, part["area"] / (height * width), label, number))
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 7)
    return ObjectStatistics(
        boxes=table[:, :4].float(),
        areas=table[:, 4].float(),
        labels=table[:, 5].long(),
        images=table[:, 6].long(),
        num_images=len(indices),
        num_crowds=crowds,
        num_boxes=boxes,
        total_images=len(dataset),
        names=dataset.categories.names,
    )


def describe_dataset(dataset: Dataset, config: Config, split: str = "train") -> str:
    """Describe one split in a short text: classes, sizes in the network input, anchors.

    Args:
        dataset: the split.
        config: determines input size and anchors.
        split: name of the split.
    """
    found = measure_objects(dataset)
    return "\n".join(
        (
            _headline(found, split),
            *(_class_table(found) if len(found.labels) else ()),
            *(_size_table(found, config) if len(found.labels) else ()),
        )
    )


def _headline(found: ObjectStatistics, split: str) -> str:
    counts = torch.bincount(found.images, minlength=found.num_images).tolist()
    sampled = f"{found.num_images} of " if found.num_images < found.total_images else ""
    boxes = f", {found.num_boxes} with a box alone" if found.num_boxes else ""
    most = f"{max(counts, default=0)} at most in one image{boxes}"
    return (
        f"{split}: {sampled}{_count(found.total_images, 'image')}, "
        f"{_count(len(found.labels), 'object')} ({most}), "
        f"{_count(found.num_crowds, 'crowd')}, {_count(len(found.names), 'class', 'classes')}, "
        f"{_count(counts.count(0), 'image')} without objects"
    )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _class_table(found: ObjectStatistics) -> list[str]:
    """List classes with their objects and images, most frequent first."""
    counts = torch.bincount(found.labels, minlength=len(found.names)).tolist()
    pairs = torch.unique(torch.stack((found.labels, found.images)), dim=1)
    images = torch.bincount(pairs[0], minlength=len(found.names)).tolist()
    order = sorted(range(len(counts)), key=lambda label: -counts[label])
    present = [label for label in order if counts[label]]
    width = max(len(_name(found.names[label])) for label in present[:_MAX_ROWS])
    lines = [f"  {'class':<{width}}  objects  images"]
    for label in present[:_MAX_ROWS]:
        lines.append(
            f"  {_name(found.names[label]):<{width}}  {counts[label]:7}  {images[label]:6}"
        )
    rest = present[_MAX_ROWS:]
    if rest:
        lines.append(f"  and {len(rest)} more of at most {_count(counts[rest[0]], 'object')}")
    absent = [_name(found.names[label]) for label in order if not counts[label]]
    if absent:
        lines.append(f"  classes without objects: {some_of(absent, 8)}")
    return lines


def _size_table(found: ObjectStatistics, config: Config) -> list[str]:
    """Count small, medium and large objects, and those that match an anchor."""
    side, threshold = config.model.image_size, config.loss.positive_iou
    areas = found.areas * side**2
    recalled = best_overlaps(found.boxes, config.model) >= threshold
    lines = [f"  size at {side} x {side}    objects  share  with an anchor (IoU >= {threshold:g})"]
    for name, low, high in (*_SIZES, ("all", 0, _SIZES[-1][2])):
        chosen = (areas >= low**2) & (areas < high**2)
        count = int(chosen.sum())
        share = count / len(areas)
        met = f"{recalled[chosen].float().mean():.1%}" if count else "-"
        lines.append(f"  {name:<16} {count:9}  {share:5.1%}  {met:>6}")
    narrow = int((found.boxes[:, 2:].amin(dim=1) * side < LEARNED_SIDE).sum())
    if narrow:
        thin = _count(narrow, "object")
        lines.append(f"  {thin} narrower than {LEARNED_SIDE} px there: too small to be learned")
    if recalled.float().mean() < _LOW_RECALL:
        lines.append("  to train from scratch, see yolact anchors for better anchors")
    return lines


def _name(name: str) -> str:
    """Shorten a class name, which may be anything, for a table."""
    return printable(name[:30])


def log_what_is_learned(data: CocoInstances, name: str) -> None:
    """Log which objects are not learned, or only in part.

    Raises:
        ValueError: there are no objects to learn.
    """
    for problem in check_trainable(data, name):
        if problem.what == NOTHING:
            raise ValueError(str(problem))
        logger.warning("%s", problem)
    if data.skipped:
        logger.warning("%s: %d images skipped, whose objects have boxes alone", name, data.skipped)
    found = data.counts()
    if found.boxes_only:
        rest = "no mask is learned" if found.boxes_only == found.objects else "masks of the others"
        logger.warning(
            "%s: %d of %d objects have no outline: of these box and class are learned, %s "
            "(--boxes_only=ignore or skip)",
            *(name, found.boxes_only, found.objects, rest),
        )
    _warn_of_rectangles(found, name)


def _warn_of_rectangles(found: ObjectCounts, name: str) -> None:
    outlines = found.objects - found.boxes_only
    if outlines and found.rectangles >= _DRAWN_AS_BOXES * outlines:
        logger.warning(
            "%s: %d of %d outlines are rectangles, and masks will be learned so: where they are "
            "boxes around objects, draw the outlines",
            *(name, found.rectangles, outlines),
        )


def fitted_to_density(config: Config, datasets: Iterable[Dataset | None]) -> Config:
    """Raise the limits of detections to the number of objects in an image, and log shortfalls.

    Args:
        config: not changed if `max_detections` or `top_k` differ from the published values, as
            they are then intended.
        datasets: for training and validation.
    """
    known = [data.counts() for data in datasets if isinstance(data, CocoInstances)]
    most = max((found.most_in_image for found in known), default=0)
    of_class = max((found.most_of_class for found in known), default=0)
    published, own = DetectConfig(), config.detect
    if (own.max_detections, own.top_k) == (published.max_detections, published.top_k):
        config = with_raised_limits(config, most, of_class)
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


def report_on_dataset(data: Dataset, config: Config, folder: Path) -> None:
    """Log statistics of the training images, and write a picture of augmented ones to `folder`."""
    if isinstance(data, CocoInstances):
        logger.info(describe_dataset(data, config))
        if len(data) <= _CHECKED_IMAGES:
            _log_problems(config)
    picture = folder / "train_pictures.jpg"
    logger.info("%s", picture_of_training_data(training_data(data, config), picture))


def _log_problems(config: Config) -> None:
    """Log suspicious findings in a dataset: a few lines, and the number of further ones."""
    for split, problems in check_dataset(config.dataset, options=config.data).items():
        for problem in problems[:_TOLD_PROBLEMS]:
            logger.warning("%s: %s", split, problem)
        if len(problems) > _TOLD_PROBLEMS:
            more = len(problems) - _TOLD_PROBLEMS
            logger.warning("%s: %d more, see yolact check %s", split, more, config.dataset)
