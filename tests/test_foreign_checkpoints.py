"""Other projects' checkpoints: they predict what an independent computation predicts."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from support.foreign_models import Found, MmDetection, YolactEdge, YolactMinimal, light
from torch import Tensor

import eval as eval_script
from data.images import Image
from layers.boxes import cxcywh_to_xyxy, decode_boxes
from yolact import Predictor, Yolact, build_model, load_model
from yolact.checkpoint import load_matching_weights, read_checkpoint, trained_model
from yolact.cli.common import checkpoint_config, run_command
from yolact.cli.main import load_script
from yolact.formats.names import State
from yolact.formats.recognise import recognise
from yolact.results.thresholds import Thresholds

PROJECTS: dict[str, type[MmDetection | YolactEdge | YolactMinimal]] = {
    "mmdetection": MmDetection,
    "YolactEdge": YolactEdge,
    "Yolact_minimal": YolactMinimal,
}
NAMES = ("ant", "bee", "cat")
META = {"mmdetection": {"meta": {"CLASSES": NAMES, "epoch": 55}}}
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
    told = project == "mmdetection"
    assert detections.class_names == (NAMES if told else ("class 0", "class 1", "class 2"))


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
    named = checkpoint_config(checkpoint, "yolact_im700").model
    assert (named.image_size, named.anchor_scales[0], named.backbone) == (700, (30,), "resnet101")
    assert (named.num_classes, named.fpn_relu_levels) == (3, model.fpn_relu_levels)
    assert named.square_anchors == model.square_anchors


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
        ("mmdetection", with_tensor("bbox_head.conv_cls.weight", 0, 0, 1, 1), "do not go together"),
        (
            "mmdetection",
            with_tensor("bbox_head.conv_coeff.bias", 0),
            r"coefficients.bias: \(0,",
        ),
        ("mmdetection", with_tensor("a\nb", 3), r"no weights by name: 'a\\nb' is none"),
        ("YolactEdge", with_tensor("fpn_phase_1.\x1b[2J", 3), r"'fpn_phase_1.\\x1b\[2J' is none"),
        (
            "Yolact_minimal",
            with_tensor("fpn.lat\r\n" + 9999 * "x", 3),
            r"'fpn.lat\\r\\nx{1,80}",
        ),
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "model.pth"
    monkeypatch.setattr("yolact.checkpoint._is_plain", torch.is_tensor)  # so that light ones can do
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
