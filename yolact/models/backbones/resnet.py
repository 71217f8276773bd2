"""ResNet (He et al. 2016) from torchvision, with deformable blocks for YOLACT++."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from layers.blocks import DeformableConv2d


class ResNet(nn.Module):
    """A torchvision ResNet without its classifier.

    Args:
        name: "resnet18", "resnet34", "resnet50" or "resnet101".
        deformable_interval: n > 0 makes the 3x3 convolution deformable in every n-th block of C3,
            C4 and C5, the first included, as in YOLACT++. Needs bottleneck blocks.

    Raises:
        ValueError: deformable blocks in a network without bottlenecks.
    """

    def __init__(self, name: str, deformable_interval: int = 0) -> None:
        super().__init__()
        net = getattr(torchvision.models, name)(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            net.layer1,
            net.layer2,
            net.layer3,
            net.layer4,
        )
        self.channels: tuple[int, ...] = tuple(net.fc.in_features // n for n in (4, 2, 1))
        if deformable_interval:
            for stage in (self.layer2, self.layer3, self.layer4):
                _make_deformable(stage, deformable_interval)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return C3, C4 and C5 for a (B, 3, S, S) image."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c3, c4, self.layer4(c4)


def _make_deformable(stage: nn.Sequential, interval: int) -> None:
    for block in list(stage)[::interval]:
        if not isinstance(block, Bottleneck):
            raise ValueError("deformable blocks need a backbone with bottlenecks, such as resnet50")
        conv = block.conv2
        block.conv2 = DeformableConv2d(conv.in_channels, conv.out_channels, conv.stride[0])
