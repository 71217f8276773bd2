"""Mask re-scoring: predict the IoU of a mask with its object (YOLACT++, mask re-scoring)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from layers.blocks import init_convolutions

WIDTHS = (1, 8, 16, 32, 64, 128)


class MaskRescorer(nn.Module):
    """Predict the IoU of a soft mask, cropped by its box, with the ground truth.

    Args:
        num_classes: foreground classes, C.
    """

    # Smallest input side for five unpadded 3x3 convolutions of stride 2.
    minimum_side = 63

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)
        )
        self.classify = nn.Conv2d(WIDTHS[-1], num_classes, 1)
        init_convolutions(self)

    def forward(self, soft_masks: Tensor, labels: Tensor) -> Tensor:
        """Predict the IoU of each mask.

        Args:
            soft_masks: (N, h, w) after sigmoid and crop.
            labels: (N,) 0-based.

        Returns:
            (N,) predicted IoU, at least 0.
        """
        if not len(soft_masks):
            return soft_masks.new_zeros(0)
        x = soft_masks[:, None]
        for conv in self.convs:
            x = F.relu(conv(x))
        quality = F.relu(self.classify(x)).amax(dim=(2, 3))  # (N, C)
        return quality.gather(1, labels[:, None]).squeeze(1)
