import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from data.classes import COCO_CLASSES, PASCAL_CLASSES
from layers.structures import Predictions
from yolact import Yolact, build_model, get_config, list_configs
from yolact.config import BACKBONES, AugmentConfig, LossConfig, Scales, TrainConfig
from yolact.formats.official import from_official, official_name, to_official


class Original(NamedTuple):
    """One preset of the original, as its code has it."""

    backbone: str
    image_size: int
    scales: Scales
    square: bool
    million_parameters: float  # without the semantic branch, which only training uses
    tensors: int
    num_anchors: int
    deformable_interval: int = 0
    num_classes: int = 80
    masks_to_train: int = 100


SCALES = ((24.0,), (48.0,), (96.0,), (192.0,), (384.0,))
SCALES_400 = ((17.0,), (34.0,), (69.0,), (139.0,), (279.0,))
SCALES_700 = ((30.0,), (61.0,), (122.0,), (244.0,), (488.0,))
SCALES_PASCAL = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
SCALES_PLUS = (
    (24.0, 30.238105, 38.097625),
    (48.0, 60.476210, 76.195250),
    (96.0, 120.952420, 152.390501),
    (192.0, 241.904841, 304.781001),
    (384.0, 483.809682, 609.562003),
)
ORIGINALS = {
    "yolact_base": Original("resnet101", 550, SCALES, True, 50.14, 660, 19248),
    "yolact_im400": Original("resnet101", 400, SCALES_400, True, 50.14, 660, 10077),
    "yolact_im700": Original(
        "resnet101", 700, SCALES_700, True, 50.14, 660, 30963, masks_to_train=300
    ),
    "yolact_darknet53": Original("darknet53", 550, SCALES, True, 47.76, 348, 19248),
    "yolact_resnet50": Original("resnet50", 550, SCALES, True, 31.14, 354, 19248),
    "yolact_resnet50_pascal": Original(
        "resnet50", 550, SCALES_PASCAL, False, 30.73, 354, 19248, num_classes=20
    ),
    "yolact_plus_base": Original("resnet101", 550, SCALES_PLUS, False, 52.55, 705, 57744, 3),
    "yolact_plus_resnet50": Original("resnet50", 550, SCALES_PLUS, False, 33.75, 405, 57744, 1),
}
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "golden"
GOLDEN = sorted(Path(os.environ.get("YOLACT_GOLDEN", BESIDE)).glob("*.npz"))
originals = pytest.mark.parametrize("name", ORIGINALS)
YOLACTS = [name for name in list_configs() if get_config(name).model.architecture == "yolact"]
every = pytest.mark.parametrize("name", YOLACTS)


@pytest.fixture(scope="module")
def models() -> dict[str, Yolact]:
    """Every YOLACT, without memory for its weights."""
    with torch.device("meta"):
        return {name: build_model(get_config(name)) for name in YOLACTS}


def test_all_originals_are_there() -> None:
    assert set(ORIGINALS) <= set(list_configs())
    assert len(set(list_configs())) == len(list_configs())


@originals
def test_network_of_an_original(name: str) -> None:
    original, model = ORIGINALS[name], get_config(name).model
    plus = name.startswith("yolact_plus")
    assert model.backbone == original.backbone
    assert model.image_size == original.image_size
    assert model.num_classes == original.num_classes
    assert (
        model.class_names == (PASCAL_CLASSES if original.num_classes == 20 else COCO_CLASSES).names
    )
    assert model.deformable_interval == original.deformable_interval
    assert model.mask_rescoring == plus
    assert model.square_anchors == original.square
    assert model.anchor_ratios == (1, 0.5, 2)
    for level, expected in zip(model.anchor_scales, original.scales, strict=True):
        assert level == pytest.approx(expected, rel=1e-6)
    assert model.fpn_channels == model.prototype_channels == model.head_channels == 256
    assert model.num_prototypes == 32
    darknet = original.backbone == "darknet53"
    assert model.pixel_mean == ((0, 0, 0) if darknet else (123.68, 116.78, 103.94))
    assert model.pixel_std == ((255, 255, 255) if darknet else (58.40, 57.12, 57.38))


