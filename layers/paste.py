"""Pixels of masks in an image: bound, sample and tint them.

A pixel belongs to a mask where the soft mask, upsampled bilinearly to its frame, exceeds 0.5. On
the CPU, masks are processed one by one, by compiled code if possible, and only in the window around
each. For masks on a GPU, `paste_masks` and `tint_all` process many at a time there, with tensor
operators that need no wait; functions for one mask copy it to the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import mask_pixels
from .native import Floats, PixelKernels, Window, as_floats, kernels_for
from .structures import tensor_like

_AT_ONCE = 2**23  # pixels sampled at a time on a GPU, with three floats each


def mask_window(
    soft_mask: Tensor, frame: Tensor, image_hw: tuple[int, int], bounds: Tensor | None = None
) -> Window:
    """Find a window that contains a mask and little more.

    Args:
        soft_mask: (h, w) in [0, 1].
        frame: (4,) xyxy in image pixels: the region that the soft mask covers.
        image_hw: height and width of the image.
        bounds: (4,) xyxy in image pixels, rounded to whole ones, to crop the mask to.

    Returns:
        A window inside the image; (0, 0, 0, 0) for an empty mask.
    """
    window = _kernels().mask_window(*_to_cpu(soft_mask, frame), *image_hw)
    return window if bounds is None else _intersection(window, bounds.tolist())  # sync: one mask


def bitmap(soft_mask: Tensor, frame: Tensor, window: Window) -> Tensor:
    """Return the pixels of a mask in a window, (y2 - y1, x2 - x1) bool; see `mask_window`."""
    x1, y1, x2, y2 = window
    inside = torch.empty((y2 - y1, x2 - x1), dtype=torch.bool, device="cpu")
    _sample_into(inside, soft_mask, frame, window)
    return inside.to(soft_mask.device)


def has_pixels(
    soft_mask: Tensor, frame: Tensor, image_hw: tuple[int, int], bounds: Tensor | None = None
) -> bool:
    """Tell whether a mask has any pixel; arguments as for `mask_window`.

    The pixels around the peak of the soft mask nearly always decide; only if they do not are the
    others computed.
    """
    window = mask_window(soft_mask, frame, image_hw, bounds)
    if window == (0, 0, 0, 0):
        return False
    cells, (x1, y1, x2, y2) = _to_cpu(soft_mask, frame)
    row, column = divmod(int(np.argmax(cells)), soft_mask.shape[1])  # far faster than torch's
    x = x1 + (column + 0.5) * (x2 - x1) / soft_mask.shape[1]
    y = y1 + (row + 0.5) * (y2 - y1) / soft_mask.shape[0]
    near = _intersection(window, [x - 1, y - 1, x + 1, y + 1])
    parts = (bitmap(soft_mask, frame, part) for part in (near, window))
    return any(bool(part.any()) for part in parts)  # sync: one mask


def paste_masks(
    soft_masks: Tensor,
    frames: Tensor,
    image_hw: tuple[int, int],
    bounds: Tensor | None = None,
) -> Tensor:
    """Make full-size masks on the soft masks' device.

    The result is equal to resizing every mask to the whole image, without an N x H x W float array.

    Args:
        soft_masks: (N, h, w) in [0, 1].
        frames: (N, 4) xyxy in image pixels: the region that each soft mask covers.
        image_hw: height and width of the image.
        bounds: (N, 4) xyxy in image pixels, rounded to whole ones, to crop the masks to.

    Returns:
        (N, H, W) bool.
    """
    if soft_masks.device.type != "cpu":
        full = soft_masks.new_empty((len(soft_masks), *image_hw), dtype=torch.bool)
        for objects, rows, pixels in pasted_parts(soft_masks, frames, image_hw, bounds):
            full[objects, rows] = pixels
        return full
    full = torch.zeros((len(soft_masks), *image_hw), dtype=torch.bool, device="cpu")
    for i, (soft_mask, frame) in enumerate(zip(soft_masks, frames, strict=True)):
        window = mask_window(soft_mask, frame, image_hw, None if bounds is None else bounds[i])
        x1, y1, x2, y2 = window
        _sample_into(full[i, y1:y2, x1:x2], soft_mask, frame, window)
    return full


def pasted_parts(
    soft_masks: Tensor,
    frames: Tensor,
    image_hw: tuple[int, int],
    bounds: Tensor | None = None,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Make full-size masks with tensor operators, in parts to bound memory; see `paste_masks`.

    Yields:
        a slice of the objects, a slice of the image's rows, and their pixels, (n, h, W) bool.
    """
    height, width = image_hw
    if bounds is None:
        bounds = tensor_like(frames, (0, 0, width, height)).expand_as(frames)
    across = _axis(frames[:, ::2], bounds[:, ::2], width, soft_masks.shape[2])
    down = _axis(frames[:, 1::2], bounds[:, 1::2], height, soft_masks.shape[1])
    objects, rows = max(_AT_ONCE // max(height * width, 1), 1), max(_AT_ONCE // max(width, 1), 1)
    for first in range(0, len(soft_masks), objects):
        some = slice(first, first + objects)
        for start in range(0, height, rows):
            band = slice(start, start + rows)
            yield some, band, _pixels(soft_masks[some].float(), down, across, some, band)


class _Axis(NamedTuple):
    """Interpolation from the cells of N masks to the pixels of one axis."""

    cells: Tensor  # (N, size) int64: the last cell with its centre not after the pixel's
    weights: Tensor  # (N, size) float32: of the next cell; NaN for pixels outside the mask


def _axis(frames: Tensor, bounds: Tensor, size: int, cells: int) -> _Axis:
    """Return the interpolation from the cells of N masks to the pixels of one axis.

    Args:
        frames: (N, 2) start and end of the frames.
        bounds: (N, 2) start and end of the bounds.
        size: number of pixels of the image.
        cells: number of cells of each mask.
    """
    low, high = frames.float()[:, :, None].unbind(1)  # (N, 1)
    first, end = bounds.float()[:, :, None].unbind(1)
    extent = high - low
    pixel = torch.arange(size, dtype=torch.float32, device=frames.device)
    source = (pixel + 0.5 - low) * (1 / extent.clamp(min=1e-6) * cells) - 0.5
    source = source.nan_to_num(nan=0).clamp(0, cells - 1)
    cell = source.floor()
    inside = (pixel >= low.floor()) & (pixel < high.ceil()) & (extent > 0) & extent.isfinite()
    inside &= (pixel >= first.round()) & (pixel < end.round())
    return _Axis(cell.long(), (source - cell).masked_fill_(~inside, math.nan))


def _pixels(soft: Tensor, down: _Axis, across: _Axis, some: slice, band: slice) -> Tensor:
    """Sample (n, h, w) soft masks at the rows of a band: (n, rows, W) bool."""
    cells = down.cells[some, band, None].expand(-1, -1, soft.shape[2])
    upper = soft.gather(1, cells)
    lower = soft.gather(1, (cells + 1).clamp_(max=soft.shape[1] - 1))
    lines = upper + (lower - upper) * down.weights[some, band, None]  # (n, rows, w)
    steps = torch.diff(lines, dim=2, append=lines[:, :, -1:])  # the edge is repeated
    cells = across.cells[some, None].expand(-1, lines.shape[1], -1)
    values = torch.addcmul(
        lines.gather(2, cells), steps.gather(2, cells), across.weights[some, None]
    )
    return values > 0.5


def tint_all(
    picture: Tensor,
    soft_masks: Tensor,
    frames: Tensor,
    colors: Sequence[tuple[int, int, int]],
    alpha: float,
    bounds: Tensor | None = None,
) -> Tensor:
    """Blend colours into a copy of a picture where masks are, with tensor operators on its device.

    Args:
        picture: (H, W, 3) uint8, on the masks' device.
        soft_masks: (N, h, w) in [0, 1], each blended over those before it.
        frames: (N, 4), see `paste_masks`.
        colors: N colours, each with values for the picture's three channels.
        alpha: weight of the colour, 0 to 1.
        bounds: see `paste_masks`.

    Returns:
        (H, W, 3) uint8, equal to the result of `tint` except for ties in rounding.
    """
    canvas = picture.float()
    shades = [[alpha * channel for channel in color] for color in colors]
    shade = tensor_like(canvas, shades)  # (N, 3)
    height, width = picture.shape[:2]
    for objects, rows, pixels in pasted_parts(soft_masks, frames, (height, width), bounds):
        part = canvas[rows]
        for inside, one in zip(pixels, shade[objects], strict=True):
            tinted = (part * (1 - alpha)).add_(one).round_()
            torch.where(inside[..., None], tinted, part, out=part)
    return canvas.byte()


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
        window: the result of `mask_window`.
        color: values for the canvas's three channels.
        alpha: weight of the colour, 0 to 1.

    Raises:
        ValueError: the window leaves the canvas.
    """
    blended = np.arange(256)[:, None] * (1 - alpha) + np.array(color) * alpha
    table = blended.round().astype(np.uint8)  # (256, 3): the new value for each old one
    _kernels().blend_mask(*_to_cpu(soft_mask, frame), window, canvas, table)


def _intersection(window: Window, bounds: list[float]) -> Window:
    x1, y1, x2, y2 = window
    if any(map(math.isnan, bounds)):
        return 0, 0, 0, 0
    # Clamp before rounding, as infinity cannot be rounded.
    left, right = (round(min(max(bound, x1), x2)) for bound in (bounds[0], bounds[2]))
    top, bottom = (round(min(max(bound, y1), y2)) for bound in (bounds[1], bounds[3]))
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, 0, 0)


def _sample_into(out: Tensor, soft_mask: Tensor, frame: Tensor, window: Window) -> None:
    pixels = out.numpy().view(np.uint8)  # sync: on the CPU
    _kernels().sample_mask(*_to_cpu(soft_mask, frame), window, pixels)


def _kernels() -> PixelKernels:
    return kernels_for() or mask_pixels


def _to_cpu(soft_mask: Tensor, frame: Tensor) -> tuple[Floats, list[float]]:
    """Copy one mask to the CPU."""
    return as_floats(soft_mask.detach().cpu()), frame.tolist()  # sync: one mask
