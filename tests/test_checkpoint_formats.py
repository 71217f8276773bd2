"""Names, settings and classes of other projects' checkpoints, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.classes import COCO_CLASSES, YOUTUBE_VIS_CLASSES
from yolact import build_model, get_config
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import checkpoint_config
from yolact.config import ModelConfig
from yolact.formats.mmdetection import from_mmdetection
from yolact.formats.names import State
from yolact.formats.official import check_official, to_official
from yolact.formats.recognise import OFFICIAL, Published, recognise
from yolact.formats.settings import num_classes_of, settings_of
from yolact.formats.yolact_edge import from_yolact_edge
from yolact.formats.yolact_minimal import from_yolact_minimal

HEAD = "prediction_layers.0"


@pytest.mark.parametrize(
    ("convert", "theirs", "official"),
    [
        (from_mmdetection, "backbone.bn1.bias", "backbone.bn1.bias"),
        (from_mmdetection, "backbone.layer1.0.conv1.weight", "backbone.layers.0.0.conv1.weight"),
        (from_mmdetection, "segm_head.segm_conv.bias", "semantic_seg_conv.bias"),
        (from_mmdetection, "mask_head.segm_branch.segm_conv.bias", "semantic_seg_conv.bias"),
        (from_yolact_edge, "backbone.conv1.weight", "backbone.conv1.weight"),
        (from_yolact_edge, "backbone.layers.0.0.bn1.bias", "backbone.layers.0.0.bn1.bias"),
        (from_yolact_edge, "backbone.layers.0.1.conv3.weight", "backbone.layers.0.1.conv3.weight"),
        (from_yolact_edge, "backbone.layers.3.2.conv1.weight", "backbone.layers.3.2.conv1.weight"),
        (from_yolact_edge, "backbone._preconv.0.weight", "backbone._preconv.0.weight"),
        (from_yolact_edge, "backbone.layers.0.0.0.weight", "backbone.layers.0.0.0.weight"),
        (from_yolact_edge, "backbone.layers.6.2.conv.3.bias", "backbone.features.16.conv.3.bias"),
        (from_yolact_edge, "flow_net.conv1.0.0.weight", None),
        (from_yolact_edge, "flow_net_pre_convs.convs.0.0.bias", None),
        (from_yolact_edge, "spa.refine_convs.0.0.weight", None),
        (from_yolact_minimal, "backbone.layers.0.0.bn1.bias", "backbone.layers.0.0.bn1.bias"),
        (from_yolact_minimal, "prediction_layers.conf_layer.bias", f"{HEAD}.conf_layer.bias"),
    ],
)
def test_names(convert: Callable[[State], State], theirs: str, official: str | None) -> None:
    converted = convert({theirs: torch.arange(3.0)})
    assert list(converted) == [official] * (official is not None)


def test_no_tensors() -> None:
    for convert in (from_mmdetection, from_yolact_edge, from_yolact_minimal):
        assert convert({}) == {}
    assert recognise({}, {}, "yolact_base_54_800000") is None


def test_mmdetection_trains_its_semantic_branch_one_class_off() -> None:
    """What finds class i is its channel i - 1, and for class 0 the last one."""
    for numbers, in_order in (([], []), ([1.0, 2.0, 0.0], [0, 1, 2]), (5.0, 5)):
        state = from_mmdetection({"segm_head.segm_conv.bias": torch.tensor(numbers)})
        assert state["semantic_seg_conv.bias"].tolist() == in_order


@pytest.mark.parametrize(
    "name",
    [
        *("yolact_base", "yolact_darknet53", "yolact_resnet50", "yolact_resnet50_pascal"),
        *("yolact_plus_base", "yolact_plus_resnet50", "yolact_resnet18", "yolact_mobilenetv3"),
        *("backbone=resnet34", "backbone=mobilenet_v2", "backbone=mobilenet_v3_small"),
    ],
)
def test_settings_of_every_preset(name: str) -> None:
    changes = [f"model.{name}"] if "=" in name else []
    config = get_config("yolact_resnet18" if changes else name).override(*changes)
    with torch.device("meta"):
        state = to_official(build_model(config).state_dict())
    settings = settings_of(state)
    assert settings == {field: getattr(config.model, field) for field in settings}
    told = Published(OFFICIAL, state).config()
    assert told.model.backbone == config.model.backbone
    if name in ("yolact_base", "yolact_darknet53", "yolact_resnet50") or "plus" in name:
        assert told == config
    assert Published(OFFICIAL, state).config(config) == config


def test_files_of_2019_by_their_name_or_by_their_tensors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = get_config("yolact_resnet18")
    config = known.override("model.fpn_channels=8").with_classes(("dog",))
    state = to_official(build_model(config).state_dict())
    torch.save(state, tmp_path / "yolact_resnet18_3_900.pth")
    checkpoint = read_checkpoint(tmp_path / "yolact_resnet18_3_900.pth")
    assert checkpoint.preset() == known.override("model.num_classes=1")
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "mine.pth")
    checkpoint = read_checkpoint(tmp_path / "mine.pth")
    caplog.set_level("INFO")
    assert checkpoint_config(checkpoint, None).model == replace(
        known.model, fpn_channels=8, num_classes=1, class_names=()
    )
    (line,) = caplog.messages
    assert line.endswith("of YOLACT of 2019, run as yolact_resnet18 with 1 classes at 400 px")


@pytest.mark.parametrize(
    ("stem", "keep_aspect"),
    [
        ("best_30.5_res101_coco_392000", True),
        ("latest_res50_custom_2000", True),
        ("res101_coco_800000", False),  # the weights of 2019
        ("my_yolact_3_900", False),
    ],
)
def test_files_of_yolact_minimal_named_as_in_2019(stem: str, keep_aspect: bool) -> None:
    with torch.device("meta"):
        state = to_official(build_model(get_config("yolact_resnet50")).state_dict())
    published = recognise(state, state, stem)
    assert published is not None
    model = published.config().model
    assert (model.keep_aspect, model.square_anchors) == (keep_aspect, not keep_aspect)
    assert (model.image_size, model.anchor_scales[4]) == (
        (544, (379,)) if keep_aspect else (550, (384,))
    )


@pytest.mark.parametrize(
    ("count", "names"),
    [(80, COCO_CLASSES.names), (40, YOUTUBE_VIS_CLASSES.names), (20, ())],
)
def test_classes_of_published_data(count: int, names: tuple[str, ...]) -> None:
    with torch.device("meta"):
        config = get_config("yolact_resnet50").override(f"model.num_classes={count}")
        state = to_official(build_model(config).state_dict())
    state = {
        name.replace("fpn.lat", "fpn_phase_1.lat").replace("fpn.", "fpn_phase_2."): tensor
        for name, tensor in state.items()
    }
    published = recognise(state, state, "yolact_edge_vid_847_50000")
    assert published is not None and published.config().model.class_names == names


def test_numbers_that_do_not_go_together() -> None:
    shapes = {"bbox_layer": 2, "conf_layer": 12}
    state = {
        f"prediction_layers.0.{name}.weight": torch.zeros(rows, 1, 1, 1)
        for name, rows in shapes.items()
    }
    with pytest.raises(ValueError, match="2 rows for boxes and 12 for classes do not go together"):
        num_classes_of(state)


@pytest.mark.parametrize(
    "setting",
    [
        *("keep_aspect=True", "fpn_relu_levels=0", "p6_source=c5", "prototype_align_corners=True"),
        "backbone=timm/resnet18d",
    ],
)
def test_what_2019_does_not_have(setting: str) -> None:
    check_official(ModelConfig())
    config = get_config("yolact_base").override(f"model.{setting}")
    with pytest.raises(ValueError, match=rf"model\.{setting}: the release of 2019 has no such"):
        check_official(config.model)
