"""Mask R-CNN (He et al. 2017), the two-stage baseline: torchvision's, as a `Segmenter`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    expand_boxes,
    expand_masks,
    fastrcnn_loss,
    maskrcnn_inference,
    maskrcnn_loss,
)

from data.classes import COCO_CLASSES
from layers.structures import Target, tensor_like
from yolact.config import DetectConfig
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds

from .segmenter import Segmenter

STRIDE = 32  # of the coarsest backbone level
_POOLED = 7  # side of the box head's pooled features
_COCO_NUMBERS = 91  # background, and COCO's ids with their gaps
_EPSILON, _TINY = 1e-5, 1e-38  # of `nn.BatchNorm2d`; least divisor in float32

# Our names of the losses, and torchvision's.
_LOSSES = {
    "box": "loss_box_reg",
    "confidence": "loss_classifier",
    "mask": "loss_mask",
    "objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
}


class RoiInputs(NamedTuple):
    """B images in one batch, like torchvision's `ImageList`.

    Attributes:
        tensors: (B, 3, h, w) normalised RGB, zero beyond each image.
        image_sizes: height and width of each image in `tensors`.
        with_masks: whether to make masks.
    """

    tensors: Tensor
    image_sizes: list[tuple[int, int]]
    with_masks: bool = True


class RoiDetections(NamedTuple):
    """The detections of one image.

    Attributes:
        boxes: (N, 4) xyxy in pixels of the network input.
        scores: (N,) class probabilities, highest first.
        labels: (N,) 0-based.
        masks: (N, 1, m, m) in [0, 1], each covering its box; all 0 if no masks were asked for.
        input_hw: height and width of the image in the network input.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor
    input_hw: tuple[int, int]


class TwoStageNetwork(nn.Module):
    """Propose boxes, then classify, refine and segment each.

    Args:
        backbone: "resnet18", "resnet34", "resnet50" or "resnet101".
        num_classes: C, foreground only.
        fpn_channels: channels of P2..P6.
        head_channels: channels of the mask head; the box head is four times as wide.
        anchor_scales: for each of P2..P6, the anchor sides in pixels of the input.
        anchor_ratios: width / height.
        detection: thresholds and `max_detections`.
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        fpn_channels: int,
        head_channels: int,
        anchor_scales: Sequence[Sequence[float]],
        anchor_ratios: Sequence[float],
        detection: DetectConfig,
    ) -> None:
        super().__init__()
        classes, width = num_classes + 1, 4 * head_channels
        parts = MaskRCNN(
            _pyramid(backbone, fpn_channels),
            rpn_anchor_generator=AnchorGenerator(
                tuple(map(tuple, anchor_scales)),
                (tuple(1 / ratio for ratio in anchor_ratios),) * len(anchor_scales),
            ),
            box_head=TwoMLPHead(fpn_channels * _POOLED**2, width),
            box_predictor=FastRCNNPredictor(width, classes),
            mask_head=MaskRCNNHeads(fpn_channels, (head_channels,) * 4, dilation=1),
            mask_predictor=MaskRCNNPredictor(head_channels, head_channels, classes),
            box_score_thresh=detection.score_threshold,
            box_nms_thresh=detection.iou_threshold,
            box_detections_per_img=detection.max_detections,
        )
        self.backbone, self.fpn = parts.backbone.body, parts.backbone.fpn
        self.rpn, self.roi_heads = parts.rpn, parts.roi_heads
        for head in (self.rpn.head, self.roi_heads.box_predictor, self.roi_heads.mask_predictor):
            head.register_forward_hook(_to_float32)

    def forward(
        self, inputs: RoiInputs, targets: list[dict[str, Tensor]] | None = None
    ) -> list[RoiDetections] | dict[str, Tensor]:
        """Return torchvision's losses with targets, else the detections of each image."""
        features = self.fpn(self.backbone(inputs.tensors))
        # float32, as the anchors take the type of the features.
        features = {name: level.float() for name, level in features.items()}
        proposals, rpn_losses = self.rpn(inputs, features, targets)
        if targets is None:
            return self._detect(features, proposals, inputs)
        return {**self._losses(features, proposals, inputs.image_sizes, targets), **rpn_losses}

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return the heads' losses as torchvision does, but mask losses only where masks exist."""
        heads = self.roi_heads
        boxes, objects, labels, deltas = heads.select_training_samples(proposals, targets)
        pooled = heads.box_head(heads.box_roi_pool(features, boxes, sizes))
        class_loss, box_loss = fastrcnn_loss(*heads.box_predictor(pooled), labels, deltas)
        for i, target in enumerate(targets):
            chosen = labels[i] > 0
            if len(target["has_mask"]):
                chosen = chosen & target["has_mask"][objects[i]]
            boxes[i], objects[i] = boxes[i][chosen], objects[i][chosen]  # sync: how many positives
        pooled = heads.mask_head(heads.mask_roi_pool(features, boxes, sizes))
        truth = ([target[name] for target in targets] for name in ("masks", "labels"))
        mask_loss = maskrcnn_loss(heads.mask_predictor(pooled), boxes, *truth, objects)
        return {"loss_classifier": class_loss, "loss_box_reg": box_loss, "loss_mask": mask_loss}

    def _detect(
        self, features: dict[str, Tensor], proposals: list[Tensor], inputs: RoiInputs
    ) -> list[RoiDetections]:
        heads, sizes = self.roi_heads, inputs.image_sizes
        pooled = heads.box_head(heads.box_roi_pool(features, proposals, sizes))
        boxes, scores, labels = heads.postprocess_detections(
            *heads.box_predictor(pooled), proposals, sizes
        )
        if inputs.with_masks:
            pooled = heads.mask_head(heads.mask_roi_pool(features, boxes, sizes))
            masks = maskrcnn_inference(heads.mask_predictor(pooled), labels)
        else:
            masks = [each.new_zeros((len(each), 1, 1, 1)) for each in scores]
        labels = [each - 1 for each in labels]
        return [
            RoiDetections(*each) for each in zip(boxes, scores, labels, masks, sizes, strict=True)
        ]


