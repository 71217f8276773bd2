"""Pictures of a mask's linear combination: prototypes by weight, and their running sum."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.images import Image

from .detections import DARK, FONT, WHITE

_TILE = 118  # width of a prototype in an explanation


def draw_lincomb(prototypes: Tensor, coefficients: Tensor, mask: Tensor) -> Image:
    """Draw how one mask results from its prototypes by weight, and their running sum.

    Each step shows the weighted prototype above the sum so far, red for positive values (object)
    and blue for negative ones (not the object). The last step is the mask itself.

    Args:
        prototypes: (K, h, w) after ReLU.
        coefficients: (K,) in [-1, 1].
        mask: (h, w) soft or bool mask of the detection.

    Returns:
        An uint8 RGB picture, whose size depends on the number of prototypes.
    """
    weights = coefficients.detach().float().cpu().numpy()
    order = np.argsort(-np.abs(weights), kind="stable")
    grids = prototypes.detach().float().cpu().numpy()[order] * weights[order, None, None]
    sums = np.cumsum(grids, axis=0)
    # One colour scale for all parts, another for all sums, so that tiles can be compared.
    part_range, sum_range = (float(np.abs(x).max(initial=0)) or 1.0 for x in (grids, sums))
    steps = [
        _step(f"#{k} {weights[k]:+.2f}", diverging(part, part_range), diverging(total, sum_range))
        for k, part, total in zip(order, grids, sums, strict=True)
    ]
    grey = (255 * mask.detach().float()).byte().cpu().numpy()
    likely = sums[-1] if len(sums) else np.zeros(mask.shape, np.float32)
    steps.append(_step("sum, mask", diverging(likely, sum_range), np.stack([grey] * 3, axis=2)))
    grid = _grid(steps, columns=max(4, math.ceil(math.sqrt(2 * len(steps)))))
    legend = "above: prototype x weight, below: sum so far (red for the object, blue against)"
    return np.concatenate((_text_line(legend, grid.shape[1]), grid))


def diverging(values: NDArray[np.float32], limit: float) -> Image:
    """Colour numbers blue (-limit) over white (0) to red (+limit).

    Args:
        values: (h, w).
        limit: magnitude of the full colours.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    strength = np.clip(np.abs(values) / limit, 0, 1)[..., None]
    ends = np.where(values[..., None] > 0, np.array((200, 20, 40)), np.array((30, 70, 200)))
    return (255 + (ends - 255) * strength).round().astype(np.uint8)


def _step(caption: str, above: Image, below: Image) -> Image:
    """Stack a caption and two tiles of one size."""
    side = (_TILE, _TILE * above.shape[0] // above.shape[1])
    tiles = [cv2.resize(tile, side, interpolation=cv2.INTER_AREA) for tile in (above, below)]
    framed = [np.pad(t, ((1, 1), (1, 1), (0, 0)), constant_values=170) for t in tiles]
    column = np.concatenate((_text_line(caption, framed[0].shape[1]), *framed))
    return column.astype(np.uint8, copy=False)


def _text_line(text: str, width: int) -> Image:
    line = np.full((22, width, 3), WHITE, np.uint8)
    cv2.putText(line, text, (4, 16), FONT, 0.42, DARK, 1, cv2.LINE_AA)
    return line


def _grid(tiles: list[Image], columns: int) -> Image:
    """Arrange tiles of one size row by row on white, with a gap."""
    tiles = [np.pad(tile, ((4, 4), (4, 4), (0, 0)), constant_values=255) for tile in tiles]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)
