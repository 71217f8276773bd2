"""ImageNet weights for backbones; the downloads are stood in for by files with the real names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from yolact import Yolact, build_model, get_config
from yolact.hub.client import DownloadError
from yolact.models.backbones import Darknet53
from yolact.training import pretrained
from yolact.training.pretrained import load_backbone


def model_with(backbone: str, interval: int = 0) -> Yolact:
    settings = (f"model.backbone={backbone}", f"model.deformable_interval={interval}")
    small = ("model.fpn_channels=8", "model.prototype_channels=8", "model.head_channels=8")
    return build_model(get_config("yolact_resnet18").override(*settings, *small))


def stand_in(monkeypatch: pytest.MonkeyPatch, backbone: str) -> dict[str, torch.Tensor]:
    """Let torchvision "download" random weights of the whole classifier."""
    torch.manual_seed(1)
    state: dict[str, torch.Tensor] = getattr(torchvision.models, backbone)().state_dict()
    weights = torchvision.models.get_model_weights(backbone)
    monkeypatch.setattr(weights, "get_state_dict", lambda *_, **__: state, raising=False)
    return state


@pytest.mark.parametrize(
    ("backbone", "interval", "sample"),
    [
        ("resnet18", 0, "layer4.1.conv2.weight"),
        ("resnet50", 0, "layer4.2.conv3.weight"),
        ("resnet50", 1, "layer3.0.conv2.weight"),  # of a deformable convolution
        ("mobilenet_v2", 0, "features.16.conv.2.weight"),
        ("mobilenet_v3_large", 0, "features.15.block.3.0.weight"),
        ("mobilenet_v3_small", 0, "features.11.block.3.0.weight"),
    ],
)
def test_torchvision_weights_fill_the_backbone(
    monkeypatch: pytest.MonkeyPatch, backbone: str, interval: int, sample: str
) -> None:
    state = stand_in(monkeypatch, backbone)
    model = model_with(backbone, interval)
    config = get_config("yolact_resnet18").override(f"model.backbone={backbone}")
    load_backbone(model, config.model)
    assert torch.equal(model.network.backbone.state_dict()[sample], state[sample])


def test_darknet_weights_fill_the_backbone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = Darknet53().state_dict()
    theirs = {
        name.replace("stages.", "layers.", 1).replace("stem.", "_preconv.", 1): tensor
        for name, tensor in state.items()
    }
    torch.save(theirs, tmp_path / "darknet53.pth")
    monkeypatch.setattr(pretrained, "fetch_weights", lambda name, folder: folder / f"{name}.pth")
    model = model_with("darknet53")
    load_backbone(model, get_config("yolact_darknet53").model, tmp_path)
    loaded = model.network.backbone.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_weights_of_another_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = stand_in(monkeypatch, "resnet18")
    del state["layer4.1.conv2.weight"]
    with pytest.raises(ValueError, match=r"do not fit this backbone, first at layer4.1.conv2"):
        load_backbone(model_with("resnet18"), get_config("yolact_resnet18").model)


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("invalid hash value")])
def test_without_a_download_it_says_where_to_put_the_file(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    weights = torchvision.models.get_model_weights("resnet18")
    monkeypatch.setattr(weights, "get_state_dict", fail, raising=False)
    with pytest.raises(DownloadError, match=r"put the file at .*resnet18.*pth by hand, or train"):
        load_backbone(model_with("resnet18"), get_config("yolact_resnet18").model)
