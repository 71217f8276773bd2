"""How far the views of a picture agree about an object."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .pieces import Piece, is_cut


def agreement(
    pieces: Sequence[Piece], box: Tensor, views: Tensor, tile: int, image_hw: tuple[int, int]
) -> float:
    """Return what share of an object's highest score all views uphold that show it whole.

    They vote, as the models of weighted boxes fusion do (Solovyev et al. 2021): the mean of their
    scores counts, of none where they found nothing. A view that is shrunk to a tile has a vote in
    proportion to the pixels that are left: what the overview misses may be too small for it. Where
    none of them found it, those that found a part of it vote as well.

    Args:
        pieces: of one object, one or more.
        box: (4,) xyxy: of the piece that shows it best.
        views: (V, 4) xyxy: all that were looked at.
        tile: side of a tile in pixels.
        image_hw: height and width of the picture.

    Returns:
        In [0, 1]; 1 where no view shows all of it.
    """
    found: dict[tuple[int, ...], float] = {}
    for piece in pieces:
        found[piece.view] = max(found.get(piece.view, 0.0), piece.score)
    best = max(found.values())
    voting = ~is_cut(box, views, image_hw)
    if not voting.any() or not best:
        return 1.0
    scores = views.new_tensor([found.get(tuple(view), 0.0) for view in views.int().tolist()])
    scales = tile / (views[:, 2:] - views[:, :2]).amax(dim=1).clamp(min=tile)
    if not (voting & (scores > 0)).any():
        voting |= scores > 0
    votes = scales.square() * voting
    return float((votes * scores).sum() / votes.sum() / best)
