"""Configuration: frozen dataclasses with all settings of a model and its training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from data.classes import COCO_CLASSES
from data.options import DataOptions, Switches
from layers.detect import Nms

from .settings import assign, build, check_limits, plain, shown, within
from .timm_networks import TIMM_PREFIX

Scales = tuple[tuple[float, ...], ...]
BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "darknet53",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
)
"""The project's own backbones; any other is a network of timm's, called "timm/<name>"."""

Architecture = Literal["yolact", "mask_rcnn"]

_UNLIMITED = 1e12  # finite all the same
_MOST_CLASS_WEIGHTS = 2**26  # of each of the nine places of a 3x3 convolution
_STRIDE = 32  # of C5; sides that it divides lose no pixels


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Mask R-CNN has neither prototypes nor mask re-scoring, and its levels are P2..P6.

    Attributes:
        architecture: "yolact" or "mask_rcnn".
        backbone: one of `BACKBONES`, for Mask R-CNN a ResNet, or "timm/<name>" from timm.
        deformable_interval: n > 0: every n-th block of C3..C5 has a deformable convolution.
        image_size: S, the side in pixels that images are resized to (aspect ratio not kept).
        keep_aspect: instead, keep the aspect ratio of images to detect in, for weights trained that
            way: YOLACT pads them to squares, at the right and below; with Mask R-CNN the short side
            becomes S and the long one at most 5/3 S.
        num_classes: C, foreground only.
        class_names: one for each class, or empty for "class 0", "class 1", ...
        fpn_channels: channels of the feature pyramid.
        fpn_relu_levels: number of levels, from P3 on, that end in a ReLU: 3 as published, 0 in
            mmdetection's models, 5 in Yolact_minimal's.
        p6_source: level that P6 is computed from; mmdetection uses C5.
        prototype_channels: channels of ProtoNet.
        prototype_align_corners: upsample with aligned corner pixels, as Yolact_minimal does.
        head_channels: channels of the prediction head.
        num_prototypes: K.
        anchor_scales: for each of P3..P7, the anchor sides in pixels of the S x S input.
        anchor_ratios: width / height.
        square_anchors: keep the original's bug that the one-stage weights are trained with.
        mask_rescoring: add YOLACT++'s mask re-scoring branch.
        pixel_mean: mean that is subtracted from RGB pixels in 0..255.
        pixel_std: standard deviation that RGB pixels are divided by.
    """

    architecture: Architecture = "yolact"
    backbone: str = "resnet101"
    deformable_interval: int = within(0, 100, 0)
    image_size: int = within(32, 8192, 550)
    keep_aspect: bool = False
    num_classes: int = within(1, 10_000, 80)
    class_names: tuple[str, ...] = COCO_CLASSES.names
    fpn_channels: int = within(1, 2048, 256)
    fpn_relu_levels: int = within(0, 5, 3)
    p6_source: Literal["p5", "c5"] = "p5"
    prototype_channels: int = within(1, 2048, 256)
    prototype_align_corners: bool = False
    head_channels: int = within(1, 2048, 256)
    num_prototypes: int = within(1, 1024, 32)
    anchor_scales: Scales = within(0.01, 100_000, ((24.0,), (48.0,), (96.0,), (192.0,), (384.0,)))
    anchor_ratios: tuple[float, ...] = within(0.001, 1000, (1.0, 0.5, 2.0))
    square_anchors: bool = True
    mask_rescoring: bool = False
    pixel_mean: tuple[float, ...] = within(-1000, 1000, (123.68, 116.78, 103.94))
    pixel_std: tuple[float, ...] = within(0.001, 100_000, (58.40, 57.12, 57.38))

    def __post_init__(self) -> None:
        check_limits(self, "model.")
        _check_backbone(self.backbone)
        for name in ("pixel_mean", "pixel_std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(
                    f"model.{name}={shown(getattr(self, name))}: expected three numbers"
                )
        if len(self.anchor_scales) != 5 or len({len(level) for level in self.anchor_scales}) != 1:
            raise ValueError(
                f"model.anchor_scales={shown(self.anchor_scales)}: "
                "expected five levels of equal length"
            )
        if not self.num_anchors:
            raise ValueError("model.anchor_scales and model.anchor_ratios: expected at least one")
        if self.num_anchors * (self.num_classes + 1) * self.head_channels > _MOST_CLASS_WEIGHTS:
            raise ValueError(
                f"model.num_classes={self.num_classes}: too many for so many anchors and channels"
            )
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"model.class_names has {len(self.class_names)} names "
                f"for model.num_classes={self.num_classes}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each class."""
        return self.class_names or tuple(f"class {i}" for i in range(self.num_classes))

    @property
    def num_anchors(self) -> int:
        """Anchors per cell."""
        return len(self.anchor_scales[0]) * len(self.anchor_ratios)


