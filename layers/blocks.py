"""Modules and initialisers that several parts of the network share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn


class DeformableConv2d(nn.Conv2d):
    """Modulated deformable 3x3 convolution, DCNv2 (Zhu et al. 2019), as in YOLACT++.

    Offsets start at zero and modulation at 0.5: a new layer is a plain convolution, with its output
    halved.
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
        zero_bias(self)  # ImageNet weights do not replace it

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, in, h, w) at the learned sampling points, in float32.

        On a GPU, without gradients, products are in the type of x.
        """
        offset_mask = self.offset_mask(x).float()  # (B, 27, h', w')
        # (y, x) and the modulation for each of the nine taps.
        offsets, shares = offset_mask[:, :18], offset_mask[:, 18:].sigmoid()
        if _needs_own_sampling(x.device):
            with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
                if torch.is_grad_enabled():
                    return self._sampled(x.float(), offsets, shares)
                return self._gathered(x, offsets, shares)
        # For a NaN offset, torchvision would read out of bounds.
        offsets = offsets.masked_fill(offsets != offsets, 0)
        weight, bias = self.weight.float(), None if self.bias is None else self.bias.float()
        # torchvision has no gradient of this operator for Apple GPUs, and none at all before 0.23.
        device = torch.device("cpu") if x.device.type == "mps" else x.device
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = torchvision.ops.deform_conv2d(
                x.float().to(device),
                offsets.to(device),
                weight.to(device),
                None if bias is None else bias.to(device),
                self.stride,
                self.padding,
                self.dilation,
                mask=shares.to(device),
            )
        return out.to(x.device)

    def _sampled(self, x: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
        """Convolve with PyTorch's operators: sample at each tap of each output, then multiply.

        The product is in the weight's type, as in any other convolution.
        """
        height, width = x.shape[-2:]
        step, reach = self.stride[0], self.dilation[0]
        taps = torch.arange(9, device=x.device)[:, None, None]
        rows, columns = (
            torch.arange(size, device=x.device) * step - reach for size in offsets.shape[-2:]
        )
        y = offsets[:, 0::2] + taps // 3 * reach + rows[:, None]
        x_ = offsets[:, 1::2] + taps % 3 * reach + columns
        # (B, 9, h', w', 2) -> grid_sample's -1..1 from edge to edge, all taps below one another.
        points = torch.stack(((2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
        sampled = F.grid_sample(x, points.flatten(1, 2), align_corners=False)
        sampled = sampled.view(*x.shape[:2], *shares.shape[1:]) * shares[:, None]
        sampled = sampled.flatten(1, 2).flatten(2).to(self.weight.dtype)  # (B, in * 9, h' * w')
        out = (
            (self.weight.flatten(1) @ sampled)
            .float()
            .view(len(x), len(self.weight), *shares.shape[-2:])
        )
        return out if self.bias is None else out + self.bias.float()[:, None, None]

    def _gathered(self, x: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
        """Convolve as `_sampled`, faster but without gradients, with products in the type of x.

        Each sample is a weighted sum of four pixels, with the channels contiguous.
        """
        batch, channels, height, width = x.shape
        step, reach, device = self.stride[0], self.dilation[0], x.device
        rows, columns = (torch.arange(n, device=device) * step for n in offsets.shape[-2:])
        around = torch.arange(3, device=device) * reach - reach
        grid = torch.stack(
            (
                (rows[:, None, None, None] + around[:, None]).expand(-1, len(columns), 3, 3),
                (columns[:, None, None] + around).expand(len(rows), -1, 3, 3),
            )
        ).flatten(-2)  # (2, h', w', 9): y and x of each tap before it is moved
        offsets = offsets.view(batch, 9, 2, len(rows), len(columns))
        moved = offsets.permute(2, 0, 3, 4, 1) + grid[:, None]
        # The last pixel of each axis; points more than one pixel outside have weight 0.
        last = (torch.arange(2.0, device=device) * (width - height) + height - 1).view(
            2, 1, 1, 1, 1
        )
        moved = torch.minimum(moved.clamp(min=-1), last + 1)
        first = moved.floor()
        corners = torch.stack((first, first + 1), dim=-1)  # (2, B, h', w', 9, 2)
        nearness = 1 - (moved[..., None] - corners).abs()
        last = last[..., None]
        nearness = nearness.masked_fill((corners < 0) | (corners > last), 0)
        corners = torch.minimum(corners.clamp(min=0), last)
        share = nearness[0, ..., None] * nearness[1, ..., None, :]  # (B, h', w', 9, 2, 2)
        share = share * shares.permute(0, 2, 3, 1)[..., None, None]
        pixel = corners[0, ..., None] * width + corners[1, ..., None, :]
        image = torch.arange(batch, device=device).view(-1, 1, 1, 1, 1, 1) * (height * width)
        pixel = (pixel.long() + image).clamp(0, max(batch * height * width - 1, 0))  # not a number
        samples = F.embedding_bag(
            pixel.view(-1, 4),
            x.permute(0, 2, 3, 1).reshape(-1, channels),
            mode="sum",
            per_sample_weights=share.to(x.dtype).reshape(-1, 4),
        )
        weight = self.weight.permute(2, 3, 1, 0).reshape(9 * channels, -1).to(x.dtype)
        out = (samples.view(-1, 9 * channels) @ weight).float()
        out = out if self.bias is None else out + self.bias.float()
        return out.view(batch, len(rows), len(columns), len(self.weight)).permute(0, 3, 1, 2)


def _needs_own_sampling(device: torch.device) -> bool:
    """Tell whether torchvision's operator cannot be used on a device.

    On NVIDIA GPUs it may launch its kernels on the default stream instead of the current one, so
    that a CUDA graph misses them; for the "meta" device there is none.
    """
    if device.type != "cuda":
        return device.type == "meta"
    if torch.compiler.is_compiling():
        return True
    return torch.cuda.current_stream(device) != torch.cuda.default_stream(device)


def zero_bias(conv: nn.Conv2d) -> None:
    """Set the bias to zero, if there is one."""
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


def disable_inplace_activations(module: nn.Module) -> None:
    """Turn off in-place mode for activations whose gradient needs their input.

    In place, PyTorch would first copy that input. The values stay the same.
    """
    for child in module.modules():
        if isinstance(child, (nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Mish)):
            child.inplace = False


def batch_norms(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every batch norm of a module, of any kind, with its name."""
    for name, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            yield name, child
