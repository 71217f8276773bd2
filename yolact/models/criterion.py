"""The training criterion: match, then weigh the pure losses of layers/losses.py."""

from __future__ import annotations

from collections.abc import Sequence

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
        config, anchors = self.config, predictions.anchors
        classes, rescored, outlined = [], [], []
        box = mask = predictions.box_deltas.sum() * 0
        for i, target in enumerate(targets):
            objects, boxes, crowd_boxes = _split_crowds(target)
            matches = match_anchors(
                anchors,
                boxes,
                objects.labels,
                crowd_boxes,
                config.positive_iou,
                config.negative_iou,
                config.crowd_overlap,
            )
            classes.append(matches.classes)
            positive = matches.classes > BACKGROUND
            index = matches.objects[positive]
            deltas = predictions.box_deltas[i, positive]
            box = box + self._box_loss(deltas, boxes[index], anchors[positive])
            has_mask = objects.has_mask[index]
            image_mask, image_rescored = self._mask_losses(
                predictions.prototypes[i],
                predictions.coefficients[i, positive][has_mask],
                objects,
                boxes,
                index[has_mask],
            )
            mask = mask + image_mask
            rescored.append(image_rescored)
            outlined.append(has_mask.sum())
        all_classes = torch.stack(classes)
        confidence = confidence_loss(predictions.class_logits, all_classes, config.negative_ratio)
        # Of all processes: each one's share of the losses then adds up to those of the whole batch.
        counts = torch.stack(((all_classes > BACKGROUND).sum(), torch.stack(outlined).sum()))
        counts = distributed.mean(counts.float()).clamp(min=1 / distributed.world_size())
        positives, with_mask = counts.unbind()
        losses = {
            "box": config.box_weight * box / positives,
            "confidence": config.confidence_weight * confidence / positives,
            "mask": config.mask_weight * mask / with_mask,
            "semantic": self._semantic(predictions, targets),
        }
        if self.mask_rescorer is not None:
            losses["mask_iou"] = config.mask_iou_weight * torch.stack(rescored).sum() / with_mask
        return losses

    def _box_loss(self, deltas: Tensor, boxes: Tensor, anchors: Tensor) -> Tensor:
        if self.config.box_loss == "giou":
            return giou_loss(decode_boxes(deltas, anchors), boxes)
        return box_loss(deltas, encode_boxes(boxes, anchors))

    def _mask_losses(
        self,
        prototypes: Tensor,
        coefficients: Tensor,
        objects: Target,
        boxes: Tensor,
        index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the mask loss of one image and its mask-IoU loss.

        Args:
            prototypes: (K, h, w).
            coefficients: (N, K) of the positive anchors.
            objects: the ground truth.
            boxes: (M, 4) xyxy relative, of the ground truth.
            index: (N,) the object of each positive anchor.
        """
        positives = len(index)
        if positives > self.config.masks_to_train:  # a random part stands for all, to save memory
            part = torch.randperm(positives, device=index.device)[: self.config.masks_to_train]
            coefficients, index = coefficients[part], index[part]
        logits = torch.einsum("nk,khw->nhw", coefficients, prototypes)
        target = shrink_masks(objects.masks, logits.shape[-2:])[index]
        per_mask = mask_loss(logits, target, boxes[index])
        if self.config.dice_weight:
            per_mask = per_mask + self.config.dice_weight * dice_loss(logits, target, boxes[index])
        total = per_mask.sum() * (positives / max(len(index), 1))
        return total, self._mask_iou_loss(logits, target, boxes[index], objects.labels[index])

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

    def _semantic(self, predictions: Predictions, targets: Sequence[Target]) -> Tensor:
        logits = predictions.semantic_logits
        if logits is None:
            raise ValueError("the criterion needs predictions made in training mode")
        total = logits.sum() * 0
        for image_logits, target in zip(logits, targets, strict=True):
            objects, boxes, _ = _split_crowds(target)
            masks = shrink_masks(objects.masks, image_logits.shape[-2:])
            unknown = None
            if not objects.has_mask.all():
                windows = box_windows(boxes, image_logits.shape[-2:])[~objects.has_mask]
                labels = objects.labels[~objects.has_mask]
                unknown = paint_classes(windows, labels, len(image_logits))
            total = total + semantic_loss(image_logits, masks, objects.labels, unknown)
        return self.config.semantic_weight * total / len(targets)


def _split_crowds(target: Target) -> tuple[Target, Tensor, Tensor]:
    """Return the objects, their boxes and the crowds' boxes, relative, without empty ones."""
    side = target.masks.new_tensor(target.masks.shape[:0:-1], dtype=torch.float32).repeat(2)
    boxes = target.boxes.float() / side
    usable = (target.boxes[:, 2:] > target.boxes[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1)
    keep = usable & ~target.is_crowd
    return target[keep], boxes[keep], boxes[usable & target.is_crowd]


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
