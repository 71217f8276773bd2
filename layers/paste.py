"""Pixels of one mask in an image: bound, sample and tint them, compiled where possible.

A pixel belongs to a mask where the soft mask, upsampled bilinearly to its frame, exceeds 0.5. Only
the window that holds the mask is ever looked at, by the processor, wherever the masks are.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import mask_pixels
from .native import Floats, PixelKernels, Window, as_floats, kernels_for


def mask_window(
    soft_mask: Tensor, frame: Tensor, image_hw: tuple[int, int], bounds: Tensor | None = None
) -> Window:
    """Find a window that holds a mask and little more.

    Args:
        soft_mask: (h, w) in [0, 1].
        frame: (4,) xyxy in image pixels: the region that the soft mask covers.
        image_hw: height and width of the image.
        bounds: (4,) xyxy in image pixels, rounded to whole ones, which the mask shall not leave.

    Returns:
        A window inside the image; (0, 0, 0, 0) for an empty mask.
    """
    window = _kernels().mask_window(_on_cpu(soft_mask), frame.tolist(), *image_hw)
    return window if bounds is None else _intersection(window, bounds.tolist())


def bitmap(soft_mask: Tensor, frame: Tensor, window: Window) -> Tensor:
    """Return the pixels of a mask in a window, (y2 - y1, x2 - x1) bool; arguments as above."""
    x1, y1, x2, y2 = window
    inside = torch.empty((y2 - y1, x2 - x1), dtype=torch.bool)
    _sample_into(inside, soft_mask, frame, window)
    return inside.to(soft_mask.device)


def has_pixels(
    soft_mask: Tensor, frame: Tensor, image_hw: tuple[int, int], bounds: Tensor | None = None
) -> bool:
    """Tell whether a mask has a pixel at all; arguments as those of `mask_window`.

    The pixels around the peak of the soft mask nearly always tell; the others are looked at only
    where those do not.
    """
    window = mask_window(soft_mask, frame, image_hw, bounds)
    if window == (0, 0, 0, 0):
        return False
    peak = int(as_floats(soft_mask.detach().cpu()).argmax())  # far faster than torch's
    row, column = divmod(peak, soft_mask.shape[1])
    x1, y1, x2, y2 = frame.tolist()
    x = x1 + (column + 0.5) * (x2 - x1) / soft_mask.shape[1]
    y = y1 + (row + 0.5) * (y2 - y1) / soft_mask.shape[0]
    near = _intersection(window, [x - 1, y - 1, x + 1, y + 1])
    return any(bool(bitmap(soft_mask, frame, part).any()) for part in (near, window))


def paste_masks(
    soft_masks: Tensor,
    frames: Tensor,
    image_hw: tuple[int, int],
    bounds: Tensor | None = None,
) -> Tensor:
    """Make full-size masks, one window at a time.

    Equal to resizing every mask to the whole image, without ever holding an N x H x W float array.

    Args:
        soft_masks: (N, h, w) in [0, 1].
        frames: (N, 4) xyxy in image pixels: the region that each soft mask covers.
        image_hw: height and width of the image.
        bounds: (N, 4) xyxy in image pixels, rounded to whole ones, which no mask shall leave.

    Returns:
        (N, H, W) bool.
    """
    full = torch.zeros((len(soft_masks), *image_hw), dtype=torch.bool)
    for i, (soft_mask, frame) in enumerate(zip(soft_masks, frames, strict=True)):
        window = mask_window(soft_mask, frame, image_hw, None if bounds is None else bounds[i])
        x1, y1, x2, y2 = window
        _sample_into(full[i, y1:y2, x1:x2], soft_mask, frame, window)
    return full.to(soft_masks.device)


def tint(
    canvas: NDArray[np.uint8],
    soft_mask: Tensor,
    frame: Tensor,
    window: Window,
    color: tuple[int, int, int],
    alpha: float,
) -> None:
    """Blend a colour into a canvas where a mask is.

    Args:
        canvas: (H, W, 3) uint8, changed in place.
        soft_mask: (h, w) in [0, 1].
        frame: (4,) xyxy in image pixels: the region that the soft mask covers.
        window: what `mask_window` gave.
        color: of the canvas's three channels.
        alpha: share of the colour.

    Raises:
        ValueError: the window leaves the canvas.
    """
    blended = np.arange(256)[:, None] * (1 - alpha) + np.array(color) * alpha
    table = blended.round().astype(np.uint8)  # (256, 3): the new value for each old one
    _kernels().blend_mask(_on_cpu(soft_mask), frame.tolist(), window, canvas, table)


def _intersection(window: Window, bounds: list[float]) -> Window:
    x1, y1, x2, y2 = window
    if any(map(math.isnan, bounds)):
        return 0, 0, 0, 0
    # First limited, then rounded, for infinity cannot be.
    left, right = (round(min(max(bound, x1), x2)) for bound in (bounds[0], bounds[2]))
    top, bottom = (round(min(max(bound, y1), y2)) for bound in (bounds[1], bounds[3]))
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, 0, 0)


def _sample_into(out: Tensor, soft_mask: Tensor, frame: Tensor, window: Window) -> None:
    pixels = out.numpy().view(np.uint8)
    _kernels().sample_mask(_on_cpu(soft_mask), frame.tolist(), window, pixels)


def _kernels() -> PixelKernels:
    return kernels_for() or mask_pixels


def _on_cpu(soft_mask: Tensor) -> Floats:
    return as_floats(soft_mask.detach().cpu())
