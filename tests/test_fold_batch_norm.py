"""Folding batch norm into convolutions: only what is known, and compared when it is done."""

from __future__ import annotations

import pytest
import torch

from layers.blocks import DeformableConv2d
from yolact.engines.pytorch import fold_batch_norm


class NormAndActivation(torch.nn.BatchNorm2d):
    """As timm's `BatchNormAct2d`: a batch norm that holds an activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


class ScaledConv(torch.nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class OneSize(torch.nn.Sequential):
    """Takes images of 16 x 16 alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + torch.zeros(16, 16))


class OtherOrder(torch.nn.Sequential):
    """Applies its norm before its convolution, which its children do not tell."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv, norm = self
        return conv(norm(x))


@pytest.mark.parametrize(
    ("block", "norms_left"),
    [
        (torch.nn.Sequential(), 0),
        (torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3)), 0),
        (torch.nn.Sequential(DeformableConv2d(3, 3), torch.nn.BatchNorm2d(3)), 0),
        (torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), NormAndActivation(3)), 1),
        (
            torch.nn.Sequential(
                torch.nn.Conv2d(3, 3, 3),
                torch.nn.BatchNorm2d(3),
                torch.nn.Conv2d(3, 3, 3),
                NormAndActivation(3),
            ),
            1,
        ),
        (torch.nn.Sequential(ScaledConv(3, 3, 3), torch.nn.BatchNorm2d(3)), 1),
        (OneSize(torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3)), 1),
        (OtherOrder(torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3)), 1),
    ],
)
def test_only_what_is_known_is_folded(block: torch.nn.Module, norms_left: int) -> None:
    torch.manual_seed(0)
    for norm in block.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
            torch.nn.init.uniform_(norm.running_mean, -1, 1)
            torch.nn.init.uniform_(norm.weight, -2, 2)
    block.eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before, folded = block(x), fold_batch_norm(block)
        torch.testing.assert_close(folded(x), before, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(block(x), before)  # the original is left as it is
    left = sum(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert left == norms_left


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_told(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    block = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3)).eval()
    torch.nn.init.constant_(block[0].weight, value)
    assert fold_batch_norm(block) is block
    assert "not folded: the comparison failed: the outputs for random images are not finite" in (
        caplog.text
    )
