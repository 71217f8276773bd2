"""The prediction head that all pyramid levels share (YOLACT sec. 3.2, fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from layers.blocks import conv_relu, init_convolutions


class PredictionHead(nn.Module):
    """Predict class logits, box deltas and mask coefficients for every anchor.

    Args:
        in_channels: channels of the pyramid levels.
        channels: channels of the shared convolution.
        num_anchors: A, anchors per cell.
        num_classes: C, foreground classes.
        num_prototypes: K.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_anchors: int,
        num_classes: int,
        num_prototypes: int,
    ) -> None:
        super().__init__()
        self.shared = conv_relu(in_channels, channels)
        self.classes = nn.Conv2d(channels, num_anchors * (num_classes + 1), 3, padding=1)
        self.boxes = nn.Conv2d(channels, num_anchors * 4, 3, padding=1)
        self.coefficients = nn.Conv2d(channels, num_anchors * num_prototypes, 3, padding=1)
        self.num_anchors = num_anchors
        init_convolutions(self)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return (B, P, C+1) class logits, (B, P, 4) box deltas and (B, P, K) coefficients."""
        logits, deltas, coefficients = [], [], []
        for level in levels:
            x = self.shared(level)
            logits.append(self._per_anchor(self.classes(x)))
            deltas.append(self._per_anchor(self.boxes(x)))
            coefficients.append(self._per_anchor(self.coefficients(x)))
        # tanh: prototypes can be subtracted as well as added (sec. 3.2)
        return torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(coefficients, 1).tanh()

    def _per_anchor(self, x: Tensor) -> Tensor:
        # (B, A*n, h, w) -> (B, h, w, A*n) -> (B, h*w*A, n)
        batch, channels = x.shape[:2]
        return x.permute(0, 2, 3, 1).reshape(batch, -1, channels // self.num_anchors)
