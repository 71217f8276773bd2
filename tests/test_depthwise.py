"""The faster gradients of depthwise convolutions are PyTorch's."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_timm import small_config
from torch import Tensor

from layers.native import load_kernels
from layers.structures import Target
from yolact import build_model
from yolact.models.depthwise import DepthwiseGradients

pytestmark = pytest.mark.skipif(load_kernels() is None, reason="the kernels are not compiled")

CASES = [  # (B, C, H, W), kernel, stride, padding
    ((0, 16, 9, 9), 5, 1, 2),
    ((2, 16, 9, 9), 5, 1, 2),
    ((2, 20, 13, 17), 5, 1, 2),  # channels that do not fill the last vector
    ((3, 33, 14, 15), 5, 2, 0),  # the last row and column are beside every kernel
    ((2, 16, 11, 10), 5, 2, 2),
    ((2, 40, 7, 7), 5, 1, 4),
    ((1, 7, 3, 3), 7, 1, 3),  # a kernel larger than the image
    ((3, 16, 9, 8), 3, 2, 1),
    ((3, 16, 9, 8), 3, 1, 1),
]

TARGET = Target(
    torch.tensor([[8.0, 8.0, 40.0, 48.0]]),
    torch.zeros(1, dtype=torch.int64),
    torch.ones(1, 64, 64, dtype=torch.bool),
    torch.zeros(1, dtype=torch.bool),
)


def learned(
    case: Any, precision: torch.dtype, memory_format: torch.memory_format, ours: bool
) -> list[Tensor]:
    """Return the result of a convolution, and the gradients of x, weight and bias."""
    shape, size, stride, padding = case
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.randn(shape[1], 1, size, size, requires_grad=True)
    bias = torch.randn(shape[1], requires_grad=True)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16),
        DepthwiseGradients() if ours else nullcontext(),
    ):
        out = F.conv2d(x, weight, bias, *((n, n) for n in (stride, padding, 1)), shape[1])
    assert out.dtype == precision
    gradients = torch.autograd.grad(out, (x, weight, bias), torch.randn(out.shape).to(precision))
    return [out.detach(), *gradients]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_gradients_are_pytorchs(
    case: Any,
    precision: torch.dtype,
    tolerance: float,
    memory_format: torch.memory_format,
    threads: int,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expected, found = (learned(case, precision, memory_format, ours) for ours in (False, True))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(expected, found, strict=True):
        scale = float(one.abs().max()) if one.numel() else 1.0
        torch.testing.assert_close(other, one, rtol=0, atol=tolerance * scale, check_stride=False)


@pytest.mark.parametrize(
    ("settings", "is_ours"),
    [
        ({}, True),
        ({"x_learns": False}, True),
        ({"learns": False}, False),  # as in a frozen backbone
        ({"size": 3}, False),  # PyTorch is fast at it
        ({"size": 3, "stride": (2, 2), "dtype": torch.bfloat16}, True),
        ({"size": 3, "stride": (2, 2)}, False),
        ({"dtype": torch.float64}, False),
        ({"stride": (1, 2)}, False),
        ({"padding": (2, 1)}, False),
        ({"padding": (5, 5)}, False),
        ({"padding": "same"}, False),
        ({"stride": 1, "padding": 2}, False),  # numbers for both directions
        ({"dilation": (2, 2)}, False),
        ({"groups": 4}, False),
        ({"wide": 2}, False),  # two results for each channel
    ],
)
def test_others_are_left_to_pytorch(settings: dict[str, Any], is_ours: bool) -> None:
    case = {"size": 5, "stride": (1, 1), "padding": (2, 2), "dilation": (1, 1), "groups": 8}
    case |= {"x_learns": True, "learns": True, "wide": 1, "dtype": torch.float32} | settings
    x = torch.randn(2, 8, 9, 9, dtype=case["dtype"], requires_grad=case["x_learns"])
    shape = (8 * case["wide"], 8 // case["groups"], case["size"], case["size"])
    weight = torch.randn(shape, dtype=case["dtype"], requires_grad=case["learns"])
    with DepthwiseGradients():
        names = ("stride", "padding", "dilation", "groups")
        out = F.conv2d(x, weight, None, *(case[name] for name in names))
    assert out.grad_fn is not None
    assert ("Depthwise" in out.grad_fn.name()) == is_ours
    out.sum().backward()
    assert (weight.grad is not None) == case["learns"]


def test_without_kernels_pytorch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolact.models.depthwise.load_kernels", lambda: None)
    x, weight = torch.randn(2, 8, 9, 9), torch.randn(8, 1, 5, 5, requires_grad=True)
    with DepthwiseGradients():
        out = F.conv2d(x, weight, None, (1, 1), (2, 2), (1, 1), 8)
    assert out.grad_fn is not None
    assert "Depthwise" not in out.grad_fn.name()


@pytest.mark.parametrize("backbone", ["timm/tf_efficientnet_lite0", "timm/convnextv2_atto"])
def test_a_model_learns_by_them(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = build_model(small_config(backbone)).train()
        images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
        losses = model(images, [TARGET] * 2)
        torch.stack(list(losses.values())).sum().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    found = gradients()
    monkeypatch.setattr("yolact.models.yolact.DepthwiseGradients", nullcontext)
    expected = gradients()
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-3 * scale)
    assert any(not torch.equal(found[name], gradient) for name, gradient in expected.items())
