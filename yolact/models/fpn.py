"""Feature pyramid network (Lin et al. 2017) in YOLACT's form (sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from layers.blocks import init_convolutions


class FeaturePyramid(nn.Module):
    """Merge C3..C5 top-down into P3..P5, then stride further down to P6 and P7.

    Args:
        in_channels: channels of C3, C4 and C5.
        channels: channels of every level.
        extra_levels: levels beyond P5.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, extra_levels: int = 2) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        )
        self.downsample = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(extra_levels)
        )
        init_convolutions(self)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return P3..P7, (B, channels, h, w) each, for C3..C5."""
        merged: list[Tensor] = []
        for lateral, feature in zip(reversed(self.lateral), reversed(features), strict=True):
            x = lateral(feature)
            if merged:
                above = merged[0]
                x = x + F.interpolate(above, x.shape[-2:], mode="bilinear", align_corners=False)
            merged.insert(0, x)
        # ReLU after P3..P5 but not after P6 and P7: the released weights are trained so.
        levels = [F.relu(output(x)) for output, x in zip(self.output, merged, strict=True)]
        for downsample in self.downsample:
            levels.append(downsample(levels[-1]))
        return levels
