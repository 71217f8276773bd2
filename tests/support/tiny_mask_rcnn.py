"""A Mask R-CNN small enough to train and run within a test."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data.classes import SHAPE_CLASSES
from data.shapes.scenes import ShapeScenes
from layers.structures import Target
from yolact import Config, build_model, get_config
from yolact.models.mask_rcnn import MaskRcnn

from .plain import plain_target
from .tiny import SETTINGS

NAME = "maskrcnn_resnet50_fpn"
SMALL = (
    *(setting for setting in SETTINGS if not setting.startswith("model.prototype")),
    "model.backbone=resnet18",
    "model.anchor_scales=((8,),(16,),(24,),(32,),(48,))",
)
LOSSES = ("box", "confidence", "mask", "objectness", "rpn_box")
CPU = torch.device("cpu")


def small_config(*more: str) -> Config:
    return get_config(NAME).override(*SMALL, *more).with_classes(SHAPE_CLASSES.names)


def build(*more: str) -> MaskRcnn:
    torch.manual_seed(0)
    model = build_model(small_config("detect.score_threshold=0.0", *more))
    assert isinstance(model, MaskRcnn)
    model.network.roi_heads.fg_bg_sampler.batch_size_per_image = 64  # instead of 512: faster
    return model


def batch(side: int = 64) -> tuple[list[Tensor], list[Target]]:
    scenes = ShapeScenes(2, 128)
    pairs = [plain_target(scenes.sample(i), side) for i in range(2)]
    return [image for image, _ in pairs], [target for _, target in pairs]


def picture(height: int, width: int) -> Tensor:
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    return nn.functional.interpolate(noise, (height, width), mode="bilinear")[0].byte()
