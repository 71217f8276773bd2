"""Modules and initialisers that several parts of the network share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torchvision
from torch import Tensor, nn


class DeformableConv2d(nn.Conv2d):
    """Modulated deformable 3x3 convolution, DCNv2 (Zhu et al. 2019), of YOLACT++.

    Offsets start at zero and modulation at one half: a fresh layer is a plain convolution at half
    strength.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__(
            in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation
        )
        self.offset_mask = nn.Conv2d(  # 18 offsets and 9 modulations
            in_channels, 27, 3, stride=stride, padding=dilation, dilation=dilation
        )
        nn.init.zeros_(self.offset_mask.weight)
        zero_bias(self.offset_mask)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, in, h, w) at the learned sampling points, in float32."""
        offset_mask = self.offset_mask(x).float()  # (B, 27, h', w')
        # torchvision has no gradient of this operator for Apple GPUs, and none at all before 0.23.
        device = torch.device("cpu") if x.device.type == "mps" else x.device
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = torchvision.ops.deform_conv2d(
                x.float().to(device),
                offset_mask[:, :18].to(device),  # (y, x) for each of the nine taps
                self.weight.float().to(device),
                None if self.bias is None else self.bias.float().to(device),
                self.stride,
                self.padding,
                self.dilation,
                mask=offset_mask[:, 18:].sigmoid().to(device),
            )
        return out.to(x.device)


def zero_bias(conv: nn.Conv2d) -> None:
    """Zero the bias where there is one."""
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def conv_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a padded 3x3 convolution with ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True))


def init_convolutions(module: nn.Module) -> None:
    """Set Xavier-uniform weights and zero biases in every convolution, as the original does."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.xavier_uniform_(child.weight)
            zero_bias(child)


def spare_copies(module: nn.Module) -> None:
    """Let activations whose gradient needs their input write their output elsewhere.

    In place, PyTorch would copy that input first. The values stay the same.
    """
    for child in module.modules():
        if isinstance(child, (nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Mish)):
            child.inplace = False


def batch_norms(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every batch norm of a module, of any kind, with its name."""
    for name, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            yield name, child
