"""Segment a large image tile by tile, and merge the results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, repeat
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

from data.images import Image
from layers.native import Window
from yolact.errors import OptionError
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds, check_count
from yolact.sources.pixels import Pixels
from yolact.threads import map_ahead

from .agreement import agreement
from .matching import group_pieces
from .merging import best_pieces, merge_masks
from .pieces import Piece, pieces_of
from .views import read_view, tile_windows

LEAST = 0.5
"""In single views, objects down to this share of the score threshold are considered, too."""
GPU_BATCH = 8
"""Tiles per batch on a GPU; a CPU runs tiles one by one, in several threads."""


class TilePredictor(Protocol):
    """The part of `Predictor` that tiles need."""

    workers: int

    @property
    def device(self) -> torch.device:
        """The device where it computes."""

    def segment(self, images: Sequence[Image], thresholds: Thresholds) -> list[Detections]:
        """Segment a batch of images."""

    def for_many(self) -> TilePredictor:
        """Return a predictor that `workers` threads share."""


@dataclass(frozen=True)
class Tiling:
    """How a large image is divided into tiles.

    Attributes:
        tile: side of a tile in pixels, or, below 1, as a part of the image's longer side.
        overlap: minimum overlap of neighbouring tiles, as a share of a side, 0 to 0.9.
        overview: also segment the whole image, shrunk to a tile: for objects larger than a tile.
        max_pixels: refuse larger files; None for `data.images.MAX_PIXELS`.

    Raises:
        OptionError: a value out of range.
    """

    tile: float = 1024
    overlap: float = 0.2
    overview: bool = True
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.tile, Real) and 0 < self.tile < 1):
            check_count("tile", self.tile, "or a part of the longer side below 1, as 0.5")
        if self.max_pixels is not None:
            check_count("max_pixels", self.max_pixels)
        if not 0 <= self.overlap <= 0.9:
            raise OptionError("overlap", self.overlap, "expected a number from 0 to 0.9")

    def side(self, image_hw: tuple[int, int]) -> int:
        """Return the side of an image's tiles in pixels."""
        return max(round(self.tile if self.tile >= 1 else self.tile * max(image_hw)), 1)

    def views(self, image_hw: tuple[int, int]) -> list[Window]:
        """Return the parts of an image to segment; only the whole, if no larger than a tile."""
        tiles = tile_windows(image_hw, self.side(image_hw), self.overlap)
        whole = (0, 0, image_hw[1], image_hw[0])
        return [*tiles, whole] if self.overview and len(tiles) > 1 else tiles


def in_tiles(
    predictor: TilePredictor, images: Sequence[Image], tiling: Tiling, thresholds: Thresholds
) -> list[Detections]:
    """Segment images one after another, each as `segment_tiled` does."""
    return [segment_tiled(predictor, image, tiling, thresholds) for image in images]


def segment_tiled(
    predictor: TilePredictor, image: Pixels, tiling: Tiling, thresholds: Thresholds
) -> Detections:
    """Segment an image that may be far larger than the network's input, or than memory.

    Each thread holds one batch of tiles at a time. For the objects found, only the cells of their
    trimmed masks are kept until all are merged.

    Args:
        predictor: finds the objects of a tile.
        image: an image no larger than a tile is segmented whole.
        tiling: how the image is divided.
        thresholds: which objects of the whole image count.

    Returns:
        The objects of the whole image, each once.
    """
    image_hw = image.shape[0], image.shape[1]
    views, side = tiling.views(image_hw), tiling.side(image_hw)
    if len(views) == 1:
        return predictor.segment([read_view(image, views[0], side)], thresholds)[0]
    every = replace(thresholds, score=LEAST * thresholds.score, top_k=None, min_area=0)
    many = predictor.for_many()

    def look(batch: Sequence[Window]) -> tuple[list[Piece], Detections]:
        found = many.segment([read_view(image, view, side) for view in batch], every)
        pieces = map(pieces_of, found, batch, repeat(image_hw))
        return list(chain.from_iterable(pieces)), found[0][:0]

    step = 1 if many.device.type == "cpu" else GPU_BATCH
    batches = [views[start : start + step] for start in range(0, len(views), step)]
    with closing(map_ahead(look, batches, many.workers, ahead=many.workers)) as results:
        pieces, nothing = zip(*results, strict=True)
    objects = group_pieces(list(chain.from_iterable(pieces)))
    # Coefficients would refer to the prototypes of one tile.
    alike = replace(nothing[0], image_hw=image_hw, coefficients=None)
    found = _detections(objects, torch.tensor(views, dtype=torch.float32), side, alike)
    return replace(thresholds, drop_empty=False).select(found)  # empty ones went in the tiles


def _detections(
    objects: Sequence[Sequence[Piece]], views: Tensor, tile: int, nothing: Detections
) -> Detections:
    """Merge each group of pieces into one object, best first; all else is as in `nothing`."""
    if not objects:
        return nothing
    best = [max(pieces, key=lambda piece: piece.score) for pieces in objects]
    kept = [best_pieces(pieces) for pieces in objects]
    shares = torch.tensor(
        [
            agreement(pieces, shown[0].box, views, tile, nothing.image_hw)
            for pieces, shown in zip(objects, kept, strict=True)
        ]
    )
    corners = [torch.stack([piece.box for piece in pieces]) for pieces in kept]
    soft_masks, frames = merge_masks(kept)
    found = replace(
        nothing,
        boxes=torch.stack([torch.cat((b[:, :2].amin(0), b[:, 2:].amax(0))) for b in corners]),
        scores=shares * torch.tensor([piece.score for piece in best]),
        labels=torch.tensor([piece.label for piece in best]),
        soft_masks=soft_masks,
        mask_frames=frames,
        box_scores=shares * torch.tensor([piece.box_score for piece in best]),
    )
    return found.sort()
