"""MobileNetV3 (Howard et al. 2019) from torchvision: fewer operations than the smallest ResNet."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn

# The last blocks before the stride doubles, which are C3, C4 and C5, and their channels.
_STAGES = {
    "mobilenet_v3_large": ((6, 40), (12, 112), (15, 160)),
    "mobilenet_v3_small": ((3, 24), (8, 48), (11, 96)),
}


class MobileNetV3(nn.Module):
    """A torchvision MobileNetV3 without its last convolution and classifier.

    Args:
        name: "mobilenet_v3_large" or "mobilenet_v3_small".
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        net = getattr(torchvision.models, name)(weights=None)
        self.ends: tuple[int, ...] = tuple(end for end, _ in _STAGES[name])
        self.channels: tuple[int, ...] = tuple(channels for _, channels in _STAGES[name])
        self.features: nn.Sequential = net.features[: self.ends[-1] + 1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return C3, C4 and C5 for a (B, 3, S, S) image."""
        stages = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self.ends:
                stages.append(x)
        c3, c4, c5 = stages
        return c3, c4, c5
