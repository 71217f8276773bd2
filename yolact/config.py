"""Configuration: frozen dataclasses that say everything about a model and its training."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from data.classes import COCO_CLASSES
from data.options import DataOptions
from layers.detect import Nms

from .timm_networks import TIMM_PREFIX, pixel_statistics

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
"""Those of the project; any other is called "timm/<name>", a network of timm's."""

Architecture = Literal["yolact", "mask_rcnn"]


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Mask R-CNN has neither prototypes nor mask re-scoring, and its levels are P2..P6.

    Attributes:
        architecture: what kind of network.
        backbone: one of `BACKBONES`, under Mask R-CNN a ResNet, or "timm/<name>" of timm's.
        deformable_interval: n > 0: every n-th block of C3..C5 has a deformable convolution.
        image_size: S, the side in pixels that images are resized to (aspect ratio not kept).
        keep_aspect: instead, detect in images that are not distorted, for weights that are trained
            so: YOLACT pads them to squares, at the right and below; under Mask R-CNN the short side
            becomes S and the long one at most 5/3 S.
        num_classes: C, foreground only.
        class_names: one for each class, or empty for "class 0", "class 1", ...
        fpn_channels: width of the feature pyramid.
        fpn_relu_levels: the first so many of P3..P7 end in a ReLU: 3 as published, 0 in
            mmdetection's models, 5 in Yolact_minimal's.
        p6_source: the level that P6 is computed from; mmdetection's is C5.
        prototype_channels: width of ProtoNet.
        prototype_align_corners: upsample as Yolact_minimal does, corner pixel on corner pixel.
        head_channels: width of the prediction head.
        num_prototypes: K.
        anchor_scales: for each of P3..P7, the anchor sides in pixels of the S x S input.
        anchor_ratios: width / height.
        square_anchors: keep the original's slip that the one-stage weights are trained with.
        mask_rescoring: YOLACT++'s mask quality branch.
        pixel_mean: subtracted from RGB pixels in 0..255.
        pixel_std: divides them.
    """

    architecture: Architecture = "yolact"
    backbone: str = "resnet101"
    deformable_interval: int = 0
    image_size: int = 550
    keep_aspect: bool = False
    num_classes: int = 80
    class_names: tuple[str, ...] = COCO_CLASSES.names
    fpn_channels: int = 256
    fpn_relu_levels: int = 3
    p6_source: Literal["p5", "c5"] = "p5"
    prototype_channels: int = 256
    prototype_align_corners: bool = False
    head_channels: int = 256
    num_prototypes: int = 32
    anchor_scales: Scales = ((24.0,), (48.0,), (96.0,), (192.0,), (384.0,))
    anchor_ratios: tuple[float, ...] = (1.0, 0.5, 2.0)
    square_anchors: bool = True
    mask_rescoring: bool = False
    pixel_mean: tuple[float, ...] = (123.68, 116.78, 103.94)
    pixel_std: tuple[float, ...] = (58.40, 57.12, 57.38)

    def __post_init__(self) -> None:
        for name, least in (("image_size", 32), ("num_classes", 1), ("num_prototypes", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"model.{name}={getattr(self, name)}: expected at least {least}")
        _check_backbone(self.backbone)
        if not 0 <= self.fpn_relu_levels <= 5:
            raise ValueError(f"model.fpn_relu_levels={self.fpn_relu_levels}: expected 0 to 5")
        for name in ("pixel_mean", "pixel_std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"model.{name}={getattr(self, name)}: expected three numbers")
        if len(self.anchor_scales) != 5 or len({len(level) for level in self.anchor_scales}) != 1:
            raise ValueError(
                f"model.anchor_scales={self.anchor_scales}: expected five levels of equal length"
            )
        if not self.num_anchors:
            raise ValueError("model.anchor_scales and model.anchor_ratios: expected at least one")
        if min(*self.pixel_std, *self.anchor_ratios, *map(min, self.anchor_scales)) <= 0:
            raise ValueError("model.pixel_std, anchor_ratios, anchor_scales: expected more than 0")
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
        box_loss: "smooth_l1" of the encoded boxes, as published, or "giou" of the decoded ones.
        dice_weight: of the dice loss of each mask, beside its cross entropy; 0 leaves it out.
    """

    positive_iou: float = 0.5
    negative_iou: float = 0.4
    crowd_overlap: float = 0.7
    negative_ratio: int = 3
    confidence_weight: float = 1.0
    box_weight: float = 1.5
    mask_weight: float = 6.125
    box_loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    dice_weight: float = 0.0
    semantic_weight: float = 1.0
    mask_iou_weight: float = 25.0
    masks_to_train: int = 100
    discard_mask_area: float = 25.0


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation. Iterations and learning rate are for `batch_size` images per step.

    Attributes:
        gradient_clip: largest norm of the whole gradient; longer ones are scaled down to it. 0
            leaves them alone, as the original does. From scratch, where the first gradients can
            silence the prototypes' ReLU for good, 10 keeps them alive.
        optimizer: "sgd" with momentum, as published, or "adamw" without decay of norms and biases.
        backbone_rate: learning rate of the backbone, as a share of that of the rest.
        schedule: "steps" of `gamma`, as published, or "cosine" from the learning rate to 0.
        ema_decay: of the moving average of the weights that is evaluated and kept; 0 has none.
        multi_scale: the input side varies by up to this share from step to step; 0 keeps it.
    """

    batch_size: int = 8
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["steps", "cosine"] = "steps"
    learning_rate: float = 1e-3
    backbone_rate: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    gamma: float = 0.1
    max_iterations: int = 800_000
    learning_rate_steps: tuple[int, ...] = (280_000, 600_000, 700_000, 750_000)
    warmup_iterations: int = 500
    warmup_learning_rate: float = 1e-4
    gradient_clip: float = 0.0
    ema_decay: float = 0.0
    multi_scale: float = 0.0
    pretrained_backbone: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        least_values = {"batch_size": 1, "seed": 0, "warmup_iterations": 0, "gradient_clip": 0}
        least_values |= {"backbone_rate": 0}
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise ValueError(f"train.{name}={getattr(self, name)}: expected at least {least}")
        for name in ("ema_decay", "multi_scale"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"train.{name}={getattr(self, name)}: expected 0 <= value < 1")


@dataclass(frozen=True)
class AugmentConfig:
    """Switches of the original's augmentations, and of two newer ones.

    Attributes:
        scale_jitter: smallest and largest size of the image on the canvas, as (0.5, 2.0), in place
            of `expand` and `crop` (Ghiasi et al. 2021, large-scale jitter); empty has none.
        copy_paste: share of the images that get objects of another one (the same paper).
    """

    photometric: bool = True
    expand: bool = True
    crop: bool = True
    mirror: bool = True
    flip: bool = False
    rotate: bool = False
    scale_jitter: tuple[float, ...] = ()
    copy_paste: float = 0.0

    def __post_init__(self) -> None:
        scales = self.scale_jitter
        if scales and not (len(scales) == 2 and 0 < scales[0] <= scales[1]):
            raise ValueError(f"augment.scale_jitter={scales}: expected two sizes, as in 0.5,2")
        if not 0 <= self.copy_paste <= 1:
            raise ValueError(f"augment.copy_paste={self.copy_paste}: expected a share, 0 to 1")


@dataclass(frozen=True)
class DetectConfig:
    """Non-maximum suppression, see `layers.detect.detect`.

    Mask R-CNN suppresses greedily, class by class, and without a `top_k`.
    """

    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    top_k: int = 200
    max_detections: int = 100
    nms: Nms = "fast"

    def __post_init__(self) -> None:
        for name in ("top_k", "max_detections"):
            if getattr(self, name) < 1:
                raise ValueError(f"detect.{name}={getattr(self, name)}: expected at least 1")


@dataclass(frozen=True)
class Config:
    """A named preset: a model, how it is trained, and on what.

    Attributes:
        name: the preset's name, which also names checkpoints and logs.
        dataset: a catalogued name, a folder, a JSON file, or "shapes".
        data: how that is taken where there is a choice.
        score_threshold: from which on a detection is shown, in Python and in pictures, unless the
            user says otherwise; training measures it (best F1 on the validation images). An AP
            counts lower scores, too.
    """

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)
    dataset: str = "coco2017"
    data: DataOptions = field(default_factory=DataOptions)
    score_threshold: float = 0.15  # what the authors suggest for pictures

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold={self.score_threshold}: expected 0 to 1")

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

        A backbone of timm's brings the mean and deviation of the pixels that it was trained with,
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
                raise ValueError(f"{assignment!r}: expected path=value, as in train.batch_size=4")
            config = _assign(config, path.strip().split("."), text.strip(), path.strip())
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and strings."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Rebuild a configuration from `to_dict`.

        Raises:
            ValueError: a field is unknown, missing, or of the wrong type.
        """
        built: Config = _build(cls, values, "config")
        return built


