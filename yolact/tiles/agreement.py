"""How well the views of an image agree about an object."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .pieces import Piece, is_cut


def agreement(
    pieces: Sequence[Piece], box: Tensor, views: Tensor, tile: int, image_hw: tuple[int, int]
) -> float:
    """Return the mean score of all views that show an object whole, relative to its highest score.

    The views vote as the models in weighted boxes fusion do (Solovyev et al. 2021): a view that
    found nothing counts as score 0. A view that is shrunk to a tile has a weight in proportion to
    its remaining pixels, as the object may be too small for the overview. If none of these views
    found the object, the views that found a part of it vote as well.

    Args:
        pieces: one or more pieces of one object.
        box: (4,) xyxy of the piece that shows it best.
        views: (V, 4) xyxy of all views.
        tile: side of a tile in pixels.
        image_hw: height and width of the image.

    Returns:
        In [0, 1]; 1 if no view shows the whole object.
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
