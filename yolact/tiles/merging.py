"""The masks of joined pieces, on grids of one size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from layers.native import Window

from .pieces import Piece, longer_side

CELLS = 2**24
"""Maximum number of cells of all masks of an image together, of four bytes each: 64 MB."""


class Grid(NamedTuple):
    """Cells over a part of the image: corner and cell size in pixels, columns and rows."""

    x: float
    y: float
    dx: float
    dy: float
    width: int
    height: int


def best_pieces(pieces: Sequence[Piece]) -> list[Piece]:
    """Drop pieces that the view of a better piece of the object shows as well; best first.

    A piece that is whole in its view is better, then one from a finer view, then one with a higher
    score. So a cut or coarse mask is used only for parts that no other piece shows.
    """
    kept: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: (p.is_cut, longer_side(p.view), -p.score)):
        if not any(piece.is_seen_by(other.view) for other in kept):
            kept.append(piece)
    return kept


def merge_masks(
    objects: Sequence[Sequence[Piece]], most_cells: int = CELLS
) -> tuple[Tensor, Tensor]:
    """Unite the masks of each of N objects, and put them on grids of one size.

    A single piece keeps its own cells, so no pixel changes. Several pieces are sampled on the grid
    of the finest, extended over the others. All N grids have as many cells as the largest object
    needs; if these are too many, large objects are shrunk by area averaging: to 409 cells a side
    with 100 objects, to 129 with 1000, to 40 with 10,000. Objects with fewer cells lose none.
    docs/large_images.md describes the effect on pixels.

    Args:
        objects: one or more pieces of each object.
        most_cells: maximum number of cells of all masks together.

    Returns:
        Soft masks (N, h, w) and their frames (N, 4), as `Instances` keeps them.
    """
    grids = [_common_grid(pieces) for pieces in objects]
    height = max((grid.height for grid in grids), default=1)
    width = max((grid.width for grid in grids), default=1)
    if len(grids) * height * width > most_cells:
        side = max(math.isqrt(most_cells // len(grids)), 1)
        height, width = min(height, side), min(width, side)
    soft_masks = torch.zeros((len(grids), height, width))
    frames = torch.zeros((len(grids), 4))
    for index, (pieces, grid) in enumerate(zip(objects, grids, strict=True)):
        cells, grid = _shrunk(_merge(pieces, grid), grid, height, width)
        # Pad with empty cells on the side where the mask has ended; where it reaches the border,
        # they cost half a cell of it, as they do at the second of two opposite borders.
        top = height - grid.height if (cells[-1] > 0.5).any() else 0
        left = width - grid.width if (cells[:, -1] > 0.5).any() else 0
        soft_masks[index, top : top + grid.height, left : left + grid.width] = cells
        x, y = grid.x - left * grid.dx, grid.y - top * grid.dy
        frames[index] = torch.tensor((x, y, x + width * grid.dx, y + height * grid.dy))
    return soft_masks, frames


def _grid_of(piece: Piece) -> Grid:
    height, width = piece.soft_mask.shape
    x1, y1, x2, y2 = piece.frame.tolist()
    return Grid(x1, y1, (x2 - x1) / width, (y2 - y1) / height, width, height)


def _common_grid(pieces: Sequence[Piece]) -> Grid:
    """Return the grid of the finest piece, extended by whole cells over the others."""
    grids = [_grid_of(piece) for piece in pieces]
    x, y, dx, dy, width, height = min(grids, key=lambda grid: grid.dx * grid.dy)
    if len(grids) > 1:
        x, width = _extended(x, dx, [(grid.x, grid.x + grid.width * grid.dx) for grid in grids])
        y, height = _extended(y, dy, [(grid.y, grid.y + grid.height * grid.dy) for grid in grids])
    return Grid(x, y, dx, dy, width, height)


def _extended(start: float, step: float, spans: Sequence[tuple[float, float]]) -> tuple[float, int]:
    """Return the start and number of cells that cover all spans, in steps from `start`."""
    before = math.ceil((start - min(low for low, _ in spans)) / step - 1e-3)
    first = start - before * step
    return first, math.ceil((max(high for _, high in spans) - first) / step - 1e-3)


def _merge(pieces: Sequence[Piece], grid: Grid) -> Tensor:
    """Sample soft masks on a grid, (h, w), and keep the largest value of each cell."""
    if len(pieces) == 1:
        return pieces[0].soft_mask
    cells = torch.zeros((grid.height, grid.width))
    corner = torch.tensor((grid.x, grid.y)).repeat(2)
    size = torch.tensor((grid.dx, grid.dy)).repeat(2)
    for piece in pieces:
        frame = (piece.frame - corner) / size
        x1, y1, x2, y2 = (int(side) for side in frame.round().tolist())  # centres inside
        part = cells[y1:y2, x1:x2]
        sampled = _sampled(piece.soft_mask, frame, (x1, y1, x2, y2))
        torch.maximum(part, sampled, out=part)
    return cells


def _shrunk(cells: Tensor, grid: Grid, height: int, width: int) -> tuple[Tensor, Grid]:
    """Average cells if there are more than `height` rows or `width` columns."""
    if grid.height <= height and grid.width <= width:
        return cells, grid
    height, width = min(grid.height, height), min(grid.width, width)
    small: NDArray[np.float32] = np.asarray(
        cv2.resize(cells.numpy(), (width, height), interpolation=cv2.INTER_AREA), np.float32
    )
    dx, dy = grid.dx * grid.width / width, grid.dy * grid.height / height
    return torch.from_numpy(small), Grid(grid.x, grid.y, dx, dy, width, height)


def _sampled(soft_mask: Tensor, frame: Tensor, window: Window) -> Tensor:
    """Sample a soft mask bilinearly at the centres of a window's cells; its edges are repeated.

    Args:
        soft_mask: (h, w).
        frame: (4,) xyxy in cells of the grid: the region that the soft mask covers.
        window: x1, y1, x2, y2 in whole cells of the grid.

    Returns:
        (y2 - y1, x2 - x1) float32.
    """
    x1, y1, x2, y2 = window
    left, top, right, bottom = frame.tolist()
    across = (torch.arange(x1, x2) + 0.5 - left) * (2 / (right - left)) - 1
    down = (torch.arange(y1, y2) + 0.5 - top) * (2 / (bottom - top)) - 1
    points = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)[None]
    cells = soft_mask[None, None]
    return F.grid_sample(cells, points, padding_mode="border", align_corners=False)[0, 0]