@originals
def test_training_of_an_original(name: str) -> None:
    config, original = get_config(name), ORIGINALS[name]
    pascal = original.num_classes == 20
    assert config.train == TrainConfig(
        batch_size=8,
        learning_rate=1e-3,
        momentum=0.9,
        weight_decay=5e-4,
        gamma=0.1,
        max_iterations=120_000 if pascal else 800_000,
        learning_rate_steps=(60_000, 100_000) if pascal else (280_000, 600_000, 700_000, 750_000),
        warmup_iterations=500,
        warmup_learning_rate=1e-4,
        pretrained_backbone=True,
        seed=0,
    )
    assert config.loss == LossConfig(
        positive_iou=0.5,
        negative_iou=0.4,
        crowd_overlap=0.7,
        negative_ratio=3,
        confidence_weight=1,
        box_weight=1.5,
        mask_weight=6.125,
        semantic_weight=1,
        mask_iou_weight=25,
        masks_to_train=original.masks_to_train,
        discard_mask_area=25,
    )
    assert config.augment == AugmentConfig(
        photometric=True, expand=True, crop=True, mirror=True, flip=False, rotate=False
    )
    assert config.dataset == ("pascal_sbd" if pascal else "coco2017")
    detect = config.detect
    assert (detect.score_threshold, detect.iou_threshold, detect.nms) == (0.05, 0.5, "fast")
    assert (detect.top_k, detect.max_detections) == (200, 100)


@originals
def test_size_of_an_original(models: dict[str, Yolact], name: str) -> None:
    model = models[name]
    parameters = sum(
        p.numel() for key, p in model.named_parameters() if not key.startswith("network.semantic.")
    )
    assert round(parameters / 1e6, 2) == ORIGINALS[name].million_parameters
    assert len(model.state_dict()) == ORIGINALS[name].tensors


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("yolact_base", []),
        ("yolact_plus_resnet50", [f"2.{i}" for i in range(4)] + [f"3.{i}" for i in range(6)]
         + [f"4.{i}" for i in range(3)]),
        ("yolact_plus_base", ["2.0", "2.3"] + [f"3.{i}" for i in range(0, 22, 3)] + ["4.0"]),
    ],
)  # fmt: skip
def test_deformable_blocks(models: dict[str, Yolact], name: str, blocks: list[str]) -> None:
    keys = [f"network.backbone.layer{block}.conv2.offset_mask.weight" for block in blocks]
    assert [key for key in models[name].state_dict() if key.endswith("offset_mask.weight")] == keys


