"""YOLACT: masks as linear combinations of prototypes (Bolya et al. 2019, fig. 2)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from layers.anchors import AnchorGenerator
from layers.detect import detect
from layers.masks import assemble_masks, box_windows, mask_confidence, refit, widened
from layers.structures import Candidates, Predictions, Target, tensor_like
from yolact.config import DetectConfig
from yolact.formats.official import from_official
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds

from .criterion import Criterion
from .depthwise import DepthwiseGradients
from .fpn import FeaturePyramid
from .head import PredictionHead
from .mask_rescorer import MaskRescorer
from .protonet import ProtoNet
from .segmenter import Segmenter


class Network(nn.Module):
    """Compute raw predictions from normalised images, as a pure tensor function.

    Args:
        backbone: (B, 3, S, S) -> C3, C4, C5.
        fpn: C3..C5 -> P3..P7.
        protonet: P3 -> prototypes.
        head: P3..P7 -> class logits, box deltas, coefficients.
        anchors: P3..P7 -> anchors.
        semantic: P3 -> (B, C, h, w) class maps, a branch that only training uses (sec. 5).
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


class Yolact(Segmenter[Tensor, Predictions]):
    """YOLACT and YOLACT++.

    Args:
        network: see `Network`.
        mask_rescorer: YOLACT++'s mask re-scoring branch, or None.
        criterion: predictions, targets -> losses.
        image_size: S, the side that images are resized to.
        keep_aspect: see `ModelConfig`.
        pixel_mean: RGB, in 0..255.
        pixel_std: RGB.
        class_names: one for each foreground class.
        detection: suppression settings.
        score_threshold: minimum score of shown detections, see `Segmenter`.
    """

    fixed_shapes = True
    first_stride = 8  # of P3
    loss_letters: ClassVar = {
        "box": "B",
        "confidence": "C",
        "mask": "M",
        "semantic": "S",
        "mask_iou": "I",
    }
    network: Network

    def __init__(
        self,
        network: Network,
        mask_rescorer: MaskRescorer | None,
        criterion: Criterion,
        image_size: int,
        keep_aspect: bool,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        class_names: tuple[str, ...],
        detection: DetectConfig,
        score_threshold: float,
    ) -> None:
        super().__init__(
            network, image_size, pixel_mean, pixel_std, class_names, detection, score_threshold
        )
        self.mask_rescorer, self.criterion = mask_rescorer, criterion
        self.keep_aspect = keep_aspect

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the weighted losses by name; see `Criterion`."""
        inputs = self.preprocess(images)
        with DepthwiseGradients() if inputs.device.type == "cpu" else nullcontext():
            predictions = self.network(inputs)
        return self.criterion(predictions, targets)

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """Resize (3, H, W) uint8 RGB images to S x S bilinearly and normalise: (B, 3, S, S)."""
        return self.squeezed([self._squared(image) for image in images])

    def postprocess(
        self, outputs: Predictions, sizes: Sequence[tuple[int, int]], thresholds: Thresholds
    ) -> list[Detections]:
        """Find the objects of each image, and make their masks."""
        found = self.find(outputs, thresholds)
        return [
            self.assemble(candidates, outputs.prototypes[i], sizes[i], thresholds)
            for i, candidates in enumerate(found)
        ]

    def find(self, outputs: Predictions, thresholds: Thresholds) -> list[Candidates]:
        """Decode, filter and suppress with the model's settings; make no masks yet.

        Args:
            outputs: network outputs for B images.
            thresholds: detections must reach the score, before re-scoring, and be of a class that
                counts.
        """
        # Boxes suppress only worse ones, so scores below the caller's threshold can be skipped.
        # A margin for rounding is needed, as `detect` drops scores equal to the threshold.
        lowest = max(self.detection.score_threshold, thresholds.score * (1 - 1e-6))
        settings = {**vars(self.detection), "score_threshold": lowest}
        del settings["refit"]  # applied later, in `assemble`
        return detect(outputs, **settings, admit=thresholds.admit)

    def assemble(
        self,
        candidates: Candidates,
        prototypes: Tensor,
        image_hw: tuple[int, int],
        thresholds: Thresholds,
    ) -> Detections:
        """Make the masks of one image, re-score them if the model can, scale boxes to pixels.

        Args:
            candidates: N candidates from `find`.
            prototypes: (K, h, w).
            image_hw: height and width in pixels.
            thresholds: the best `top_k` are kept, even if re-scoring puts them below `score`:
                `Thresholds.select` drops those later, where it need not wait for a GPU.
        """
        if not self._scores_masks:
            candidates = candidates[: thresholds.top_k]
        soft_masks, boxes = self._soft_masks(prototypes, candidates)  # (N, h, w), (N, 4)
        height, width = image_hw
        corners = tensor_like(candidates.boxes, (width, height, width, height))
        # Input region in pixels: the image, or the square that it was padded to.
        seen = corners.amax().expand(4) if self.keep_aspect else corners
        detections = Detections(
            boxes=(_ordered(boxes) * seen).clamp(min=0).minimum(corners),  # -> pixels
            scores=self._final_scores(candidates, soft_masks),
            labels=candidates.labels,
            soft_masks=soft_masks,
            mask_frames=torch.cat((seen.new_zeros(2), seen[2:])).repeat(len(candidates), 1),
            box_scores=candidates.scores.clone(),
            image_hw=image_hw,
            class_names=self.class_names,
            crop_to_boxes=self.mask_mode == "smooth",
            coefficients=candidates.coefficients,
        )
        if self._scores_masks:
            best_first = detections.scores.argsort(descending=True, stable=True)[: thresholds.top_k]
            detections = detections[best_first]
        return detections

    def dry_run(self, image: Tensor) -> None:
        """Run the network on the meta device: shapes only, no values; weights are not needed."""
        side = self.image_size
        copy.deepcopy(self.network).to("meta")(torch.zeros((1, 3, side, side), device="meta"))

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official file of 2019."""
        return from_official(state, self.state_dict())

    def _squared(self, image: Tensor) -> Tensor:
        """Pad a (3, H, W) image at the right and below with the mean colour, if it is not square.

        Without `keep_aspect` images stay as they are.
        """
        height, width = image.shape[-2:]
        if not self.keep_aspect or height == width:
            return image
        side = max(height, width)
        square = self.pixel_mean.expand(3, side, side).clone()
        square[:, :height, :width] = image
        return square

    def _soft_masks(self, prototypes: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """Return the (N, h, w) soft masks, and their (N, 4) boxes."""
        if self.mask_mode == "none":
            return prototypes.new_zeros((len(candidates), 1, 1)), candidates.boxes
        # Upsampling a pixel inside a box reads cells up to 1.5 beyond it: with a margin of two,
        # "smooth" masks are the same there as if uncropped.
        padding = 2 if self.mask_mode == "smooth" else 1
        coefficients, boxes = candidates.coefficients, candidates.boxes
        if self.detection.refit and self.mask_mode == "cropped":
            return refit(assemble_masks(prototypes, coefficients, widened(boxes), padding=0), boxes)
        crop = self.mask_mode != "whole"
        return assemble_masks(prototypes, coefficients, boxes, crop, padding), boxes

    @property
    def _scores_masks(self) -> bool:
        """Whether scores depend on masks."""
        return self.mask_rescorer is not None or self.detection.refit

    def _final_scores(self, candidates: Candidates, soft_masks: Tensor) -> Tensor:
        """Multiply class probabilities by the quality of the masks, if the model estimates it.

        This is the IoU that YOLACT++ predicts, and with `detect.refit` the mask's confidence.
        """
        scores = candidates.scores
        if self.mask_mode == "none" or not self._scores_masks:
            return scores
        if self.mask_mode == "smooth":  # the re-scorer is trained on masks cropped on the grid
            soft_masks = soft_masks * box_windows(candidates.boxes, soft_masks.shape[-2:])
        if self.mask_rescorer is not None:
            quality: Tensor = self.mask_rescorer(soft_masks, candidates.labels)
            scores = (scores * quality).clamp(max=1)
        return scores * mask_confidence(soft_masks) if self.detection.refit else scores


def _ordered(boxes: Tensor) -> Tensor:
    """Swap the corners of inverted (N, 4) boxes."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat((torch.minimum(low, high), torch.maximum(low, high)), dim=1)
