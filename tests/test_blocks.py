from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from layers.blocks import (
    DeformableConv2d,
    batch_norms,
    conv_relu,
    disable_inplace_activations,
    init_convolutions,
    zero_bias,
)
from layers.sync_batch_norm import synchronise_batch_norm


def image(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 12, 14, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("std", [0.5, 1e30])  # beyond the edges, and as far as that
@pytest.mark.parametrize("learns", [True, False])
def test_sampling_by_pytorch_is_torchvisions(
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    stride: int,
    dilation: int,
    biased: bool,
    std: float,
    learns: bool,
) -> None:
    torch.manual_seed(0)
    conv = DeformableConv2d(3, 5, stride, dilation)
    nn.init.normal_(conv.offset_mask.weight, std=std)
    nn.init.normal_(conv.bias)
    if not biased:
        conv.bias = None
    expected = conv(image(batch))
    monkeypatch.setattr("layers.blocks._needs_own_sampling", lambda device: True)
    with torch.set_grad_enabled(learns):
        found = conv(image(batch))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, check_stride=False)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("by_itself", [True, False])
@pytest.mark.parametrize("learns", [True, False])
def test_what_is_not_a_number_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, value: float, by_itself: bool, learns: bool
) -> None:
    """Weights of a stranger's file may be anything; torchvision's operator crashed."""
    conv = DeformableConv2d(3, 5)
    nn.init.constant_(conv.offset_mask.bias, value)
    monkeypatch.setattr("layers.blocks._needs_own_sampling", lambda device: by_itself)
    with torch.set_grad_enabled(learns):
        assert conv(image()).shape == (2, 5, 12, 14)


@pytest.mark.parametrize("learns", [True, False])
def test_sampling_without_memory_has_a_shape(learns: bool) -> None:
    conv = DeformableConv2d(3, 5, stride=2).to("meta")
    with torch.set_grad_enabled(learns):
        found = conv(image().to("meta"))
    assert found.shape == DeformableConv2d(3, 5, stride=2)(image()).shape


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_a_fresh_deformable_convolution_is_half_a_plain_one(
    batch: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    conv = DeformableConv2d(3, 5, stride, dilation)
    assert conv.bias is not None
    assert not conv.bias.any()
    nn.init.normal_(conv.bias)
    plain = F.conv2d(image(batch), conv.weight, None, stride, dilation, dilation)
    expected = plain / 2 + conv.bias[:, None, None]
    torch.testing.assert_close(conv(image(batch)), expected, rtol=1e-4, atol=1e-5)


def test_modulation_scales_each_tap() -> None:
    conv = DeformableConv2d(3, 5)
    with torch.no_grad():
        conv.offset_mask.bias[18:] = -100.0  # sigmoid: 0
        conv.offset_mask.bias[18 + 4] = 100.0  # the centre tap: 1
    expected = F.conv2d(image(), conv.weight[:, :, 1:2, 1:2], conv.bias)
    torch.testing.assert_close(conv(image()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (1, 0), (0, 1), (-2, 1)])
def test_offsets_are_y_then_x_for_each_tap(dy: int, dx: int) -> None:
    conv = DeformableConv2d(3, 5)
    with torch.no_grad():
        conv.offset_mask.bias[0:18:2] = dy
        conv.offset_mask.bias[1:18:2] = dx
        conv.offset_mask.bias[18:] = 100.0
    shifted = F.conv2d(image().roll((-dy, -dx), (2, 3)), conv.weight, conv.bias, padding=1)
    inside = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    torch.testing.assert_close(conv(image())[inside], shifted[inside], rtol=1e-4, atol=1e-5)


def test_one_tap_moves_alone() -> None:
    conv = DeformableConv2d(3, 5)
    with torch.no_grad():
        conv.offset_mask.bias[18:] = 100.0
        conv.offset_mask.bias[2 * 5 + 1] = -1.0  # tap 5 is (centre row, right column): x by -1
    weight = conv.weight.detach().clone()
    weight[:, :, 1, 1] += weight[:, :, 1, 2]
    weight[:, :, 1, 2] = 0
    expected = F.conv2d(image(), weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(image())[..., :-1], expected[..., :-1], rtol=1e-4, atol=1e-5)


def test_deformable_convolution_computes_in_float32_under_autocast() -> None:
    conv = DeformableConv2d(3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = conv(image())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, conv(image()), rtol=1e-4, atol=1e-5)


def test_deformable_convolution_takes_half_precision() -> None:
    conv, low = DeformableConv2d(3, 5), image().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = conv(low)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, conv(low.float()), rtol=1e-4, atol=1e-5)


