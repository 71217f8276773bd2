"""Weights of Mask R-CNN: torchvision's, which give what they give there, and our own files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from support.fake_hub import serving
from support.tiny_mask_rcnn import NAME, build, picture, small_config
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.mask_rcnn import MaskRCNN

from data.classes import COCO_CLASSES, SHAPE_CLASSES
from yolact import build_model, get_config, load_model
from yolact import checkpoint as checkpoint_module
from yolact.checkpoint import Checkpoint, load_weights, save_checkpoint
from yolact.formats.official import to_official
from yolact.hub.client import DownloadError
from yolact.hub.released import OFFICIAL_WEIGHTS, OfficialFile
from yolact.models.mask_rcnn import MaskRcnn, from_torchvision


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


def test_batch_norm_that_has_counted_has_an_epsilon(published: MaskRCNN) -> None:
    state = as_of_2019(published)
    name = "backbone.body.bn1.weight"
    frozen, counted = (
        from_torchvision({**state, **more})["network.backbone.bn1.weight"]
        for more in ({}, {"backbone.body.bn1.num_batches_tracked": torch.tensor(5)})
    )
    assert torch.equal(counted, state[name])
    assert not torch.equal(frozen, state[name])


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


def test_own_checkpoint_and_no_official_one(tmp_path: Path) -> None:
    model, path = build(), tmp_path / "mine.pth"
    save_checkpoint(path, model, small_config(), half=True)
    loaded = load_model(path)
    assert isinstance(loaded, MaskRcnn)
    assert loaded.class_names == SHAPE_CLASSES.names
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="no official name for.*2019 has no such model"):
        to_official(model.state_dict())


def test_loaded_by_name_from_a_server(
    published: MaskRCNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert OFFICIAL_WEIGHTS[NAME].url == MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url
    config = get_config(NAME).override("model.backbone=resnet18")
    monkeypatch.setattr(checkpoint_module, "get_config", lambda _: config)
    monkeypatch.setattr(checkpoint_module, "WEIGHTS_FOLDER", tmp_path)
    torch.save(as_of_2019(published), tmp_path / "whole.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    content = (tmp_path / "whole.pth").read_bytes()
    file = f"{NAME}_coco-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    with serving() as server:
        server.repositories["torch/vision"] = {file: content[:-1]}
        address = f"{server.url}/torch/vision/resolve/main/{file}"
        monkeypatch.setitem(OFFICIAL_WEIGHTS, NAME, OfficialFile(file, address=address))
        where = re.escape(
            f"; try again, or fetch it by other means and put it at {tmp_path / file}"
        )
        with pytest.raises(
            DownloadError, match=f"cannot download {address}: invalid hash.*{where}"
        ):
            checkpoint_module.resolve_weights(NAME)  # other bytes
        assert not list((tmp_path / "torch").rglob("*.*"))
        server.repositories["torch/vision"] = {file: content}
        model = load_model(NAME)
        asked = len(server.requests)
        checkpoint_module.resolve_weights(NAME)
        assert len(server.requests) == asked
    assert [path.name for path in (tmp_path / "torch").rglob("*.*")] == [file]
    bias = published.roi_heads.box_predictor.cls_score.bias
    ours = model.network.roi_heads.box_predictor.cls_score.bias
    assert torch.equal(ours, bias[[0, *COCO_CLASSES.category_ids]])
    assert not model.training


def test_no_weights_for_the_deeper_one() -> None:
    with pytest.raises(FileNotFoundError, match=rf"a preset without trained weights; .*{NAME}"):
        load_model("maskrcnn_resnet101_fpn")