def _check_backbone(name: str) -> None:
    if name not in BACKBONES and not name.startswith(TIMM_PREFIX):
        choices = ", ".join(BACKBONES)
        raise ValueError(f"model.backbone={name}: expected one of {choices}, or timm/<name>")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _assign(part: Any, path: list[str], text: str, whole: str) -> Any:
    hints = get_type_hints(type(part))
    name = path[0]
    if name not in hints or is_dataclass(hints[name]) != (len(path) > 1):
        raise KeyError(f"{whole!r} is no setting{_nearest(part, path, whole)}")
    if len(path) > 1:
        return replace(part, **{name: _assign(getattr(part, name), path[1:], text, whole)})
    values = {name: _coerce(_literal(text, hints[name]), hints[name], whole)}
    if name == "class_names":
        values["num_classes"] = len(values[name]) or part.num_classes
    elif name == "num_classes" and values[name] != len(part.class_names):
        values["class_names"] = ()
    elif name == "backbone" and values[name].startswith(TIMM_PREFIX):
        values["pixel_mean"], values["pixel_std"] = pixel_statistics(values[name])
    return replace(part, **values)


def _nearest(part: Any, path: list[str], whole: str) -> str:
    prefix = whole.removesuffix(".".join(path))
    names = [f.name for f in fields(part)]
    close = difflib.get_close_matches(path[0], names, 1)
    if close and close[0] != path[0]:
        return f"; did you mean {prefix + '.'.join([close[0], *path[1:]])!r}?"
    return f"; there are {', '.join(prefix + name for name in names)}"


def _literal(text: str, hint: Any) -> Any:
    """Read a command-line value: a Python literal, or words, split at commas for tuples."""
    many = get_origin(hint) is tuple
    words = (get_args(hint)[0] if many else hint) is str
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    if words and not (many and text[:1] in ("(", "[")):
        value = text
    if many and isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return (value,) if many and not isinstance(value, (tuple, list)) else value


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Check a value against a field's type, turning lists to tuples and ints to floats."""
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise ValueError(f"{where}={value!r}: expected one of {', '.join(get_args(hint))}")
    if get_origin(hint) is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_coerce(item, get_args(hint)[0], where) for item in value)
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
    raise ValueError(f"{where}={value!r}: expected {expected}")


def _build(cls: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected settings by name, got {type(values).__name__}")
    hints = get_type_hints(cls)
    unknown = set(values) - set(hints)
    if unknown:
        raise ValueError(f"{where}: unknown settings {', '.join(sorted(map(str, unknown)))}")
    built = {}
    for name, value in values.items():
        hint, path = hints[name], f"{where}.{name}"
        nested = isinstance(hint, type) and is_dataclass(hint)
        built[name] = _build(hint, value, path) if nested else _coerce(value, hint, path)
    try:
        return cls(**built)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None
