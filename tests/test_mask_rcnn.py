"""Mask R-CNN: as torchvision's own, yet trained and run by the code that serves YOLACT."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from test_download import serving
from tiny import FLAGS, SETTINGS, make_dataset
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.mask_rcnn import MaskRCNN

import eval as eval_script
import train
from data.catalog import COCO_CLASSES
from data.shapes import SHAPE_CLASSES, ShapeScenes
from data.transforms import plain_target
from layers.structures import Target
from yolact import Config, Predictor, build_model, get_config, load_model
from yolact import checkpoint as checkpoint_module
from yolact.checkpoint import (
    Checkpoint,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    to_official,
)
from yolact.cli import run
from yolact.download import OFFICIAL_WEIGHTS, DownloadError, fetch_weights
from yolact.engine import Engine, EngineName, choose_engine, prepare
from yolact.mask_rcnn import MaskRcnn, from_torchvision

NAME = "maskrcnn_resnet50_fpn"
SMALL = (
    *(setting for setting in SETTINGS if not setting.startswith("model.prototype")),
    "model.backbone=resnet18",
    "model.anchor_scales=((8,),(16,),(24,),(32,),(48,))",
)
LOSSES = ("box", "confidence", "mask", "objectness", "rpn_box")
CPU = torch.device("cpu")


def small_config(*more: str) -> Config:
    return get_config(NAME).override(*SMALL, *more).with_classes(SHAPE_CLASSES)


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


# --- like torchvision's own


@pytest.fixture(scope="module")
def published() -> MaskRCNN:
    """torchvision's model for COCO's 91 numbers, as its published weights are: no epsilon."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    few = {"rpn_post_nms_top_n_test": 100, "box_detections_per_img": 30}  # faster
    model = MaskRCNN(backbone, 91, min_size=96, max_size=159, box_score_thresh=0.0, **few).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            nn.init.uniform_(module.weight, 0.1, 0.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
            module.running_var[0], module.weight.data[0] = 1e-6, 1e-4  # an epsilon would show
    heads = model.roi_heads
    with torch.no_grad():
        for layer in (heads.box_predictor.cls_score, heads.box_predictor.bbox_pred):
            layer.weight.mul_(20)
        model.rpn.head.bbox_pred.weight.mul_(20)
        heads.mask_predictor.mask_fcn_logits.weight.mul_(5)
        gaps = sorted(set(range(1, 91)) - set(COCO_CLASSES.category_ids))
        heads.box_predictor.cls_score.bias[gaps] = -50  # as trained: never there
    return model


def as_of_2019(model: MaskRCNN) -> dict[str, Tensor]:
    """The names of the published file."""
    names = (
        (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
        (r"_blocks\.(\d)\.0\.", r"_blocks.\1."),
        (r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}."),
    )
    state = {}
    for name, tensor in model.state_dict().items():
        for pattern, old in names:
            name = re.sub(pattern, old, name)
        if not name.endswith("num_batches_tracked"):  # its batch norm was frozen
            state[name] = tensor
    return state


@pytest.mark.parametrize("image_hw", [(73, 120), (120, 73), (40, 200)])
def test_published_weights_give_what_torchvision_gives(
    published: MaskRCNN, image_hw: tuple[int, int]
) -> None:
    config = get_config(NAME).override(
        "model.backbone=resnet18",
        "model.image_size=96",
        "detect.score_threshold=0.0",
        "detect.max_detections=30",
    )
    model = build_model(config).eval()
    model.network.rpn._post_nms_top_n = published.rpn._post_nms_top_n
    load_weights(model, Checkpoint(Path("x.pth"), as_of_2019(published), official=True))
    image = picture(*image_hw)
    with torch.no_grad():
        (expected,), (found,) = published([image / 255]), model([image])
    assert len(found) == len(expected["scores"]) == 30
    torch.testing.assert_close(found.scores, expected["scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.boxes, expected["boxes"], atol=1e-2, rtol=0)
    ids = [COCO_CLASSES.category_ids[label] for label in found.labels.tolist()]
    assert ids == expected["labels"].tolist()
    ours, theirs = found.masks, expected["masks"][:, 0] > 0.5
    assert theirs.any(dim=(1, 2)).sum() > 15
    overlap = (ours & theirs).sum(dim=(1, 2)) / (ours | theirs).sum(dim=(1, 2)).clamp(min=1)
    assert overlap[theirs.any(dim=(1, 2))].min() >= 0.99
    assert ours.shape == (30, *image_hw)
    assert found.soft_masks.shape == (30, 30, 30)  # and no larger, whatever the image


def test_nothing_to_rename() -> None:
    assert from_torchvision({}) == {}


def test_files_that_only_look_like_it(published: MaskRCNN) -> None:
    model = build_model(get_config(NAME).override("model.backbone=resnet18"))
    for name in ("bn1.weight", "bn1.running_var", "cls_score.weight", "mask_fcn_logits.weight"):
        for shape in ((), (0,), (5,), (91, 0)):
            state = as_of_2019(published)
            state[next(key for key in state if key.endswith(name))] = torch.zeros(shape)
            with pytest.raises(ValueError, match="x.pth: does not fit this model in"):
                load_weights(model, Checkpoint(Path("x.pth"), state, official=True))


def test_other_class_counts_keep_their_numbers() -> None:
    name = "roi_heads.box_predictor.cls_score.bias"
    state = from_torchvision({name: torch.arange(5.0)})
    assert state["network." + name].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", [NAME, "maskrcnn_resnet101_fpn"])
def test_presets(name: str) -> None:
    config = get_config(name)
    with torch.device("meta"):
        model = build_model(config.override("model.num_classes=90"))
    counted = {n: p.numel() for n, p in model.named_parameters()}
    norms = sum(count for n, count in counted.items() if re.search(r"bn\d|downsample\.1", n))
    if name == NAME:  # torchvision does not count frozen batch norm
        published = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
        assert sum(counted.values()) - norms == published
    assert round(sum(counted.values()) / 1e6, 2) == {"50": 44.45, "01": 63.45}[name[-6:-4]]
    assert config.num_classes == 80


# --- training


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_nothing_to_learn_and_nothing_to_see() -> None:
    model = build("train.pretrained_backbone=True").train()
    assert model.batch_norm_frozen
    images, targets = batch()
    losses = model(images, [target[[]] for target in targets])
    assert tuple(losses) == LOSSES
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
    found = Predictor(build())(picture(64, 64).permute(1, 2, 0).numpy(), top_k=3)
    assert len(found) <= 3
    assert (
        Predictor(build())(np.zeros((9, 9, 3), np.uint8), score_threshold=1.1).scores.tolist() == []
    )


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
    assert choose_engine("cpu", "auto", "float32", "mask_rcnn").name == "eager"
    assert choose_engine("cpu", "plain", "auto", "mask_rcnn").name == "plain"


@pytest.mark.parametrize("engine", ["compile", "openvino"])
def test_engines_that_need_fixed_shapes(engine: EngineName) -> None:
    with pytest.raises(ValueError, match=f"--engine {engine}: not for Mask R-CNN; expected auto"):
        choose_engine("cpu", engine, "float32", "mask_rcnn")


@pytest.mark.parametrize(
    "setting",
    [
        "model.backbone=darknet53",
        "model.deformable_interval=3",
        "model.mask_rescoring=True",
        "detect.nms=cross_class",
    ],
)
def test_what_it_does_not_have(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}: Mask R-CNN stands on a plain ResNet"):
        build(setting)


def test_yolact_takes_squares() -> None:
    with pytest.raises(ValueError, match=r"model\.keep_aspect=True: YOLACT takes squares"):
        build_model(get_config("yolact_base").override("model.keep_aspect=True"))


# --- files


def test_own_checkpoint_and_no_official_one(tmp_path: Path) -> None:
    model, path = build(), tmp_path / "mine.pth"
    save_checkpoint(path, model, small_config(), half=True)
    loaded = load_model(path)
    assert isinstance(loaded, MaskRcnn)
    assert loaded.class_names == SHAPE_CLASSES
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="no official name for.*2019 has no such model"):
        to_official(model.state_dict())


def test_loaded_by_name_from_a_server(
    published: MaskRCNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = OFFICIAL_WEIGHTS[NAME]
    assert official.url == MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url
    assert official.sha256 and official.url.endswith(f"-{official.sha256}.pth")
    config = get_config(NAME).override("model.backbone=resnet18")
    monkeypatch.setattr(checkpoint_module, "get_config", lambda _: config)
    monkeypatch.setattr(checkpoint_module, "WEIGHTS_FOLDER", tmp_path)
    torch.save(as_of_2019(published), tmp_path / "whole.pth")
    with serving() as server:
        server.content = (tmp_path / "whole.pth").read_bytes()
        with pytest.raises(DownloadError, match=f"instead of {official.sha256}"):  # other bytes
            fetch_weights(NAME, tmp_path, base_url=server.url)
        assert not (tmp_path / official.file_name).exists()
        digest = hashlib.sha256(server.content).hexdigest()
        there = official._replace(base_url=server.url, sha256=digest[:8])
        monkeypatch.setitem(OFFICIAL_WEIGHTS, NAME, there)
        model = load_model(NAME)
    assert (tmp_path / official.file_name).is_file()
    bias = published.roi_heads.box_predictor.cls_score.bias
    ours = model.network.roi_heads.box_predictor.cls_score.bias
    assert torch.equal(ours, bias[[0, *COCO_CLASSES.category_ids]])
    assert not model.training


def test_no_weights_for_the_deeper_one() -> None:
    with pytest.raises(FileNotFoundError, match=rf"a preset without trained weights; .*{NAME}"):
        load_model("maskrcnn_resnet101_fpn")


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
        assert run(train.main, args) == 0
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
        assert run(eval_script.main, [*base, *more]) == 0
        assert said in capsys.readouterr().out
    for more, said in (
        ([f"--image={image}:x.png", "--display_lincomb"], "only YOLACT has prototypes"),
        (["--engine=openvino"], "not for Mask R-CNN"),
    ):
        assert run(eval_script.main, [*base, *more]) == 1
        assert said in capsys.readouterr().err
