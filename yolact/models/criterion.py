"""The training criterion: match anchors, then weight the losses of layers/losses.py."""

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
from layers.structures import Predictions, Target, fetch, positions, tensor_like, upload
from yolact import distributed
from yolact.config import LossConfig

from .mask_rescorer import MaskRescorer

_AT_ONCE = 16  # S x S masks converted to floats at a time: bounds memory


class Criterion:
    """Losses of a batch, by name, weighted and averaged.

    Losses are divided by the number of positive anchors in the batch, except two kinds: mask losses
    by the number of positive anchors whose object has a mask, the semantic loss by the number of
    images.

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
            targets: B targets, in pixels of the network input; best on the CPU: a GPU waits less.

        Returns:
            Scalars "box", "confidence", "mask", "semantic" and, with re-scoring, "mask_iou".
        """
        with torch.autocast(predictions.class_logits.device.type, enabled=False):
            floats = (part if part is None else part.float() for part in predictions)
            return self._losses(Predictions._make(floats), targets)

    def _losses(self, predictions: Predictions, targets: Sequence[Target]) -> dict[str, Tensor]:
        config, objects = self.config, _gather(targets, predictions.anchors.device)
        matches = match_anchors(
            predictions.anchors,
            objects.boxes,
            objects.labels,
            objects.counts,
            objects.crowd_boxes,
            config.positive_iou,
            config.negative_iou,
            config.crowd_overlap,
        )
        positive = matches.classes > BACKGROUND  # (B, P)
        with_mask = positive & objects.has_mask[matches.objects] if len(objects.boxes) else positive
        (told,) = fetch(torch.stack((positive.sum(dim=1), with_mask.sum(dim=1))))
        counts = told.tolist()  # sync: on the CPU
        place = positions(positive, sum(counts[0]))  # (N,) positive anchors in the flat batch
        index = matches.objects.flatten()[place]  # (N,) their objects
        anchors = predictions.anchors[place % positive.shape[1]]
        deltas = predictions.box_deltas.flatten(0, 1).index_select(0, place)
        box = self._box_loss(deltas, objects.boxes[index], anchors)
        has_mask = positions(objects.has_mask[index], sum(counts[1]))
        mask, rescored = self._mask_losses(
            predictions, objects, counts[1], place[has_mask], index[has_mask]
        )
        confidence = confidence_loss(
            predictions.class_logits, matches.classes, config.negative_ratio
        )
        # Counts of all processes: their losses then add up to those of the whole batch.
        totals = distributed.all_reduce_mean(tensor_like(box, (len(index), len(has_mask))))
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
        objects: _BatchTargets,
        counts: Sequence[int],
        place: Tensor,
        index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the mask loss of a batch and its mask-IoU loss.

        Args:
            predictions: predictions for B images.
            objects: the ground truth.
            counts: for each image, the number of positive anchors whose object has a mask; N in
                all.
            place: (N,) indices of these anchors in the batch, image after image.
            index: (N,) their objects.
        """
        limit = self.config.masks_to_train
        if max(counts) > limit:  # use a random sample, weighted to stand for all: saves memory
            parts = torch.split(torch.arange(len(place), device=place.device), list(counts))
            kept = torch.cat([_sample(part, limit) for part in parts])
            place, index = place[kept], index[kept]
        sizes = [min(count, limit) for count in counts]
        drawn = [count / max(size, 1) for count, size in zip(counts, sizes, strict=True)]
        shares = torch.tensor(drawn).repeat_interleave(torch.tensor(sizes))  # sync: on the CPU
        coefficients = predictions.coefficients.flatten(0, 1).index_select(0, place)
        logits = [
            part @ prototypes
            for part, prototypes in zip(
                torch.split(coefficients, sizes), predictions.prototypes.flatten(2), strict=True
            )
        ]
        all_logits = torch.cat(logits).view(-1, *predictions.prototypes.shape[-2:])
        target = _shrunk(objects, all_logits.shape[-2:])[index]
        boxes = objects.boxes[index]
        per_mask = mask_loss(all_logits, target, boxes)
        if self.config.dice_weight:
            per_mask = per_mask + self.config.dice_weight * dice_loss(all_logits, target, boxes)
        total = (per_mask * upload(shares, per_mask.device)).sum()
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

    def _semantic(self, predictions: Predictions, objects: _BatchTargets) -> Tensor:
        logits = predictions.semantic_logits
        if logits is None:
            raise ValueError("the criterion needs predictions made in training mode")
        images, classes = logits.shape[:2]
        masks = _shrunk(objects, logits.shape[-2:])
        # Treat the batch as a single image with images x classes channels.
        channels, unknown = objects.images * classes + objects.labels, None
        if len(objects.box_targets.boxes):
            windows = box_windows(objects.box_targets.boxes, logits.shape[-2:])
            box_targets = objects.box_targets.images * classes + objects.box_targets.labels
            unknown = paint_classes(windows, box_targets, images * classes)
        total = semantic_loss(logits.flatten(0, 1), masks, channels, unknown)
        return self.config.semantic_weight * total / images


class _BoxTargets(NamedTuple):
    """Objects and crowds whose box is known, but not the mask.

    Attributes:
        boxes: (B, 4) xyxy relative.
        labels: (B,) 0-based.
        images: (B,) index of their image.
    """

    boxes: Tensor
    labels: Tensor
    images: Tensor


class _BatchTargets(NamedTuple):
    """The objects of a batch, one image after the other, without empty ones.

    Attributes:
        boxes: (M, 4) xyxy relative.
        labels: (M,) 0-based.
        masks: (M, S, S) bool.
        images: (M,) index of their image.
        counts: number of objects in each image.
        has_mask: (M,) bool; False where only the box is known.
        box_targets: the objects without a mask, and crowds without one.
        crowd_boxes: for each image, (Q, 4) xyxy relative.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    images: Tensor
    counts: list[int]
    has_mask: Tensor
    box_targets: _BoxTargets
    crowd_boxes: list[Tensor]


