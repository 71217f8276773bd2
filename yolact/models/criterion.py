"""The training criterion: match, then weigh the pure losses of layers/losses.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from layers.boxes import decode_boxes, encode_boxes
from layers.losses import (
    box_loss,
    confidence_loss,
    dice_loss,
    giou_loss,
    mask_iou,
    mask_iou_loss,
    mask_loss,
    paint_classes,
    semantic_loss,
    shrink_masks,
)
from layers.masks import box_windows
from layers.matching import BACKGROUND, match_anchors
from layers.structures import Predictions, Target
from yolact import distributed
from yolact.config import LossConfig

from .mask_rescorer import MaskRescorer


class Criterion:
    """Losses of a batch, by name, weighted and averaged.

    All are divided by the number of positive anchors in the batch, those of masks by how many of
    these belong to an object with a mask, except the semantic loss, which is divided by the number
    of images.

    Args:
        config: thresholds and weights.
        mask_rescorer: the branch that the mask-IoU loss trains, or None.
    """

    def __init__(self, config: LossConfig, mask_rescorer: MaskRescorer | None = None) -> None:
        self.config, self.mask_rescorer = config, mask_rescorer

    def __call__(self, predictions: Predictions, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            predictions: of B images, in training mode.
            targets: B of them, in pixels of the network input.

        Returns:
            Scalars "box", "confidence", "mask", "semantic" and, with re-scoring, "mask_iou".
        """
        with torch.autocast(predictions.class_logits.device.type, enabled=False):
            return self._losses(_float(predictions), targets)

    def _losses(self, predictions: Predictions, targets: Sequence[Target]) -> dict[str, Tensor]:
        config, objects = self.config, _gather(targets)
        matches = match_anchors(
            predictions.anchors,
            objects.boxes,
            objects.labels,
            [len(masks) for masks in objects.masks],
            objects.crowd_boxes,
            config.positive_iou,
            config.negative_iou,
            config.crowd_overlap,
        )
        # (N,) each: image and anchor of a positive, and its object.
        image, anchor = (matches.classes > BACKGROUND).nonzero(as_tuple=True)
        index = matches.objects[image, anchor]
        box = self._box_loss(
            predictions.box_deltas[image, anchor], objects.boxes[index], predictions.anchors[anchor]
        )
        has_mask = objects.has_mask[index].nonzero()[:, 0]
        mask, rescored = self._mask_losses(
            predictions, objects, image[has_mask], anchor[has_mask], index[has_mask]
        )
        confidence = confidence_loss(
            predictions.class_logits, matches.classes, config.negative_ratio
        )
        # Of all processes: each one's share of the losses then adds up to those of the whole batch.
        counts = distributed.mean(box.new_tensor((len(index), len(has_mask))))
        positives, with_mask = counts.clamp(min=1 / distributed.world_size()).unbind()
        losses = {
            "box": config.box_weight * box / positives,
            "confidence": config.confidence_weight * confidence / positives,
            "mask": config.mask_weight * mask / with_mask,
            "semantic": self._semantic(predictions, objects),
        }
        if self.mask_rescorer is not None:
            losses["mask_iou"] = config.mask_iou_weight * rescored / with_mask
        return losses

    def _box_loss(self, deltas: Tensor, boxes: Tensor, anchors: Tensor) -> Tensor:
        if self.config.box_loss == "giou":
            return giou_loss(decode_boxes(deltas, anchors), boxes)
        return box_loss(deltas, encode_boxes(boxes, anchors))

    def _mask_losses(
        self,
        predictions: Predictions,
        objects: _Objects,
        image: Tensor,
        anchor: Tensor,
        index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the mask loss of a batch and its mask-IoU loss.

        Args:
            predictions: of B images.
            objects: the ground truth.
            image: (N,) of the positive anchors whose object has a mask, rising.
            anchor: (N,) which they are.
            index: (N,) the object of each.
        """
        counts = torch.bincount(image, minlength=len(objects.masks)).tolist()
        kept, logits, shares = [], [], []
        parts = torch.split(torch.arange(len(image), device=image.device), counts)
        for prototypes, coefficients, part in zip(
            predictions.prototypes, predictions.coefficients, parts, strict=True
        ):
            positives = len(part)
            if positives > self.config.masks_to_train:  # a random part stands for all: memory
                chosen = torch.randperm(positives, device=part.device)
                part = part[chosen[: self.config.masks_to_train]]
            logits.append(torch.einsum("nk,khw->nhw", coefficients[anchor[part]], prototypes))
            kept.append(part)
            shares += [positives / max(len(part), 1)] * len(part)
        all_logits, index = torch.cat(logits), index[torch.cat(kept)]
        target = _shrunk(objects, all_logits.shape[-2:])[index]
        boxes = objects.boxes[index]
        per_mask = mask_loss(all_logits, target, boxes)
        if self.config.dice_weight:
            per_mask = per_mask + self.config.dice_weight * dice_loss(all_logits, target, boxes)
        total = (per_mask * per_mask.new_tensor(shares)).sum()
        return total, self._mask_iou_loss(all_logits, target, boxes, objects.labels[index])

    def _mask_iou_loss(
        self, logits: Tensor, target: Tensor, boxes: Tensor, labels: Tensor
    ) -> Tensor:
        large = target.sum(dim=(1, 2)) > self.config.discard_mask_area
        if self.mask_rescorer is None or not large.any():
            return logits.sum() * 0
        logits, target = logits[large], target[large]
        soft = logits.sigmoid() * box_windows(boxes[large], logits.shape[-2:])
        true_iou = mask_iou((soft > 0.5).float(), target)
        return mask_iou_loss(self.mask_rescorer(soft, labels[large]), true_iou)

    def _semantic(self, predictions: Predictions, objects: _Objects) -> Tensor:
        logits = predictions.semantic_logits
        if logits is None:
            raise ValueError("the criterion needs predictions made in training mode")
        images, classes = logits.shape[:2]
        masks = _shrunk(objects, logits.shape[-2:])
        # One image after the other: the channels of a single one with images x classes classes.
        channels, unknown = objects.images * classes + objects.labels, None
        if len(boxed := (~objects.has_mask).nonzero()[:, 0]):
            windows = box_windows(objects.boxes[boxed], logits.shape[-2:])
            unknown = paint_classes(windows, channels[boxed], images * classes)
        total = semantic_loss(logits.flatten(0, 1), masks, channels, unknown)
        return self.config.semantic_weight * total / images


class _Objects(NamedTuple):
    """The objects of a batch, one image after the other, without empty ones.

    Attributes:
        boxes: (M, 4) xyxy relative.
        labels: (M,) 0-based.
        images: (M,) where they are.
        has_mask: (M,) bool; of the others only the box is known.
        masks: of each image, (m, S, S) bool.
        crowd_boxes: of each image, (Q, 4) xyxy relative.
    """

    boxes: Tensor
    labels: Tensor
    images: Tensor
    has_mask: Tensor
    masks: list[Tensor]
    crowd_boxes: list[Tensor]


def _gather(targets: Sequence[Target]) -> _Objects:
    counts, device = [len(target) for target in targets], targets[0].boxes.device
    corners = torch.cat([target.boxes for target in targets])
    is_crowd = torch.cat([target.is_crowd for target in targets])
    side = corners.new_tensor(targets[0].masks.shape[:0:-1], dtype=torch.float32).repeat(2)
    boxes = corners.float() / side
    usable = (corners[:, 2:] > corners[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1)
    both = torch.stack((usable & ~is_crowd, usable & is_crowd)).cpu()  # the one wait for a GPU
    kept, crowds = (
        [flag.nonzero()[:, 0].to(device) for flag in torch.split(flags, counts)] for flags in both
    )
    parts = list(zip(targets, kept, strict=True))
    split_boxes = torch.split(boxes, counts)
    return _Objects(
        boxes=torch.cat([part[i] for part, i in zip(split_boxes, kept, strict=True)]),
        labels=torch.cat([target.labels[i] for target, i in parts]),
        images=torch.cat([torch.full_like(i, image) for image, i in enumerate(kept)]),
        has_mask=torch.cat([target.has_mask[i] for target, i in parts]),
        masks=[t.masks if len(i) == len(t) else t.masks[i] for t, i in parts],
        crowd_boxes=[part[i] for part, i in zip(split_boxes, crowds, strict=True)],
    )


def _shrunk(objects: _Objects, grid_hw: torch.Size) -> Tensor:
    """Return the masks of all objects on a grid, (M, h, w) float."""
    return torch.cat([shrink_masks(masks, grid_hw) for masks in objects.masks])


def _float(predictions: Predictions) -> Predictions:
    semantic = predictions.semantic_logits
    return Predictions(
        class_logits=predictions.class_logits.float(),
        box_deltas=predictions.box_deltas.float(),
        coefficients=predictions.coefficients.float(),
        prototypes=predictions.prototypes.float(),
        anchors=predictions.anchors.float(),
        semantic_logits=None if semantic is None else semantic.float(),
    )
