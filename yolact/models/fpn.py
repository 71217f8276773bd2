"""Feature pyramid network (Lin et al. 2017) in YOLACT's form (sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from layers.blocks import init_convolutions


class FeaturePyramid(nn.Module):
    """Merge C3..C5 top-down into P3..P5, then downsample to P6 and P7.

    Args:
        in_channels: channels of C3, C4 and C5.
        channels: channels of every level.
        relu_levels: number of levels, from P3 on, that end in a ReLU. The released weights are
            trained with one after P3..P5, but none after P6 and P7.
        p6_source: the level that P6 is computed from.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        relu_levels: int = 3,
        p6_source: Literal["p5", "c5"] = "p5",
    ) -> None:
        super().__init__()
        self.relu_levels, self.p6_source = relu_levels, p6_source
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        )
        widths = (in_channels[-1] if p6_source == "c5" else channels, channels)
        self.downsample = nn.ModuleList(
            nn.Conv2d(width, channels, 3, stride=2, padding=1) for width in widths
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
        levels: list[Tensor] = []
        for output, x in zip(self.output, merged, strict=True):
            levels.append(self._finished(output(x), len(levels)))
        x = features[-1] if self.p6_source == "c5" else levels[-1]
        for downsample in self.downsample:
            x = self._finished(downsample(x), len(levels))
            levels.append(x)
        return levels

    def extra_repr(self) -> str:
        """Show the settings that no layer shows: cached conversions are found by this text."""
        return f"relu_levels={self.relu_levels}, p6_source={self.p6_source}"

    def _finished(self, x: Tensor, index: int) -> Tensor:
        return F.relu(x) if index < self.relu_levels else x