def check_shapes(name: str, predictions: Predictions, side: int, num_anchors: int) -> None:
    model = get_config(name).model
    cells = -(-side // 8)
    shapes = {key: tuple(p.shape) for key, p in predictions._asdict().items() if p is not None}
    assert shapes == {
        "class_logits": (2, num_anchors, model.num_classes + 1),
        "box_deltas": (2, num_anchors, 4),
        "coefficients": (2, num_anchors, model.num_prototypes),
        "prototypes": (2, model.num_prototypes, 2 * cells, 2 * cells),
        "anchors": (num_anchors, 4),
        "semantic_logits": (2, model.num_classes, cells, cells),
    }


@pytest.mark.parametrize("name", [n for n in ORIGINALS if "plus" not in n])
def test_output_shapes(models: dict[str, Yolact], name: str) -> None:
    side = ORIGINALS[name].image_size
    with torch.device("meta"):
        predictions = models[name].train().network(torch.empty(2, 3, side, side))
    check_shapes(name, predictions, side, ORIGINALS[name].num_anchors)


@pytest.mark.parametrize(
    ("name", "side", "num_anchors"),
    [
        ("yolact_plus_resnet50", 253, 12276),
        ("yolact_plus_base", 253, 12276),
        ("yolact_resnet18", 96, 194 * get_config("yolact_resnet18").model.num_anchors),
        ("yolact_resnet18_im320", 96, 194 * 9),
        ("yolact_mobilenetv3", 96, 194 * 3),
        ("yolact_resnet18_shapes", 64, 86 * get_config("yolact_resnet18_shapes").model.num_anchors),
    ],
)
def test_values_at_a_small_size(name: str, side: int, num_anchors: int) -> None:
    torch.manual_seed(0)
    network = build_model(get_config(name).override(f"model.image_size={side}")).network
    with torch.inference_mode():
        predictions = network(torch.randn(2, 3, side, side))
        assert network.eval()(torch.zeros(1, 3, side, side)).semantic_logits is None
    check_shapes(name, predictions, side, num_anchors)
    assert all(part.isfinite().all() for part in predictions if part is not None)
    assert predictions.coefficients.abs().max() <= 1
    assert predictions.prototypes.min() == 0


@every
def test_key_map_is_a_bijection(models: dict[str, Yolact], name: str) -> None:
    state = models[name].state_dict()
    official = to_official(state)
    assert len(official) == len(state)
    assert not any(key.startswith(("network.", "mask_rescorer.")) for key in official)
    back = from_official(official, models[name].state_dict())
    assert list(back) == list(state)
    assert all(back[key] is state[key] for key in state)


@pytest.mark.skipif(not GOLDEN, reason="no golden files here")
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_official_names_and_shapes(models: dict[str, Yolact], path: Path) -> None:
    golden = np.load(path)
    theirs = {
        str(key): tuple(int(n) for n in str(shape).strip("()").split(",") if n.strip())
        for key, shape in zip(golden["keys"], golden["key_shapes"], strict=True)
    }
    ours: dict[str, Tensor] = to_official(models[path.stem].state_dict())
    assert {key: tuple(tensor.shape) for key, tensor in ours.items()} == theirs


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        ("network.backbone.bn1.weight", "backbone.bn1.weight"),
        ("network.backbone.layer1.0.conv1.weight", "backbone.layers.0.0.conv1.weight"),
        (
            "network.backbone.layer4.2.conv2.offset_mask.bias",
            "backbone.layers.3.2.conv2.conv_offset_mask.bias",
        ),
        ("network.backbone.stem.0.weight", "backbone._preconv.0.weight"),
        ("network.backbone.stages.4.1.conv1.0.weight", "backbone.layers.4.1.conv1.0.weight"),
        ("network.fpn.lateral.0.weight", "fpn.lat_layers.2.weight"),  # C3 comes last there
        ("network.fpn.output.2.bias", "fpn.pred_layers.0.bias"),
        ("network.fpn.downsample.1.bias", "fpn.downsample_layers.1.bias"),
        ("network.protonet.convs.2.weight", "proto_net.4.weight"),
        ("network.protonet.refine.weight", "proto_net.8.weight"),
        ("network.protonet.project.bias", "proto_net.10.bias"),
        ("network.head.shared.0.weight", "prediction_layers.0.upfeature.0.weight"),
        ("network.head.boxes.bias", "prediction_layers.0.bbox_layer.bias"),
        ("network.head.classes.bias", "prediction_layers.0.conf_layer.bias"),
        ("network.head.coefficients.bias", "prediction_layers.0.mask_layer.bias"),
        ("network.semantic.weight", "semantic_seg_conv.weight"),
        ("mask_rescorer.convs.3.weight", "maskiou_net.maskiou_net.6.weight"),
        ("mask_rescorer.classify.bias", "maskiou_net.maskiou_net.10.bias"),
    ],
)
def test_official_name(ours: str, official: str) -> None:
    assert official_name(ours) == official


@pytest.mark.parametrize("name", ["", "backbone.conv1.weight", "network.unknown.weight"])
def test_no_official_name(name: str) -> None:
    with pytest.raises(KeyError, match="no official name"):
        official_name(name)


def test_rescoring_needs_large_prototypes() -> None:
    config = get_config("yolact_plus_resnet50")
    with pytest.raises(ValueError, match="model.image_size=248.*at least 249 pixels"):
        build_model(config.override("model.image_size=248"))


@pytest.mark.parametrize("backbone", [*BACKBONES[:2], *BACKBONES[4:], "timm/resnet18d"])
def test_deformable_blocks_need_bottlenecks(backbone: str) -> None:
    config = get_config("yolact_plus_base").override(f"model.backbone={backbone}")
    with torch.device("meta"), pytest.raises(ValueError, match="bottleneck"):
        build_model(config)