class MaskRcnn(Segmenter[RoiInputs, list[RoiDetections]]):
    """torchvision's Mask R-CNN with the protocol of `Yolact`.

    Training takes S x S images, as the loader makes them. Images to detect in are squeezed to
    S x S as well, or, with `keep_aspect`, keep their proportions.

    Args:
        network: see `TwoStageNetwork`.
        image_size: S.
        keep_aspect: see `ModelConfig`.
        pixel_mean: RGB, in 0..255.
        pixel_std: RGB.
        class_names: one for each foreground class.
        detection: suppression settings.
        score_threshold: minimum score of shown detections, see `Segmenter`.
        loss_weights: loss name -> weight.
        fine_tuned: the backbone starts from trained weights, so its batch norm is frozen and its
            first layers are not trained, as in torchvision.
    """

    fixed_shapes = False
    first_stride = 4  # of P2
    loss_letters: ClassVar = {
        "box": "B",
        "confidence": "C",
        "mask": "M",
        "objectness": "O",
        "rpn_box": "R",
    }

    def __init__(
        self,
        network: TwoStageNetwork,
        image_size: int,
        keep_aspect: bool,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        class_names: tuple[str, ...],
        detection: DetectConfig,
        score_threshold: float,
        loss_weights: Mapping[str, float],
        fine_tuned: bool,
    ) -> None:
        super().__init__(
            network, image_size, pixel_mean, pixel_std, class_names, detection, score_threshold
        )
        self.keep_aspect, self.loss_weights = keep_aspect, dict(loss_weights)
        for name, parameter in network.backbone.named_parameters():
            if fine_tuned and name.startswith(("conv1.", "layer1.")):
                parameter.requires_grad_(False)
        self.freeze_batch_norm(fine_tuned)  # last: unfreezing leaves the layers above frozen

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the weighted losses: box, confidence, mask, objectness, rpn_box."""
        side = self.input_size
        inputs = _joined(torch.split(self.squeezed(images), 1))
        losses = self.network(
            inputs, [_roi_target(target.to(self.device), side) for target in targets]
        )
        return {name: self.loss_weights[name] * losses[theirs] for name, theirs in _LOSSES.items()}

    def preprocess(self, images: Sequence[Tensor]) -> RoiInputs:
        """Resize and normalise (3, H, W) uint8 RGB images, and join them into one batch."""
        resized = [self.resized(image, self._input_hw(*image.shape[-2:])) for image in images]
        return _joined(resized, self.mask_mode != "none")

    def _input_hw(self, height: int, width: int) -> tuple[int, int]:
        side = self.image_size
        if not self.keep_aspect:
            return side, side
        longest = side * 1333 // 800  # the paper's limit of 1333 for a short side of 800 pixels
        scale = min(side / min(height, width), longest / max(height, width))
        return max(int(height * scale), 1), max(int(width * scale), 1)

    def postprocess(
        self, outputs: list[RoiDetections], sizes: Sequence[tuple[int, int]], thresholds: Thresholds
    ) -> list[Detections]:
        """Scale boxes to each image, and set the frames of the masks in it."""
        return [
            self._scaled(found, image_hw, thresholds)
            for found, image_hw in zip(outputs, sizes, strict=True)
        ]

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of torchvision's Mask R-CNN."""
        return from_torchvision(state)

    def _scaled(
        self, found: RoiDetections, image_hw: tuple[int, int], thresholds: Thresholds
    ) -> Detections:
        admitted = thresholds.admit(found.scores, found.labels)
        good = admitted.nonzero().squeeze(1)[: thresholds.top_k]  # sync: how many there are
        boxes, scores = found.boxes[good], found.scores[good]
        height, width = tensor_like(boxes, image_hw) / tensor_like(boxes, found.input_hw)
        boxes = boxes * torch.stack((width, height, width, height))
        # As torchvision pastes them: an empty cell around each mask, which makes it larger than its
        # box, and a frame of whole pixels.
        soft_masks, scale = expand_masks(found.masks[good], 1)
        frames = expand_boxes(boxes, scale).trunc()
        frames[:, 2:] += 1
        return Detections(
            boxes=boxes,
            scores=scores,
            labels=found.labels[good],
            soft_masks=soft_masks.squeeze(1),
            mask_frames=frames,
            box_scores=scores.clone(),
            image_hw=image_hw,
            class_names=self.class_names,
        )


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of torchvision's Mask R-CNN, and select our classes from COCO's 91.

    The weights that torchvision publishes name layers as in 2019, number classes by COCO's ids with
    gaps, and use batch norm without an epsilon; ours has one, which the scale compensates.
    """
    renamed = {_our_name(name): tensor for name, tensor in state.items()}
    bias = renamed.get("network.roi_heads.box_predictor.cls_score.bias", torch.empty(0))
    published = bias.shape == (_COCO_NUMBERS,)
    # Batch norm that counts its batches was trained here, so with an epsilon.
    without_epsilon = published and not any("num_batches_tracked" in name for name in renamed)
    for name, tensor in list(renamed.items()):
        if name.endswith(".running_var"):
            norm = name.removesuffix("running_var")
            renamed.setdefault(norm + "num_batches_tracked", torch.tensor(0))
            scale = renamed.get(norm + "weight", torch.empty(0))
            if without_epsilon and scale.shape == tensor.shape:
                variance = tensor.clamp(min=_TINY)
                renamed[norm + "weight"] = scale * ((variance + _EPSILON) / variance).sqrt()
        elif published and re.search(r"roi_heads\..*(cls_score|bbox_pred|mask_fcn_logits)", name):
            renamed[name] = _selected(tensor)
    return renamed


def _selected(tensor: Tensor) -> Tensor:
    """Select the rows of background and our classes, if there are rows for each COCO id."""
    rows, left = divmod(tensor.shape[0] if tensor.dim() else 0, _COCO_NUMBERS)
    if left or not rows:
        return tensor
    numbers = torch.tensor((0, *COCO_CLASSES.category_ids))
    return tensor.reshape(_COCO_NUMBERS, rows, *tensor.shape[1:])[numbers].flatten(0, 1)


def _our_name(name: str) -> str:
    name = re.sub(r"(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2", name)
    name = re.sub(r"(_blocks\.\d)\.(weight|bias)$", r"\1.0.\2", name)
    name = re.sub(r"mask_fcn(\d)\.", lambda match: f"{int(match[1]) - 1}.0.", name)
    return "network." + name.replace("backbone.body.", "backbone.").replace("backbone.fpn.", "fpn.")


def _pyramid(name: str, channels: int) -> Any:
    """Return torchvision's ResNet with a feature pyramid."""
    resnet = getattr(torchvision.models, name)(weights=None)
    last = resnet.fc.in_features
    return BackboneWithFPN(
        resnet,
        {f"layer{i}": str(i - 1) for i in range(1, 5)},
        [last // 8, last // 4, last // 2, last],
        channels,
    )


def _joined(images: Sequence[Tensor], with_masks: bool = True) -> RoiInputs:
    """Join (1, 3, h, w) images of different sizes, zero-padded to a multiple of the stride."""
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = (STRIDE * -(-max(sides) // STRIDE) for sides in zip(*sizes, strict=True))
    padded = [F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])) for x in images]
    return RoiInputs(torch.cat(padded), sizes, with_masks)


def _roi_target(target: Target, side: int) -> dict[str, Tensor]:
    """Drop crowds and empty boxes, scale to the input side, and number classes from 1."""
    boxes = target.boxes.float()
    usable = (boxes[:, 2:] > boxes[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1)
    objects = target[usable & ~target.is_crowd]  # sync: how many there are
    masks = objects.masks[:, None].byte()
    scale = side / masks.shape[-1]
    if scale != 1:
        masks = F.interpolate(masks, (side, side))
    return {
        "boxes": objects.boxes.float() * scale,
        "labels": objects.labels + 1,
        "masks": masks[:, 0],
        "has_mask": objects.has_mask,
    }


def _to_float32(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """End autocast after the heads: boxes and losses are computed in float32."""
    if isinstance(output, Tensor):
        return output.float()
    return type(output)(_to_float32(_module, None, part) for part in output)
