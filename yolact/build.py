"""The only place that turns a configuration into modules."""

from __future__ import annotations

from torch import nn

from layers.anchors import AnchorGenerator
from layers.blocks import init_convolutions
from yolact.models.backbones import build_backbone
from yolact.models.criterion import Criterion
from yolact.models.fpn import FeaturePyramid
from yolact.models.head import PredictionHead
from yolact.models.mask_rcnn import MaskRcnn, TwoStageNetwork
from yolact.models.mask_rescorer import MaskRescorer
from yolact.models.protonet import ProtoNet
from yolact.models.segmenter import AnySegmenter
from yolact.models.yolact import Network, Yolact

from .config import Config, ModelConfig, smallest_input


def model_class(model: ModelConfig) -> type[AnySegmenter]:
    """Return the class of a configuration's model."""
    return Yolact if model.architecture == "yolact" else MaskRcnn


def build_model(config: Config) -> AnySegmenter:
    """Build a model with random weights.

    Args:
        config: a preset, see `get_config`.

    Returns:
        The model, a `Yolact` or a `MaskRcnn`, in training mode on the CPU.

    Raises:
        ValueError: parts that do not fit together, such as mask re-scoring on a small input.
    """
    build = _build_yolact if model_class(config.model) is Yolact else _build_mask_rcnn
    model: AnySegmenter = build(config)
    model.config = config
    return model


def _build_yolact(config: Config) -> Yolact:
    model = config.model
    rescorer = MaskRescorer(model.num_classes) if model.mask_rescoring else None
    smallest = smallest_input(model.image_size, config.train.multi_scale)
    if rescorer is not None and 2 * -(-smallest // 8) < rescorer.minimum_side:
        least = 8 * (rescorer.minimum_side // 2) + 1
        varied = f" with train.multi_scale={config.train.multi_scale}"
        raise ValueError(
            f"model.image_size={model.image_size}{varied * (smallest < model.image_size)}: mask "
            f"re-scoring needs at least {least} pixels"
        )
    return Yolact(
        network=_build_network(model),
        mask_rescorer=rescorer,
        criterion=Criterion(config.loss, rescorer),
        image_size=model.image_size,
        keep_aspect=model.keep_aspect,
        pixel_mean=model.pixel_mean,
        pixel_std=model.pixel_std,
        class_names=model.names,
        detection=config.detect,
        score_threshold=config.score_threshold,
    )


def _build_network(model: ModelConfig) -> Network:
    backbone = build_backbone(model.backbone, model.deformable_interval)
    semantic = nn.Conv2d(model.fpn_channels, model.num_classes, 1)
    init_convolutions(semantic)
    return Network(
        backbone=backbone,
        fpn=FeaturePyramid(
            backbone.channels, model.fpn_channels, model.fpn_relu_levels, model.p6_source
        ),
        protonet=ProtoNet(
            model.fpn_channels,
            model.prototype_channels,
            model.num_prototypes,
            model.prototype_align_corners,
        ),
        head=PredictionHead(
            model.fpn_channels,
            model.head_channels,
            model.num_anchors,
            model.num_classes,
            model.num_prototypes,
        ),
        anchors=AnchorGenerator(
            model.anchor_scales, model.anchor_ratios, model.image_size, model.square_anchors
        ),
        semantic=semantic,
    )


def _build_mask_rcnn(config: Config) -> MaskRcnn:
    model, loss, nms = config.model, config.loss, config.detect.nms
    strange = {
        f"model.backbone={model.backbone}": not model.backbone.startswith("resnet"),
        f"model.deformable_interval={model.deformable_interval}": model.deformable_interval > 0,
        "model.mask_rescoring=True": model.mask_rescoring,
        f"loss.box_loss={loss.box_loss}": loss.box_loss != "smooth_l1",
        f"loss.dice_weight={loss.dice_weight}": loss.dice_weight != 0,
        f"detect.nms={nms}": nms == "cross_class",
    }
    for setting, is_set in strange.items():
        if is_set:
            raise ValueError(
                f"{setting}: Mask R-CNN stands on a plain ResNet, has losses of its own, re-scores "
                "no masks, and suppresses class by class"
            )
    return MaskRcnn(
        network=TwoStageNetwork(
            model.backbone,
            model.num_classes,
            model.fpn_channels,
            model.head_channels,
            model.anchor_scales,
            model.anchor_ratios,
            config.detect,
        ),
        image_size=model.image_size,
        keep_aspect=model.keep_aspect,
        pixel_mean=model.pixel_mean,
        pixel_std=model.pixel_std,
        class_names=model.names,
        detection=config.detect,
        score_threshold=config.score_threshold,
        loss_weights={
            "box": loss.box_weight,
            "confidence": loss.confidence_weight,
            "mask": loss.mask_weight,
            "objectness": loss.confidence_weight,
            "rpn_box": loss.box_weight,
        },
        fine_tuned=config.train.pretrained_backbone,
    )
