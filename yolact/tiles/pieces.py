"""Objects as single views of an image show them: whole, or cut by the border of a view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layers.instances import Instances
from layers.native import Window
from layers.paste import bitmap, mask_window

NEAR = 1 / 20
"""A box touches the border of a view if it ends within this share of the view's side from it."""


@dataclass(frozen=True, eq=False)
class Piece:
    """An object as one view shows it, in pixels of the whole image.

    Attributes:
        view: x1, y1, x2, y2 of the view.
        label: 0-based.
        score: in [0, 1].
        box_score: class probability before mask re-scoring.
        box: (4,) xyxy.
        soft_mask: (h, w) in [0, 1], no larger than the object.
        frame: (4,) xyxy: the region that the soft mask covers.
        window: whole pixels that contain the mask, or the box if there is no mask.
        is_cut: the box touches a border of the view inside the image: the object may continue.
    """

    view: Window
    label: int
    score: float
    box_score: float
    box: Tensor
    soft_mask: Tensor
    frame: Tensor
    window: Window
    is_cut: bool

    def pixels(self, window: Window) -> NDArray[np.bool_]:
        """Return the mask in a part of its window; without a mask, all pixels of the box."""
        if not (self.soft_mask > 0.5).any():
            return np.ones((window[3] - window[1], window[2] - window[0]), np.bool_)
        return bitmap(self.soft_mask, self.frame, window).numpy()

    def is_seen_by(self, view: Window) -> bool:
        """Tell whether a view shows all of the piece, except for parts `NEAR` the view's border."""
        margin = NEAR * longer_side(view)
        return bool((room_inside(self.box, torch.tensor(view)) >= -margin).all())


def room_inside(boxes: Tensor, views: Tensor) -> Tensor:
    """Return how far inside views (..., 4) boxes end: left, top, right, bottom, in pixels."""
    return torch.cat((boxes[..., :2] - views[..., :2], views[..., 2:] - boxes[..., 2:]), dim=-1)


def is_cut(boxes: Tensor, views: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Tell which (..., 4) boxes touch a border of their view that is inside the image.

    Args:
        boxes: xyxy in pixels of the image.
        views: (4,), or one view for each box.
        image_hw: height and width of the image.
    """
    inner = room_inside(views, views.new_tensor((0, 0, *image_hw[::-1]))) > 0
    near = NEAR * (views[..., 2:] - views[..., :2]).amax(dim=-1, keepdim=True)
    return ((room_inside(boxes, views) <= near) & inner).any(dim=-1)


def pieces_of(found: Instances, view: Window, image_hw: tuple[int, int]) -> Iterator[Piece]:
    """Yield the objects found in a view, in coordinates of the whole image.

    Args:
        found: N objects, in pixels of the view as the network saw it, perhaps shrunk.
        view: x1, y1, x2, y2 in the image.
        image_hw: height and width of the image.
    """
    x1, y1, x2, y2 = view
    scale = torch.tensor(((x2 - x1) / found.image_hw[1], (y2 - y1) / found.image_hw[0])).repeat(2)
    corner = torch.tensor((x1, y1)).repeat(2)
    boxes = found.boxes * scale + corner
    values = zip(
        found.labels.tolist(),
        found.scores.tolist(),
        found.box_scores.tolist(),
        is_cut(boxes, torch.tensor(view), image_hw).tolist(),
        strict=True,
    )
    for index, (label, score, box_score, cut) in enumerate(values):
        soft_mask, frame = trim_mask(found.soft_masks[index], found.mask_frames[index])
        frame = frame * scale + corner
        box = boxes[index]
        window = _window(soft_mask, frame, box, image_hw, found.crop_to_boxes)
        yield Piece(view, label, score, box_score, box, soft_mask, frame, window, cut)


def _window(
    soft_mask: Tensor, frame: Tensor, box: Tensor, image_hw: tuple[int, int], crop_to_box: bool
) -> Window:
    if (soft_mask > 0.5).any():
        return mask_window(soft_mask, frame, image_hw, box if crop_to_box else None)
    x1, y1, x2, y2 = (round(side) for side in box.tolist())
    return x1, y1, x2, y2


def trim_mask(soft_mask: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Trim a soft mask to the cells that affect pixels: those above 0.5, and their neighbours.

    Args:
        soft_mask: (H, W) in [0, 1].
        frame: (4,) xyxy: the region that it covers.

    Returns:
        A copy of the (h, w) cells, without any for an empty mask, and their frame.
    """
    above = soft_mask > 0.5
    rows, columns = (_occupied(above.any(dim=dim)) for dim in (1, 0))
    (y1, y2), (x1, x2) = rows, columns
    height, width = soft_mask.shape
    share = torch.tensor((x1 / width, y1 / height, x2 / width, y2 / height))
    corner, extent = frame[:2].repeat(2), (frame[2:] - frame[:2]).repeat(2)
    return soft_mask[y1:y2, x1:x2].clone(), corner + share * extent


def _occupied(cells: Tensor) -> tuple[int, int]:
    """Return start and end of the occupied cells of an axis, with a neighbour on each side."""
    which = cells.nonzero()
    if not len(which):
        return 0, 1
    return max(int(which[0]) - 1, 0), min(int(which[-1]) + 2, len(cells))


def longer_side(view: Window) -> int:
    """Return the longer side of a view in pixels."""
    return max(view[2] - view[0], view[3] - view[1])
