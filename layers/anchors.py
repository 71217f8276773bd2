"""Anchor boxes, one set for each cell of each pyramid level."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """Anchors of a feature pyramid, relative to the image (YOLACT sec. 4).

    Args:
        scales: for each level, the anchor sides in pixels of the S x S input.
        ratios: width / height of the anchors of every scale.
        image_size: S, the side that the scales refer to.
        square: keep the original's bug `h = w`, which YOLACT's released COCO weights are trained
            with: anchors become squares of side scale * sqrt(ratio).
    """

    def __init__(
        self,
        scales: Sequence[Sequence[float]],
        ratios: Sequence[float],
        image_size: int,
        square: bool,
    ) -> None:
        super().__init__()
        self.sizes = [_level_sizes(level, ratios, image_size, square) for level in scales]
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Place the anchors on the cells of each level.

        Args:
            features: (B, c, h, w) for each level, finest first.

        Returns:
            (P, 4) cxcywh relative float32, ordered by level, row, column, then anchor.
        """
        grids = tuple((feature.shape[-2], feature.shape[-1]) for feature in features)
        device = features[0].device
        if torch.compiler.is_compiling():
            return self.make(grids, device)
        key = (grids, device)
        anchors = self._cache.get(key)
        if anchors is None:
            anchors = self.make(grids, device)
            self._cache = {key: anchors}
        return anchors.clone()  # the caller may change its copy

    def make(self, grids: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """Return (P, 4) anchors, as `forward` does, for levels of the given (height, width)."""
        levels = [
            _level_anchors(height, width, sizes)
            for (height, width), sizes in zip(grids, self.sizes, strict=True)
        ]
        return torch.cat(levels).to(device)


def _level_sizes(
    scales: Sequence[float], ratios: Sequence[float], image_size: int, square: bool
) -> Tensor:
    """Return (A, 2) relative anchor widths and heights, ordered by scale, then ratio."""
    sizes = []
    for scale in scales:
        for ratio in ratios:
            width = scale * sqrt(ratio) / image_size
            height = width if square else scale / sqrt(ratio) / image_size
            sizes.append((width, height))
    return torch.tensor(sizes, dtype=torch.float32, device="cpu")


def _level_anchors(height: int, width: int, sizes: Tensor) -> Tensor:
    y = (torch.arange(height, dtype=torch.float32, device="cpu") + 0.5) / height
    x = (torch.arange(width, dtype=torch.float32, device="cpu") + 0.5) / width
    columns = (x[None, :, None], y[:, None, None], sizes[:, 0], sizes[:, 1])  # sizes: (A, 2)
    cells = (height, width, len(sizes))
    return torch.stack([column.expand(cells) for column in columns], dim=-1).reshape(-1, 4)
