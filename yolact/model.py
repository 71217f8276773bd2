"""YOLACT: prototypes on one side, coefficients on the other (Bolya et al. 2019, fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers.anchors import AnchorGenerator
from layers.blocks import set_batch_norm_frozen
from layers.detect import detect
from layers.masks import assemble_masks, box_windows
from layers.structures import Candidates, Detections, Predictions, Target

from .config import DetectConfig
from .criterion import Criterion
from .fpn import FeaturePyramid
from .head import PredictionHead
from .mask_rescorer import MaskRescorer
from .protonet import ProtoNet

MaskMode = Literal["cropped", "smooth", "whole", "none"]
"""What bounds the masks.

"cropped": their boxes, on the prototype grid, with a margin of a cell (as trained); "smooth": their
boxes, in the image and to the pixel, after upsampling, for outlines without the grid's steps;
"whole": nothing; "none": there are no masks, only boxes.
"""


class Network(nn.Module):
    """The pure tensor function from normalised images to raw predictions.

    Args:
        backbone: (B, 3, S, S) -> C3, C4, C5.
        fpn: C3..C5 -> P3..P7.
        protonet: P3 -> prototypes.
        head: P3..P7 -> class logits, box deltas, coefficients.
        anchors: P3..P7 -> anchors.
        semantic: P3 -> (B, C, h, w) class maps, a branch that only training needs (sec. 4.1).
    """

    def __init__(
        self,
        backbone: nn.Module,
        fpn: FeaturePyramid,
        protonet: ProtoNet,
        head: PredictionHead,
        anchors: AnchorGenerator,
        semantic: nn.Conv2d,
    ) -> None:
        """Join the parts."""
        super().__init__()
        self.backbone, self.fpn, self.protonet, self.head = backbone, fpn, protonet, head
        self.anchors, self.semantic = anchors, semantic

    def forward(self, x: Tensor) -> Predictions:
        """Predict for a (B, 3, S, S) normalised RGB batch."""
        c3_to_c5 = self.backbone(x)
        levels = self.fpn(c3_to_c5)
        prototypes = self.protonet(levels[0])
        class_logits, box_deltas, coefficients = self.head(levels)
        anchors = self.anchors(levels)
        semantic_logits = self.semantic(levels[0]) if self.training else None
        return Predictions(
            class_logits, box_deltas, coefficients, prototypes, anchors, semantic_logits
        )


class Yolact(nn.Module):
    """Images in; losses out in training, detections out in evaluation.

    Args:
        network: see `Network`.
        mask_rescorer: YOLACT++'s mask quality branch, or None.
        criterion: predictions, targets -> losses.
        image_size: S, the side that images are resized to.
        pixel_mean: RGB, in 0..255.
        pixel_std: RGB.
        class_names: one for each foreground class.
        detection: suppression settings.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        network: Network,
        mask_rescorer: MaskRescorer | None,
        criterion: Criterion,
        image_size: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        class_names: tuple[str, ...],
        detection: DetectConfig,
    ) -> None:
        """Join the parts."""
        super().__init__()
        self.network, self.mask_rescorer = network, mask_rescorer
        self.criterion = criterion
        self.image_size, self.class_names, self.detection = image_size, class_names, detection
        self.mask_mode: MaskMode = "cropped"
        self.batch_norm_frozen = False
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """Train on images and targets, or detect in images.

        Args:
            images: B tensors (3, H, W) uint8 RGB of any size.
            targets: the ground truth at S x S; needed in training mode only.

        Returns:
            The weighted losses by name in training mode, else the detections of each image.

        Raises:
            ValueError: training mode without targets.
        """
        predictions = self.network(self.preprocess(images))
        if self.training:
            if targets is None:
                raise ValueError("a model in training mode needs targets; call model.eval() first")
            return self.criterion(predictions, targets)
        found = detect(predictions, **vars(self.detection))
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return self.postprocess(found, predictions.prototypes, sizes)

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """Resize (3, H, W) uint8 RGB images to S x S bilinearly and normalise: (B, 3, S, S)."""
        side = (self.image_size, self.image_size)
        batch = []
        for image in images:
            x = image.to(self.pixel_mean.device, non_blocking=True)[None].float()
            if x.shape[-2:] != side:
                x = F.interpolate(x, side, mode="bilinear", align_corners=False)
            batch.append((x - self.pixel_mean) / self.pixel_std)
        return torch.cat(batch)

    def postprocess(
        self,
        found: Sequence[Candidates],
        prototypes: Tensor,
        sizes: Sequence[tuple[int, int]],
        score_threshold: float = 0.0,
        top_k: int | None = None,
    ) -> list[Detections]:
        """Assemble masks, re-score them where the model can, and scale boxes to each image.

        Args:
            found: the candidates of each image.
            prototypes: (B, K, h, w).
            sizes: height and width of each image in pixels.
            score_threshold: detections scoring lower, before or after re-scoring, are dropped.
            top_k: at most this many are kept, best first.
        """
        return [
            self._postprocess_one(candidates, prototypes[i], sizes[i], score_threshold, top_k)
            for i, candidates in enumerate(found)
        ]

    def _postprocess_one(
        self,
        candidates: Candidates,
        prototypes: Tensor,
        image_hw: tuple[int, int],
        score_threshold: float,
        top_k: int | None,
    ) -> Detections:
        candidates = candidates[candidates.scores >= score_threshold]
        if self.mask_rescorer is None:
            candidates = candidates[:top_k]
        soft_masks = self._soft_masks(prototypes, candidates)
        scores = candidates.scores
        if self.mask_rescorer is not None and self.mask_mode != "none":
            seen = soft_masks
            if self.mask_mode == "smooth":  # trained on masks that are cropped on the grid
                seen = soft_masks * box_windows(candidates.boxes, soft_masks.shape[-2:])
            scores = scores * self.mask_rescorer(seen, candidates.labels)
        height, width = image_hw
        corners = candidates.boxes.new_tensor((width, height, width, height))
        detections = Detections(
            boxes=(_ordered(candidates.boxes).clamp(0, 1) * corners),
            scores=scores,
            labels=candidates.labels,
            soft_masks=soft_masks,
            mask_frames=corners.new_tensor((0, 0, width, height)).expand(len(scores), 4),
            box_scores=candidates.scores,
            image_hw=image_hw,
            class_names=self.class_names,
            crop_to_boxes=self.mask_mode == "smooth",
        )
        if self.mask_rescorer is not None:
            best_first = scores.argsort(descending=True)[:top_k]
            detections = detections[best_first[scores[best_first] >= score_threshold]]
        return detections

    def _soft_masks(self, prototypes: Tensor, candidates: Candidates) -> Tensor:
        if self.mask_mode == "none":
            return prototypes.new_zeros((len(candidates), 1, 1))
        # A pixel inside a box looks up to one and a half cells beyond it: with a margin of two,
        # "smooth" masks are there as if uncropped.
        padding = 2 if self.mask_mode == "smooth" else 1
        coefficients, boxes = candidates.coefficients, candidates.boxes
        return assemble_masks(prototypes, coefficients, boxes, self.mask_mode != "whole", padding)

    def freeze_batch_norm(self, frozen: bool = True) -> Yolact:
        """Hold batch statistics and parameters fixed, in training too (for small batches)."""
        self.batch_norm_frozen = frozen
        return self.train(self.training)

    def train(self, mode: bool = True) -> Yolact:
        """Switch to training or evaluation; frozen batch norm stays frozen."""
        super().train(mode)
        set_batch_norm_frozen(self, self.batch_norm_frozen)
        return self


def _ordered(boxes: Tensor) -> Tensor:
    """Swap the corners of inverted (N, 4) boxes."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat((torch.minimum(low, high), torch.maximum(low, high)), dim=1)