def test_gradients_reach_offsets_and_modulation() -> None:
    conv = DeformableConv2d(3, 5)
    conv(image()).square().sum().backward()
    gradient = conv.offset_mask.weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient[:18].abs().sum() > 0
    assert gradient[18:].abs().sum() > 0


def test_conv_relu() -> None:
    out = conv_relu(3, 7)(image())
    assert out.shape == (2, 7, 12, 14)
    assert out.min() == 0


def test_init_convolutions() -> None:
    module = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Sequential(nn.Conv2d(16, 4, 1, bias=False)))
    with torch.no_grad():
        module[0].weight.fill_(9)
        module[0].bias.fill_(9)
    init_convolutions(module)
    bound = (6 / (9 * (8 + 16))) ** 0.5  # Xavier
    assert module[0].bias.abs().max() == 0
    assert 0.8 * bound < module[0].weight.abs().max() <= bound


def test_zero_bias() -> None:
    zero_bias(nn.Conv2d(1, 1, 1, bias=False))
    conv = nn.Conv2d(1, 4, 1)
    zero_bias(conv)
    assert conv.bias is not None
    assert conv.bias.tolist() == [0, 0, 0, 0]


def test_batch_norms_of_any_kind() -> None:
    assert list(batch_norms(nn.Conv2d(3, 4, 1))) == []
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm1d(2)))
    assert [name for name, _ in batch_norms(module)] == ["1.0", "1.1"]


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"affine": False}, {"momentum": None}, {"momentum": 0.5}),
        *({"track_running_stats": False}, {"kind": BatchNormAct2d}),
        {"kind": BatchNormAct2d, "act_layer": nn.Hardswish, "momentum": 0.5},
    ],
    ids=repr,
)
def test_synchronised_batch_norm_of_one_process(one_process: None, options: dict[str, Any]) -> None:
    kind = options.get("kind", nn.BatchNorm2d)
    others = {name: value for name, value in options.items() if name != "kind"}
    plain, ours = (nn.Sequential(kind(3, **others)) for _ in range(2))
    synchronise_batch_norm(ours)
    assert type(ours[0]) is not kind
    for seed in range(3):
        x = 5 * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) + 2
        first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
        for module, image in ((plain, first), (ours, second)):
            module.zero_grad()
            module(image).pow(3).sum().backward()
        torch.testing.assert_close(ours(x), plain(x))
        assert first.grad is not None
        torch.testing.assert_close(second.grad, first.grad, rtol=1e-3, atol=1e-3)
        for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


def test_only_plain_batch_norm_is_synchronised() -> None:
    class WithActivation(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    model = nn.Sequential(WithActivation(3), nn.Sequential(nn.BatchNorm2d(3)), nn.GroupNorm(1, 3))
    kinds = [type(module) for module in model.modules()]
    synchronise_batch_norm(model)
    changed = [type(m) is not kind for m, kind in zip(model.modules(), kinds, strict=True)]
    assert changed == [False, False, False, True, False]


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Mish, nn.ReLU],
)
def test_activations_are_the_same_without_copies(activation: type[nn.Module]) -> None:
    outputs, gradients = [], []
    for spared in (False, True):
        block = nn.Sequential(nn.Conv2d(2, 3, 1), activation(inplace=True))  # type: ignore[call-arg]
        for parameter in block.parameters():
            nn.init.constant_(parameter, 0.7)
        if spared:
            disable_inplace_activations(block)
        x = torch.linspace(-9, 9, 40).view(1, 2, 4, 5).requires_grad_()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            outputs.append(block(x))
        clones = [event for event in profiler.events() or () if event.name == "aten::clone"]
        assert bool(clones) == (not spared and activation is not nn.ReLU)
        outputs[-1].sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_nothing_has_nothing_to_spare() -> None:
    disable_inplace_activations(nn.Sequential())