def _gather(targets: Sequence[Target], device: torch.device) -> _BatchTargets:
    """Filter targets on the CPU, where nothing has to wait, and move the rest to the device."""
    sizes = [len(target) for target in targets]
    corners, labels, is_crowd, has_mask = fetch(
        *(
            torch.cat([getattr(target, name) for target in targets])
            for name in ("boxes", "labels", "is_crowd", "has_mask")
        )
    )
    # Divide in the original precision: rounding twice would break ties between anchors.
    boxes = (corners / tensor_like(corners, targets[0].masks.shape[:0:-1] * 2)).float()
    usable = (corners[:, 2:] > corners[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1)
    kept, crowds, box_targets = usable & ~is_crowd, usable & is_crowd, usable & ~has_mask
    rows = torch.arange(len(targets)).repeat_interleave(torch.tensor(sizes))  # sync: on the CPU
    counts, crowd_counts = (
        torch.bincount(rows[flags], minlength=len(targets)).tolist()  # sync: on the CPU
        for flags in (kept, crowds)
    )
    masks = torch.cat([upload(target.masks, device) for target in targets])
    if sum(counts) < sum(sizes):  # select on the device: faster on a GPU
        masks = masks.index_select(0, upload(_where(kept), device))
    return _BatchTargets(
        boxes=upload(boxes[kept], device),
        labels=upload(labels[kept], device),
        masks=masks,
        images=upload(rows[kept], device),
        counts=counts,
        has_mask=upload(has_mask[kept], device),
        box_targets=_BoxTargets(
            *(upload(part[box_targets], device) for part in (boxes, labels, rows))
        ),
        crowd_boxes=list(torch.split(upload(boxes[crowds], device), crowd_counts)),
    )


def _where(flags: Tensor) -> Tensor:
    """Return the indices of true values in (n,) flags on the CPU, int64."""
    return flags.nonzero()[:, 0]  # sync: on the CPU


def _sample(indices: Tensor, count: int) -> Tensor:
    """Choose `count` indices at random, or all if there are no more."""
    if len(indices) <= count:
        return indices
    return indices[torch.randperm(len(indices), device=indices.device)[:count]]


def _shrunk(objects: _BatchTargets, grid_hw: torch.Size) -> Tensor:
    """Return the masks of all objects on a grid, (M, h, w) float, in parts to bound memory."""
    return torch.cat(
        [shrink_masks(masks, grid_hw) for masks in torch.split(objects.masks, _AT_ONCE)]
    )
