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
from layers.structures import Predictions, Target, beside, fetch, positions, upload
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
        positive = matches.classes > BACKGROUND  # (B, P)
        with_mask = positive & objects.has_mask[matches.objects] if len(objects.boxes) else positive
        (told,) = fetch(torch.stack((positive.sum(dim=1), with_mask.sum(dim=1))))
        counts = told.tolist()  # sync: on the CPU
        # (N,) each: image and anchor of a positive, and its object.
        place = positions(positive, sum(counts[0]))
        image, anchor = place // positive.shape[1], place % positive.shape[1]
        index = matches.objects[image, anchor]
        box = self._box_loss(
            predictions.box_deltas[image, anchor], objects.boxes[index], predictions.anchors[anchor]
        )
        has_mask = positions(objects.has_mask[index], sum(counts[1]))
        mask, rescored = self._mask_losses(
            predictions, objects, counts[1], anchor[has_mask], index[has_mask]
        )
        confidence = confidence_loss(
            predictions.class_logits, matches.classes, config.negative_ratio
        )
        # Of all processes: each one's share of the losses then adds up to those of the whole batch.
        totals = distributed.mean(beside(box, (len(index), len(has_mask))))
        positives, masked = totals.clamp(min=1 / distributed.world_size()).unbind()
        losses = {
            "box": config.box_weight * box / positives,
            "confidence": config.confidence_weight * confidence / positives,
            "mask": config.mask_weight * mask / masked,
            "semantic": self._semantic(predictions, objects),
        }
        if self.mask_rescorer is not None:
            losses["mask_iou"] = config.mask_iou_weight * rescored / masked
        return losses

    def _box_loss(self, deltas: Tensor, boxes: Tensor, anchors: Tensor) -> Tensor:
        if self.config.box_loss == "giou":
            return giou_loss(decode_boxes(deltas, anchors), boxes)
        return box_loss(deltas, encode_boxes(boxes, anchors))

    def _mask_losses(
        self,
        predictions: Predictions,
        objects: _Objects,
        counts: Sequence[int],
        anchor: Tensor,
        index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the mask loss of a batch and its mask-IoU loss.

        Args:
            predictions: of B images.
            objects: the ground truth.
            counts: of each image, its positive anchors whose object has a mask.
            anchor: (N,) which they are, image after image.
            index: (N,) the object of each.
        """
        kept, logits, shares = [], [], []
        parts = torch.split(torch.arange(len(anchor), device=anchor.device), list(counts))
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
        total = (per_mask * beside(per_mask, shares)).sum()
        return total, self._mask_iou_loss(all_logits, target, boxes, objects.labels[index])

    def _mask_iou_loss(
        self, logits: Tensor, target: Tensor, boxes: Tensor, labels: Tensor
    ) -> Tensor:
        if self.mask_rescorer is None:
            return logits.sum() * 0
        is_large = target.sum(dim=(1, 2)) > self.config.discard_mask_area
        (count,) = fetch(is_large.sum())
        large = positions(is_large, int(count))
        if not len(large):
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
        if len(objects.boxed):
            windows = box_windows(objects.boxes[objects.boxed], logits.shape[-2:])
            unknown = paint_classes(windows, channels[objects.boxed], images * classes)
        total = semantic_loss(logits.flatten(0, 1), masks, channels, unknown)
        return self.config.semantic_weight * total / images


class _Objects(NamedTuple):
    """The objects of a batch, one image after the other, without empty ones.

    Attributes:
        boxes: (M, 4) xyxy relative.
        labels: (M,) 0-based.
        images: (M,) where they are.
        has_mask: (M,) bool; of the others only the box is known.
        boxed: which these others are.
        masks: of each image, (m, S, S) bool.
        crowd_boxes: of each image, (Q, 4) xyxy relative.
    """

    boxes: Tensor
    labels: Tensor
    images: Tensor
    has_mask: Tensor
    boxed: Tensor
    masks: list[Tensor]
    crowd_boxes: list[Tensor]


def _gather(targets: Sequence[Target]) -> _Objects:
    counts, device = [len(target) for target in targets], targets[0].boxes.device
    corners = torch.cat([target.boxes for target in targets])
    is_crowd = torch.cat([target.is_crowd for target in targets])
    has_mask = torch.cat([target.has_mask for target in targets])
    boxes = corners.float()
    boxes = boxes / beside(boxes, targets[0].masks.shape[:0:-1] * 2)
    usable = (corners[:, 2:] > corners[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1)
    (flags,) = fetch(torch.stack((usable & ~is_crowd, usable & is_crowd, has_mask)))
    kept, crowds, masked = flags
    own = [_where(part) for part in torch.split(kept, counts)]
    sizes = list(map(len, own))
    crowd_sizes = [len(_where(part)) for part in torch.split(crowds, counts)]
    images = torch.arange(len(targets)).repeat_interleave(torch.tensor(sizes))
    chosen = _where(kept), _where(crowds), _where(~masked[kept]), torch.cat(own), images
    index, crowd_index, boxed, own_index, images = (upload(each, device) for each in chosen)
    parts = zip(targets, torch.split(own_index, sizes), strict=True)
    return _Objects(
        boxes=boxes[index],
        labels=torch.cat([target.labels for target in targets])[index],
        images=images,
        has_mask=has_mask[index],
        boxed=boxed,
        masks=[t.masks if len(i) == len(t) else t.masks[i] for t, i in parts],
        crowd_boxes=list(torch.split(boxes[crowd_index], crowd_sizes)),
    )


def _where(flags: Tensor) -> Tensor:
    """Return where (n,) flags on the CPU are true, int64."""
    return flags.nonzero()[:, 0]  # sync: on the CPU


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