@dataclass(frozen=True)
class LossConfig:
    """Matching, and the weight of each loss (YOLACT sec. 3 and 5, YOLACT++, mask re-scoring).

    Attributes:
        box_loss: "smooth_l1" on encoded boxes, as published, or "giou" on decoded boxes.
        dice_weight: weight of a dice loss added to the mask's cross entropy; 0 for none.
    """

    positive_iou: float = within(0, 2, 0.5)  # no overlap is above 1
    negative_iou: float = within(0, 2, 0.4)
    crowd_overlap: float = within(0, 2, 0.7)
    negative_ratio: int = within(0, 1_000_000, 3)
    confidence_weight: float = within(0, _UNLIMITED, 1.0)
    box_weight: float = within(0, _UNLIMITED, 1.5)
    mask_weight: float = within(0, _UNLIMITED, 6.125)
    box_loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    dice_weight: float = within(0, _UNLIMITED, 0.0)
    semantic_weight: float = within(0, _UNLIMITED, 1.0)
    mask_iou_weight: float = within(0, _UNLIMITED, 25.0)
    masks_to_train: int = within(1, 1_000_000, 100)
    discard_mask_area: float = within(-1, _UNLIMITED, 25.0)

    def __post_init__(self) -> None:
        check_limits(self, "loss.")


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation. Iterations and learning rate are for `batch_size` images per step.

    Attributes:
        gradient_clip: maximum norm of the whole gradient; larger ones are scaled down to it. 0
            clips nothing, as in the original. In training from scratch, the first gradients can
            make the prototypes' ReLU zero for good; 10 prevents this.
        optimizer: "sgd" with momentum, as published, or "adamw" without decay of norms and biases.
        backbone_rate: learning rate of the backbone, as a share of that of the rest; 0 freezes it.
        schedule: "steps" of factor `gamma`, as published, or "cosine" from the learning rate to 0.
        ema_decay: decay of the moving average of weights that is evaluated and saved; 0 for none.
        multi_scale: vary the input side by up to this share from step to step; 0 for a fixed side.
    """

    batch_size: int = within(1, 1_000_000, 8)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["steps", "cosine"] = "steps"
    learning_rate: float = within(0, _UNLIMITED, 1e-3)
    backbone_rate: float = within(0, 1000, 1.0)
    momentum: float = within(0, 1, 0.9)
    weight_decay: float = within(0, 1000, 5e-4)
    gamma: float = within(0, 1000, 0.1)
    max_iterations: int = within(0, 10**12, 800_000)
    learning_rate_steps: tuple[int, ...] = within(0, 10**12, (280_000, 600_000, 700_000, 750_000))
    warmup_iterations: int = within(0, 10**12, 500)
    warmup_learning_rate: float = within(0, _UNLIMITED, 1e-4)
    gradient_clip: float = within(0, _UNLIMITED, 0.0)
    ema_decay: float = within(0, 0.999999999, 0.0)
    multi_scale: float = within(0, 0.99, 0.0)
    pretrained_backbone: bool = True
    seed: int = within(0, 2**63 - 1, 0)

    def __post_init__(self) -> None:
        check_limits(self, "train.")
        steps = self.learning_rate_steps
        if list(steps) != sorted(steps):
            raise ValueError(f"train.learning_rate_steps={shown(steps)}: expected them in order")


@dataclass(frozen=True)
class AugmentConfig(Switches):
    """Switches of the original's augmentations, and of two newer ones.

    Attributes:
        copy_paste: how many other images, on average, each gets objects of (the same paper).
        paste_beside: the share of these objects that are set beside one of the image's own, of
            about its height, where they touch it or hide a part of it; the others stay anywhere.
    """

    scale_jitter: tuple[float, ...] = within(0.01, 100, ())
    copy_paste: float = within(0, 8, 0.0)
    paste_beside: float = within(0, 1, 0.0)

    def __post_init__(self) -> None:
        check_limits(self, "augment.")
        scales = self.scale_jitter
        if scales and not (len(scales) == 2 and scales[0] <= scales[1]):
            raise ValueError(
                f"augment.scale_jitter={shown(scales)}: expected two sizes, as in 0.5,2"
            )


@dataclass(frozen=True)
class DetectConfig:
    """Non-maximum suppression, see `layers.detect.detect`.

    Mask R-CNN suppresses greedily, class by class, and without a `top_k`.

    Attributes:
        refit: fit boxes, masks and scores to each other, see `layers.masks.refit` and
            `mask_confidence`; not for Mask R-CNN. Off for the released weights.
    """

    score_threshold: float = within(0, 1, 0.05)
    iou_threshold: float = within(0, 1, 0.5)
    top_k: int = within(1, 1_000_000, 200)
    max_detections: int = within(1, 1_000_000, 100)
    nms: Nms = "fast"
    refit: bool = False

    def __post_init__(self) -> None:
        check_limits(self, "detect.")


@dataclass(frozen=True)
class Config:
    """A named preset: a model, its training and its dataset.

    Attributes:
        name: the preset's name, which also names checkpoints and logs.
        dataset: a catalogued name, a folder, a JSON file, or "shapes".
        data: how annotations are used where there is a choice.
        score_threshold: default minimum score of detections in Python and in pictures; training
            determines it (best F1 on the validation images). The AP counts lower scores, too.
    """

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)
    dataset: str = "coco2017"
    data: DataOptions = field(default_factory=DataOptions)
    score_threshold: float = within(0, 1, 0.15)  # what the authors suggest for pictures

    def __post_init__(self) -> None:
        check_limits(self)
        check_run_name(self.name, "name")

    @property
    def num_classes(self) -> int:
        """Foreground classes."""
        return self.model.num_classes

    def with_classes(self, names: tuple[str, ...]) -> Config:
        """Return a copy for other classes."""
        return replace(
            self, model=replace(self.model, num_classes=len(names), class_names=tuple(names))
        )

    def override(self, *assignments: str) -> Config:
        """Return a copy with fields replaced.

        A timm backbone also sets the pixel mean and standard deviation that it was trained with,
        unless these are assigned, too.

        Args:
            assignments: each "path=value", such as "train.learning_rate=5e-4",
                "model.class_names=cat,dog" or "train.learning_rate_steps=(100, 200)".

        Raises:
            KeyError: no such field; the message names the nearest one.
            ValueError: not "path=value", or a value of the wrong type.
        """
        config = self
        for assignment in sorted(assignments, key=lambda text: "model.backbone" not in text):
            path, equals, text = assignment.partition("=")
            if not equals:
                raise ValueError(
                    f"{shown(assignment)}: expected path=value, as in train.batch_size=4"
                )
            config = assign(config, path.strip().split("."), text.strip(), path.strip())
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and strings."""
        values: dict[str, Any] = plain(asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Rebuild a configuration from `to_dict`.

        Raises:
            ValueError: a field is unknown, missing, or of the wrong type.
        """
        built: Config = build(cls, values, "config")
        return built


def check_run_name(name: str, flag: str) -> None:
    """Refuse a name that is not a safe part of a path: names of presets and runs name files.

    Args:
        name: a name of unknown origin, such as a checkpoint.
        flag: the flag or setting that holds it, for the message.

    Raises:
        ValueError: the name is not safe.
    """
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(f"{flag}={name[:120]!r}: expected letters, digits, '_', '-' or '.'")


def _check_backbone(name: str) -> None:
    if name not in BACKBONES and not name.startswith(TIMM_PREFIX):
        choices = ", ".join(BACKBONES)
        raise ValueError(f"model.backbone={shown(name)}: expected one of {choices}, or timm/<name>")


def varied_input(image_size: int, share: float) -> int:
    """Return an input side that is larger (or smaller) by a share, in whole strides of C5."""
    return max(_STRIDE, round(image_size * (1 + share) / _STRIDE) * _STRIDE)


def smallest_input(image_size: int, multi_scale: float) -> int:
    """Return the smallest input side in training with `TrainConfig.multi_scale`."""
    return varied_input(image_size, -multi_scale) if multi_scale else image_size
