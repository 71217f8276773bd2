"""ProtoNet: the fully convolutional branch that makes prototype masks (YOLACT sec. 3.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from layers.blocks import init_convolutions


class ProtoNet(nn.Module):
    """Three 3x3 convolutions, twofold upsampling, one more, and a 1x1 convolution to K prototypes.

    Args:
        in_channels: channels of P3.
        channels: channels of the 3x3 convolutions.
        num_prototypes: K.
        align_corners: see `F.interpolate`, which upsamples.
    """

    def __init__(
        self, in_channels: int, channels: int, num_prototypes: int, align_corners: bool = False
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        widths = (in_channels, channels, channels, channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.refine = nn.Conv2d(channels, channels, 3, padding=1)
        self.project = nn.Conv2d(channels, num_prototypes, 1)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, K, 2h, 2w) prototypes >= 0 for a P3 of shape (B, in_channels, h, w)."""
        for conv in self.convs:
            x = F.relu(conv(x))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=self.align_corners)
        x = F.relu(self.refine(x))
        # ReLU leaves prototypes unbounded above: activations can be very confident (sec. 3.1).
        return F.relu(self.project(x))

    def extra_repr(self) -> str:
        """Show the settings that no layer shows, see `FeaturePyramid.extra_repr`."""
        return f"align_corners={self.align_corners}"
