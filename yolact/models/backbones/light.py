"""MobileNets from torchvision, V2 (Sandler et al. 2018) and V3 (Howard et al. 2019), for speed."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn

from layers.blocks import disable_inplace_activations

# Blocks with the outputs C3, C4 and C5, and their channels: for V3 the last before the stride
# doubles, for V2 those that YolactEdge uses.
_STAGES = {
    "mobilenet_v2": ((6, 32), (10, 64), (16, 160)),
    "mobilenet_v3_large": ((6, 40), (12, 112), (15, 160)),
    "mobilenet_v3_small": ((3, 24), (8, 48), (11, 96)),
}


class MobileNet(nn.Module):
    """A torchvision MobileNet without its last convolution and classifier.

    Args:
        name: "mobilenet_v2", "mobilenet_v3_large" or "mobilenet_v3_small".
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        net = getattr(torchvision.models, name)(weights=None)
        self.ends: tuple[int, ...] = tuple(end for end, _ in _STAGES[name])
        self.channels: tuple[int, ...] = tuple(channels for _, channels in _STAGES[name])
        self.features: nn.Sequential = net.features[: self.ends[-1] + 1]
        disable_inplace_activations(self.features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return C3, C4 and C5 for a (B, 3, S, S) image."""
        stages = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self.ends:
                stages.append(x)
        c3, c4, c5 = stages
        return c3, c4, c5
