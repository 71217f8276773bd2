"""Darknet-53 (Redmon and Farhadi 2018, YOLOv3)."""

from __future__ import annotations

from torch import Tensor, nn


def _conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1, inplace=True),
    )


class DarknetBlock(nn.Module):
    """A residual block: halve the channels, restore them, add the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm(channels, channels // 2, 1)
        self.conv2 = _conv_norm(channels // 2, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape, (B, channels, h, w)."""
        out: Tensor = self.conv2(self.conv1(x)) + x
        return out


class Darknet53(nn.Module):
    """Darknet-53 without its classifier: five stages, each halving the resolution."""

    channels: tuple[int, ...] = (256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_norm(3, 32, 3)
        self.stages = nn.ModuleList(
            nn.Sequential(
                _conv_norm(width // 2, width, 3, stride=2), *(DarknetBlock(width) for _ in range(n))
            )
            for width, n in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return C3, C4 and C5 for a (B, 3, S, S) image."""
        features = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[2], features[3], features[4]
