"""Other projects' checkpoints: they predict what an independent computation predicts."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from support.foreign_models import Found, MmDetection, YolactEdge, YolactMinimal
from torch import Tensor

import eval as eval_script
from data.classes import COCO_CLASSES, YOUTUBE_VIS_CLASSES
from data.images import Image
from layers.boxes import cxcywh_to_xyxy, decode_boxes
from yolact import Predictor, Yolact, build_model, get_config, load_model
from yolact.checkpoint import load_matching_weights, read_checkpoint, trained_model
from yolact.cli.common import checkpoint_config, run_command
from yolact.cli.main import load_script
from yolact.config import ModelConfig
from yolact.formats.mmdetection import from_mmdetection
from yolact.formats.names import State
from yolact.formats.official import check_official, to_official
from yolact.formats.recognise import OFFICIAL, Published, recognise
from yolact.formats.settings import num_classes_of, settings_of
from yolact.formats.yolact_edge import from_yolact_edge
from yolact.formats.yolact_minimal import from_yolact_minimal
from yolact.results.thresholds import Thresholds

PROJECTS: dict[str, type[MmDetection | YolactEdge | YolactMinimal]] = {
    "mmdetection": MmDetection,
    "YolactEdge": YolactEdge,
    "Yolact_minimal": YolactMinimal,
}
META = {"mmdetection": {"meta": {"CLASSES": ("ant", "bee", "cat"), "epoch": 55}}}
every = pytest.mark.parametrize("project", PROJECTS)


class Case(NamedTuple):
    """A checkpoint as its project writes it, and what that project makes of a picture."""

    file: Path
    state: State
    side: int
    image: Image
    found: Found
    model: Yolact


def picture() -> Image:
    blobs = np.random.default_rng(0).integers(0, 256, (9, 14, 3)).astype(np.uint8)
    return cv2.resize(blobs, (140, 90), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    made: dict[str, Case] = {}

    def case(project: str) -> Case:
        if project not in made:
            network, image = PROJECTS[project](), picture()
            with torch.inference_mode():
                found = network(network.prepare(image))
            file, state = tmp_path_factory.mktemp("foreign") / "model.pth", network.weights.state
            torch.save({"state_dict": state, **META[project]} if project in META else state, file)
            checkpoint = read_checkpoint(file)
            config = checkpoint.preset().override(f"model.image_size={network.side}")
            model = trained_model(checkpoint, config)
            assert isinstance(model, Yolact)
            made[project] = Case(file, light(state), network.side, image, found, model)
        return made[project]

    return case


def light(state: State) -> State:
    """The same names and shapes, but hardly any numbers."""
    return {name: tensor.new_zeros(()).expand(tensor.shape) for name, tensor in state.items()}


def sorted_by_anchor(anchors: Tensor, *parts: Tensor) -> list[Tensor]:
    """Bring two orders of the same anchors together; levels follow each other in both."""
    keys = [tuple(round(x, 2) for x in anchor) for anchor in anchors.tolist()]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [part[order] for part in (anchors, *parts)]


@every
def test_every_prediction_is_the_same(cases: Callable[[str], Case], project: str) -> None:
    case = cases(project)
    model, theirs = case.model, case.found
    with torch.inference_mode():
        ours = model.network(model.preprocess([torch.from_numpy(case.image).permute(2, 0, 1)]))
        boxes = decode_boxes(ours.box_deltas[0], ours.anchors) * case.side
    expected = sorted_by_anchor(theirs.anchors, theirs.boxes, theirs.scores, theirs.coefficients)
    found = sorted_by_anchor(
        cxcywh_to_xyxy(ours.anchors) * case.side,
        boxes,
        ours.class_logits[0].softmax(1)[:, 1:],
        ours.coefficients[0],
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(ours.prototypes[0], theirs.prototypes, atol=1e-3, rtol=1e-3)


@every
def test_the_objects_in_a_picture_are_the_same(cases: Callable[[str], Case], project: str) -> None:
    case = cases(project)
    theirs, (height, width) = case.found, case.image.shape[:2]
    detections = Predictor(case.model).segment([case.image], Thresholds(0.3))[0]
    assert len(detections) > 3
    torch.testing.assert_close(detections.scores[0], theirs.scores.max(), atol=1e-3, rtol=0)
    whole = (max(height, width),) * 2 if project == "Yolact_minimal" else (height, width)
    scale = torch.tensor([whole[1], whole[0]] * 2) / case.side
    boxes = (theirs.boxes * scale).clamp(min=0).minimum(torch.tensor([width, height] * 2))
    for one in detections:
        alike = (theirs.scores[:, one.labels[0]] - one.scores[0]).abs() < 1e-3
        differences = (boxes - one.boxes[0]).abs().amax(1).where(alike, torch.inf)
        assert differences.min() < 0.1
        index = int(differences.argmin())
        mask = theirs.mask(index, case.side, whole)[:height, :width]
        assert (one.masks[0] != mask).float().mean() < 2e-3
    assert detections.masks.flatten(1).any(1).sum() > 2
    names = META.get(project, {"meta": {"CLASSES": ("class 0", "class 1", "class 2")}})["meta"]
    assert detections.class_names == names["CLASSES"]


@every
def test_the_model_is_told_by_the_tensors(cases: Callable[[str], Case], project: str) -> None:
    checkpoint = read_checkpoint(cases(project).file)
    model = checkpoint.preset().model
    assert checkpoint.published is not None and checkpoint.published.format.project == project
    told = {
        "mmdetection": ("resnet50", 550, False, 0, "c5", False, False),
        "YolactEdge": ("mobilenet_v2", 550, True, 3, "p5", False, False),
        "Yolact_minimal": ("resnet50", 544, False, 5, "p5", True, True),
    }
    assert told[project] == (
        *(model.backbone, model.image_size, model.square_anchors, model.fpn_relu_levels),
        *(model.p6_source, model.prototype_align_corners, model.keep_aspect),
    )
    assert (model.fpn_channels, model.prototype_channels, model.head_channels) == (8, 8, 8)
    assert (model.num_classes, model.num_prototypes) == (3, 6)
    # A preset that is named gives what tensors do not tell, and nothing else.
    named = checkpoint.preset(get_config("yolact_im700")).model
    assert (named.image_size, named.anchor_scales[0], named.backbone) == (700, (30,), "resnet101")
    assert (named.num_classes, named.fpn_relu_levels) == (3, model.fpn_relu_levels)
    assert named.square_anchors == model.square_anchors


# --- the parts of the formats that the small models above do not have


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
    state = light(to_official(build_model(config).state_dict()))
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


NAMES = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, ()),
        ({"meta": 3}, ()),
        ({"meta": {"CLASSES": None}}, ()),
        ({"meta": {"CLASSES": "cat"}}, ()),
        ({"meta": {"CLASSES": (1, 2, 3)}}, ()),
        ({"meta": {"CLASSES": ("ant", "bee")}}, ()),  # of another number
        ({"meta": {"CLASSES": NAMES}}, NAMES),
        ({"meta": {"dataset_meta": {"classes": list(NAMES)}}}, NAMES),
        ({"meta": {"dataset_meta": {"CLASSES": NAMES}}}, NAMES),
        ({"meta": {"dataset_meta": []}}, ()),
    ],
)
def test_class_names(
    cases: Callable[[str], Case], content: dict[str, Any], expected: tuple[str, ...]
) -> None:
    published = recognise(content, cases("mmdetection").state, "x")
    assert published is not None and published.config().model.class_names == expected


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


# --- what is refused


def without(part: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if part not in name}


def with_tensor(name: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, name: torch.zeros(shape)}


BLOCKS = {f"backbone.layer3.{i}.conv1.weight": torch.zeros(1, 1, 1, 1) for i in range(36)}


@pytest.mark.parametrize(
    ("project", "change", "message"),
    [
        ("mmdetection", with_tensor("neck.lateral_convs.0.bn.weight", 8), "lateral_convs.0.bn.wei"),
        ("mmdetection", with_tensor("bbox_head.head_convs.1.conv.bias", 8), "head_convs.1.conv"),
        ("mmdetection", with_tensor("bbox_head.conv_reg.bias", 36), r"conv_reg.bias: \(36,\), exp"),
        ("mmdetection", with_tensor("bbox_head.conv_cls.bias", 7), r"conf_layer.bias: \(7,\), exp"),
        ("mmdetection", with_tensor("bbox_head.conv_cls.bias"), r"conf_layer.bias: \(\), expected"),
        ("mmdetection", with_tensor("ema_backbone_conv1_weight", 3), "ema_backbone_conv1_weight"),
        ("mmdetection", lambda state: {**state, **BLOCKS}, "a backbone that is not among ours"),
        ("mmdetection", without("conv_reg.weight"), "bbox_layer.weight: not in the file"),
        ("mmdetection", with_tensor("bbox_head.conv_cls.weight", 12), r"\(12,\) are no weights"),
        ("mmdetection", with_tensor("bbox_head.conv_cls.weight", 3, 8, 3, 3), "do not go together"),
        ("YolactEdge", without("fpn_phase_2.pred_layers.1.bias"), "fpn.output.1.bias: not in the"),
        ("YolactEdge", with_tensor("proto_net.8.bias", 9), r"protonet.refine.bias: \(9,\) in the"),
        ("YolactEdge", with_tensor("class_existence_fc.bias", 3), "class_existence_fc.bias"),
        ("YolactEdge", without("backbone."), "not among ours; its first tensor is none"),
        ("YolactEdge", with_tensor("semantic_seg_conv.bias"), r"semantic.bias: \(\) in the check"),
        (
            "YolactEdge",
            with_tensor("backbone.fc.bias", 3),
            "in 1 tensors: backbone.fc.bias: not in",
        ),
        ("Yolact_minimal", with_tensor("prediction_layers.gate.bias", 3), "gate.bias: a tensor"),
        (
            "Yolact_minimal",
            lambda s: {"backbone.patch_embed.bias": torch.zeros(1), **without("backbone.")(s)},
            "its first tensor is backbone.patch_embed.bias",
        ),
    ],
)
def test_refused(
    cases: Callable[[str], Case],
    tmp_path: Path,
    project: str,
    change: Callable[[State], State],
    message: str,
) -> None:
    path = tmp_path / "model.pth"
    torch.save(change(cases(project).state), path)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("kind", ["sparse", "a training's logs"])
def test_files_with_more_than_plain_weights(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name = tmp_path / "epoch_55.pth", "bbox_head.conv_coeff.weight"
    if kind == "sparse":
        torch.save({name: torch.eye(3).to_sparse()}, path)
        message = "holds no weights by name"
    else:
        module = types.ModuleType("mmengine.logging.history_buffer")
        buffer = type("HistoryBuffer", (), {"__module__": module.__name__})
        module.HistoryBuffer = buffer  # type: ignore[attr-defined]
        for parent in ("mmengine", "mmengine.logging", module.__name__):
            monkeypatch.setitem(sys.modules, parent, module)
        torch.save({"state_dict": {name: torch.zeros(2)}, "message_hub": buffer()}, path)
        message = r"mmengine's logs .*publish_model\.py"
    with pytest.raises(ValueError, match=message):
        load_model(path)


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
    ["keep_aspect=True", "fpn_relu_levels=0", "p6_source=c5", "prototype_align_corners=True"],
)
def test_what_2019_does_not_have(setting: str) -> None:
    check_official(ModelConfig())
    config = get_config("yolact_base").override(f"model.{setting}")
    with pytest.raises(ValueError, match=rf"model\.{setting}: the release of 2019 has no such"):
        check_official(config.model)


# --- the command lines


def test_predicted_and_converted_by_the_commands(
    cases: Callable[[str], Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = cases("YolactEdge").file
    cv2.imwrite(str(tmp_path / "in.png"), picture())
    flags = ["--engine=eager", "--device=cpu", "--precision=float32", "--score_threshold=0.3"]
    flags.append("--set=model.image_size=138")
    convert = load_script("convert_checkpoint")
    assert run_command(convert, [str(file), str(tmp_path / "ours.pth"), "--half"]) == 0
    printed = []
    for model in (file, tmp_path / "ours.pth"):
        image = f"--image={tmp_path / 'in.png'}:{tmp_path / 'out.png'}"
        capsys.readouterr()
        assert run_command(eval_script.main, [image, f"--trained_model={model}", *flags]) == 0
        printed.append(capsys.readouterr().out)
    assert "class 1" in printed[0]
    assert len(printed[0].splitlines()) == len(printed[1].splitlines())
    config = read_checkpoint(tmp_path / "ours.pth").config
    assert config is not None and config.name == "yolact_mobilenet_v2"


def test_what_cannot_be_written_as_of_2019(
    cases: Callable[[str], Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert = load_script("convert_checkpoint")
    arguments = [str(cases("mmdetection").file), str(tmp_path / "x.pth"), "--to=official"]
    assert run_command(convert, arguments) == 1
    assert "model.fpn_relu_levels=0: the release of 2019 has no such" in capsys.readouterr().err
    assert not (tmp_path / "x.pth").exists()


def test_fine_tuning_takes_what_fits(cases: Callable[[str], Case]) -> None:
    checkpoint = read_checkpoint(cases("YolactEdge").file)
    model = build_model(checkpoint.preset().with_classes(("dog", "cat")))
    skipped = load_matching_weights(model, checkpoint)
    assert {line.split(":")[0].rpartition(".")[0] for line in skipped} == {
        "network.head.classes",
        "network.semantic",
    }
