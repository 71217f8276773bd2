"""Losses of YOLACT (sec. 3 and 5) and YOLACT++ (mask re-scoring), unweighted, in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from .masks import box_windows
from .matching import BACKGROUND, IGNORE

_FAR = 1e4  # limit of coordinates, in image sides: larger boxes' areas would overflow


def box_loss(box_deltas: Tensor, target_deltas: Tensor) -> Tensor:
    """Sum the smooth L1 distance of (N, 4) encoded boxes."""
    return F.smooth_l1_loss(box_deltas, target_deltas, reduction="sum")


def giou_loss(boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """Sum 1 - generalised IoU (Rezatofighi et al. 2019) of (N, 4) xyxy relative boxes."""
    boxes, target_boxes = boxes.clamp(-_FAR, _FAR), target_boxes.clamp(-_FAR, _FAR)
    loss: Tensor = generalized_box_iou_loss(boxes, target_boxes, reduction="sum")
    return loss


def confidence_loss(class_logits: Tensor, classes: Tensor, negative_ratio: int = 3) -> Tensor:
    """Sum the cross entropy over positives and the hardest negatives of each image (OHEM).

    An image without positives counts as if it had one: its `negative_ratio` hardest negatives are
    used. The released code never used the negatives of such images.

    Args:
        class_logits: (B, P, C+1), index 0 = background.
        classes: (B, P): -1 ignored, 0 background, 1..C foreground.
        negative_ratio: negatives per positive.
    """
    with torch.no_grad():
        hardness = class_logits.logsumexp(dim=2) - class_logits[:, :, 0]  # (B, P)
        hardness = hardness.masked_fill(classes != BACKGROUND, -1)
        positives = (classes > BACKGROUND).sum(dim=1).clamp(min=1)
        rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
        negative = (rank < negative_ratio * positives[:, None]) & (classes == BACKGROUND)
    chosen = negative | (classes > BACKGROUND)
    if class_logits.device.type == "cpu":  # saves the exponentials of all other anchors
        class_logits, classes = class_logits[chosen], classes[chosen]  # sync: on the CPU
    else:
        class_logits, classes = class_logits.flatten(0, 1), classes.where(chosen, IGNORE).flatten()
    return F.cross_entropy(class_logits, classes, reduction="sum", ignore_index=IGNORE)


def mask_loss(mask_logits: Tensor, target_masks: Tensor, boxes: Tensor) -> Tensor:
    """Return the binary cross entropy inside each box, divided by its area (YOLACT sec. 3.3).

    Args:
        mask_logits: (N, h, w) prototypes x coefficients, before the sigmoid.
        target_masks: (N, h, w) in {0, 1}.
        boxes: (N, 4) xyxy relative: ground truth, for cropping and normalising.

    Returns:
        (N,) mean loss over the box; sides below a quarter of a cell count as a quarter.
    """
    height, width = mask_logits.shape[-2:]
    loss = F.binary_cross_entropy_with_logits(mask_logits, target_masks, reduction="none")
    loss = (loss * box_windows(boxes, (height, width))).sum(dim=(1, 2))
    cells_x, cells_y = (boxes[:, 2:] - boxes[:, :2]).unbind(1)  # (N,), relative
    return loss / ((cells_x * width).clamp(min=0.25) * (cells_y * height).clamp(min=0.25))


def dice_loss(mask_logits: Tensor, target_masks: Tensor, boxes: Tensor) -> Tensor:
    """Return one minus the dice coefficient inside each box (Milletari et al. 2016).

    Args:
        mask_logits: (N, h, w) before the sigmoid.
        target_masks: (N, h, w) in {0, 1}.
        boxes: (N, 4) xyxy relative: ground truth, for cropping.

    Returns:
        (N,) in [0, 1]; 0 where the target and the mask are both empty.
    """
    windows = box_windows(boxes, mask_logits.shape[-2:])
    soft, target_masks = mask_logits.sigmoid() * windows, target_masks * windows
    both = (soft * target_masks).sum(dim=(1, 2))
    each = soft.square().sum(dim=(1, 2)) + target_masks.sum(dim=(1, 2))
    return 1 - (2 * both + 1) / (each + 1)


def semantic_loss(
    semantic_logits: Tensor, masks: Tensor, labels: Tensor, unknown: Tensor | None = None
) -> Tensor:
    """Return the per-pixel binary cross entropy of an image, averaged over pixels (YOLACT sec. 5).

    Args:
        semantic_logits: (C, h, w).
        masks: (M, h, w) in {0, 1} on the same grid.
        labels: (M,) 0-based.
        unknown: (C, h, w) in {0, 1}: 1 where it is unknown whether a class is present; pixels that
            a mask of the class covers count as known.
    """
    target = paint_classes(masks, labels, len(semantic_logits))
    weight = None if unknown is None else 1 - unknown * (1 - target)
    loss = F.binary_cross_entropy_with_logits(semantic_logits, target, weight, reduction="sum")
    return loss / semantic_logits[0].numel()


def paint_classes(masks: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Unite (M, h, w) masks in {0, 1} per class, by (M,) 0-based labels: (C, h, w) float32."""
    painted = torch.zeros((num_classes, *masks.shape[1:]), device=masks.device)
    index = labels[:, None, None].expand(masks.shape)
    return painted.scatter_reduce_(0, index, masks.to(painted.dtype), reduce="amax")


def mask_iou(masks1: Tensor, masks2: Tensor) -> Tensor:
    """Return the IoU of N pairs of (N, h, w) binary masks; 0 where both are empty."""
    intersection = (masks1 * masks2).sum(dim=(1, 2))
    union = masks1.sum(dim=(1, 2)) + masks2.sum(dim=(1, 2)) - intersection
    return intersection / union.clamp(min=1)


def mask_iou_loss(predicted_iou: Tensor, target_iou: Tensor) -> Tensor:
    """Sum the smooth L1 distance of (N,) predicted mask qualities (YOLACT++, mask re-scoring)."""
    return F.smooth_l1_loss(predicted_iou, target_iou, reduction="sum")


def shrink_masks(masks: Tensor, grid_hw: tuple[int, int] | torch.Size) -> Tensor:
    """Resize (M, S, S) bool masks bilinearly to a grid and binarise: (M, h, w) float."""
    if not len(masks):
        return torch.zeros((0, *grid_hw), device=masks.device)
    small = F.interpolate(masks[None].float(), tuple(grid_hw), mode="bilinear", align_corners=False)
    return (small[0] > 0.5).float()
