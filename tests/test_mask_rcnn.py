"""Mask R-CNN, trained and run by the code that serves YOLACT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import FLAGS, make_dataset
from support.tiny_mask_rcnn import CPU, LOSSES, NAME, SMALL, batch, build, picture
from torch import Tensor

import eval as eval_script
import train
from data.shapes.scenes import ShapeScenes
from layers.structures import Target
from yolact import Predictor, get_config
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import run_command
from yolact.engines.choose import choose_engine
from yolact.engines.names import Engine, EngineName
from yolact.engines.prepare import prepare
from yolact.models.mask_rcnn import MaskRcnn
from yolact.results.thresholds import Thresholds


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_nothing_to_learn_and_nothing_to_see() -> None:
    model = build("train.pretrained_backbone=True").train()
    assert model.batch_norm_frozen
    images, targets = batch()
    losses = model(images, [target[[]] for target in targets])
    assert tuple(losses) == tuple(model.loss_letters) == LOSSES
    assert losses["box"] == losses["mask"] == losses["rpn_box"] == 0
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert Predictor(model)([]) == []
    model.network.roi_heads.score_thresh = 1.0
    (found,) = model([picture(30, 50)])
    assert found.masks.shape == (0, 30, 50)


def test_crowds_and_empty_boxes_are_left_out() -> None:
    model = build().train()
    images, targets = batch()
    clean = []
    for target in targets:
        strange = target[[0, 0, 0]]
        strange.boxes[0] = torch.tensor((5.0, 5.0, 5.0, 9.0))
        strange.boxes[1, 2] = torch.nan
        strange.is_crowd[2] = True
        parts = {k: torch.cat((v, getattr(target, k))) for k, v in vars(strange).items()}
        clean.append(Target(**parts))
    results = []
    for each in (targets, clean):
        torch.manual_seed(0)
        results.append(model.eval().train()(images, each))
    for name in LOSSES:
        torch.testing.assert_close(results[0][name], results[1][name])


@pytest.mark.parametrize("name", LOSSES)
def test_one_step_lowers_each_loss(name: str) -> None:
    model = build().train().freeze_batch_norm()
    images, targets = batch()
    values = []
    for _ in range(2):
        torch.manual_seed(1)  # the same proposals are drawn
        losses = model(images, targets)
        values.append(losses[name].item())
        model.zero_grad()
        losses[name].backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        assert norm > 0
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-2 * parameter.grad / norm
    assert values[1] < values[0]


def test_weights_count_and_input_size_may_vary() -> None:
    images, targets = batch()
    sums = []
    for weights in ((), ("loss.box_weight=2", "loss.confidence_weight=3", "loss.mask_weight=5")):
        model = build(*weights).train()
        torch.manual_seed(0)
        sums.append({name: loss.item() for name, loss in model(images, targets).items()})
    factors = dict(zip(LOSSES, (2, 3, 5, 3, 2), strict=True))
    assert sums[1] == pytest.approx({name: factors[name] * sums[0][name] for name in LOSSES})
    model.input_size = 96
    assert all(loss.isfinite() for loss in model(images, targets).values())
    with pytest.raises(ValueError, match="needs targets"):
        model(images)


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_trained_backbone_keeps_its_statistics(pretrained: bool) -> None:
    """From ImageNet weights batch norm and the first layers stay; from scratch all learn."""
    model = build(f"train.pretrained_backbone={pretrained}").train()
    before = model.network.backbone.bn1.running_mean.clone()
    model(*batch())
    assert torch.equal(model.network.backbone.bn1.running_mean, before) == pretrained
    stuck = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert ("network.backbone.layer1.0.conv1.weight" in stuck) == pretrained
    assert ("network.backbone.layer4.0.bn1.weight" in stuck) == pretrained
    assert "network.backbone.layer2.0.conv1.weight" not in stuck


def test_learns_two_images_by_heart() -> None:
    model = build("model.fpn_channels=32", "model.head_channels=32").train()
    images, targets = batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    for _ in range(12):
        losses = model(images, targets)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        history.append(total(losses).item())
    assert np.mean(history[-3:]) < 0.6 * np.mean(history[:2])


# --- detecting


def test_batched_equals_single() -> None:
    predictor = Predictor(build("model.keep_aspect=False"))
    images = [ShapeScenes(3, side).sample(1).image for side in (64, 100, 180)]
    for single, together in zip(map(predictor, images), predictor(images), strict=True):
        torch.testing.assert_close(single.boxes, together.boxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(single.scores, together.scores, atol=1e-5, rtol=1e-4)
        assert single.image_hw == together.image_hw


@pytest.mark.parametrize(
    ("image_hw", "keep_aspect", "expected"),
    [
        ((64, 64), True, (64, 64)),
        ((30, 40), True, (64, 85)),
        ((400, 100), True, (106, 26)),  # the long side is the limit
        ((1, 2000), True, (1, 106)),
        ((30, 40), False, (64, 64)),
    ],
)
def test_input_size(
    image_hw: tuple[int, int], keep_aspect: bool, expected: tuple[int, int]
) -> None:
    model = build(f"model.keep_aspect={keep_aspect}").eval()
    inputs = model.preprocess([torch.zeros(3, *image_hw, dtype=torch.uint8)])
    assert inputs.image_sizes == [expected]
    assert all(side % 32 == 0 for side in inputs.tensors.shape[-2:])
    (found,) = model([torch.zeros(3, *image_hw, dtype=torch.uint8)])
    assert found.image_hw == image_hw
    assert (found.boxes[:, 2:] <= torch.tensor(image_hw[::-1]) + 1e-3).all()


@pytest.mark.parametrize("mode", ["none", "smooth", "whole"])
def test_boxes_only_skips_the_mask_head(mode: str) -> None:
    model, image = build().eval(), picture(64, 64)
    (expected,) = model([image])
    calls: list[int] = []
    model.network.roi_heads.mask_head.register_forward_hook(lambda *_: calls.append(1))
    model.mask_mode = mode  # type: ignore[assignment]
    (found,) = model([image])
    torch.testing.assert_close(found.boxes, expected.boxes)
    assert len(calls) == (mode != "none")
    assert bool(found.masks.any()) == (mode != "none")


def test_suppression_settings_are_heeded() -> None:
    limits = ("detect.max_detections=7", "detect.iou_threshold=0.1")
    (many,), (few,) = (build(*more).eval()([picture(64, 64)]) for more in ((), limits))
    assert len(many) > len(few) == 7


def test_thresholds_are_heeded() -> None:
    predictor, image = Predictor(build()), picture(64, 64).permute(1, 2, 0).numpy()
    every = predictor.find_all(image)
    counts = (every.scores >= 0.17) & (every.labels == 4) & every.masks.any(dim=(1, 2))
    assert 3 < counts.sum() < (every.labels == 4).sum()
    found = predictor(image, score_threshold=0.17, classes=[4])
    assert torch.equal(found.scores, every.scores[counts])
    assert torch.equal(predictor(image, 0.17, 3, [4]).scores, every.scores[counts][:3])
    (rare,) = predictor.segment([image], Thresholds(0.0, 3, (0,)))
    assert torch.equal(rare.scores, every.scores[every.labels == 0][:3])
    assert len(predictor(image, score_threshold=1.0)) == 0
    assert len(predictor(np.zeros((9, 9, 3), np.uint8), score_threshold=1.0)) == 0


# --- engines


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_eager_engine_predicts_the_same(precision: str) -> None:
    model = build("train.pretrained_backbone=False").train()
    with torch.no_grad():
        for _ in range(3):  # statistics that folding has to get right
            model(*batch())
    inputs = model.eval().preprocess([picture(64, 80)])
    run_network = prepare(model.network, Engine("eager", CPU, precision), 64)  # type: ignore[arg-type]
    with torch.no_grad():
        (expected,), (found,) = model.network(inputs), run_network(inputs)
    assert all(part.dtype == torch.float32 for part in (found.boxes, found.scores, found.masks))
    tolerance = 1e-4 if precision == "float32" else 0.05
    torch.testing.assert_close(found.scores, expected.scores, atol=tolerance, rtol=0)


def test_bfloat16_trains_in_float32_where_it_matters() -> None:
    model = build().train()
    images, targets = batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images, targets)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    total(losses).backward()
    anchors = model.network.rpn.anchor_generator.cell_anchors
    assert {anchor.dtype for anchor in anchors} == {torch.float32}


def test_the_engine_is_chosen_for_the_model() -> None:
    assert choose_engine("cpu", "auto", "float32", MaskRcnn.fixed_shapes).name == "eager"
    assert choose_engine("cpu", "plain", "auto", MaskRcnn.fixed_shapes).name == "plain"


@pytest.mark.parametrize("engine", ["compile", "openvino"])
def test_engines_that_need_fixed_shapes(engine: EngineName) -> None:
    with pytest.raises(ValueError, match=f"engine='{engine}': not for Mask R-CNN; expected auto"):
        choose_engine("cpu", engine, "float32", MaskRcnn.fixed_shapes)


@pytest.mark.parametrize(
    "setting",
    [
        "model.backbone=darknet53",
        "model.deformable_interval=3",
        "model.mask_rescoring=True",
        "detect.nms=cross_class",
        "loss.box_loss=giou",
        "loss.dice_weight=1.0",
    ],
)
def test_what_it_does_not_have(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}: Mask R-CNN stands on a plain ResNet"):
        build(setting)


# --- the same scripts


def test_trained_resumed_evaluated_and_run_by_the_same_scripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_dataset(tmp_path / "scenes", train=2, val=3)
    flags = [f"--config={NAME}", f"--dataset={data}", *FLAGS, *(f"--set={s}" for s in SMALL)]
    flags += ["--batch_size=2", "--no_autoscale", "--num_workers=0", "--validation_size=-1"]
    flags += ["--set=detect.max_detections=5"]
    for iterations, more in ((1, []), (2, ["--resume=latest"])):
        args = [*flags, f"--set=train.max_iterations={iterations}", *more]
        assert run_command(train.main, args) == 0
    path = Path("weights") / f"{NAME}_2_2.pth"
    checkpoint = read_checkpoint(path)
    assert checkpoint.config is not None and checkpoint.config.model.architecture == "mask_rcnn"
    assert get_config(NAME).model.keep_aspect and not checkpoint.config.model.keep_aspect
    capsys.readouterr()

    base = [f"--trained_model={path}", f"--dataset={data}", "--device=cpu", "--no_bar"]
    image = data / "val" / "000001.jpg"
    for more, said in (
        ([], "mask |"),
        (["--detect"], "box |"),
        (["--benchmark", "--max_images=3"], "GFLOP"),
        ([f"--image={image}:out.png"], "out.png"),
        ([f"--image={image}:plain.png", "--engine=plain"], "plain.png"),
    ):
        assert run_command(eval_script.main, [*base, *more]) == 0
        assert said in capsys.readouterr().out
    for more, code, said in (
        ([f"--image={image}:x.png", "--display_lincomb"], 2, "--display_lincomb: not for Mask"),
        ([f"--image={image}:x.png", "--mask_proto_debug"], 2, "--mask_proto_debug: not for Mask"),
        ([f"--image={image}:x.png", "--no_crop"], 2, "--no_crop: not for Mask R-CNN"),
        (["--smooth_masks"], 2, "--smooth_masks: not for Mask R-CNN, which has no prototypes"),
        (["--engine=openvino"], 1, "not for Mask R-CNN"),
    ):
        assert run_command(eval_script.main, [*base, *more]) == code
        assert said in capsys.readouterr().err
