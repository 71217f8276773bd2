"""Optical flow between two frames, at a small size, and objects carried along it.

The flow is backward: for each pixel of a `target` frame, it gives the pixel's place in a `source`
frame, whose objects are known. T. Kroeger et al., Fast Optical Flow using Dense Inverse Search,
ECCV 2016; OpenCV's implementation, based on its fastest preset.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.images import Image, as_uint8
from layers.instances import InstancesT
from layers.native import Floats, as_floats

Picture = TypeVar("Picture", Floats, NDArray[np.uint8])

_LONG_SIDE = 320
_SHORT_SIDE = 16  # minimum for OpenCV's patches
_COARSE = 8  # step in small pixels of the samples that locate an object in the target
_SAMPLES = 16  # samples per side that estimate an object's motion
_HALF = np.float32(0.5)
_LITTLE = np.float32(1e-3)
_SPREAD = 7  # cells of a mask over which the flow inside an object is averaged
# Limit of growth or shrinkage between two frames of one shot.
_MOST_SCALE = 2.0


class SmallFrame(NamedTuple):
    """A frame as the flow sees it.

    Attributes:
        grey: (h, w) uint8, the longer side 320.
        image_hw: height and width of the frame itself in pixels.
    """

    grey: NDArray[np.uint8]
    image_hw: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Flow:
    """Where the pixels of a target frame were in a source frame.

    Attributes:
        offsets: (h, w, 2) float32, x and y in small pixels: the one at `p` was at `p + offsets[p]`.
        target: the frame to carry objects to.
        source: the frame whose objects are known, of the same size.
    """

    offsets: Floats
    target: SmallFrame
    source: SmallFrame

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of both frames in pixels."""
        return self.target.image_hw

    @property
    def pixel(self) -> Floats:
        """Width and height of a small pixel in pixels of the frame, (2,)."""
        height, width = self.offsets.shape[:2]
        return np.array((self.image_hw[1] / width, self.image_hw[0] / height), np.float32)

    @property
    def places(self) -> Floats:
        """(h, w, 2): where each small pixel of the target was in the source."""
        height, width = self.offsets.shape[:2]
        places = self.offsets.copy()
        places[..., 0] += np.arange(width, dtype=np.float32)
        places[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return places

    @property
    def length(self) -> float:
        """Mean motion of the pixels, in small pixels."""
        return float(cv2.magnitude(self.offsets[..., 0], self.offsets[..., 1]).mean())

    def after(self, earlier: Flow) -> Flow:
        """Chain two flows: this one from A to B, `earlier` from B to C; the result from A to C."""
        further = _sample(earlier.offsets, self.places)
        return Flow(self.offsets + further, self.target, earlier.source)

    def error(self) -> NDArray[np.uint8]:
        """Return the absolute difference of the warped source and the target: (h, w), 0 to 255."""
        return as_uint8(cv2.absdiff(_sample(self.source.grey, self.places), self.target.grey))


class FlowEstimator:
    """Computes flows, one at a time; each thread needs its own estimator."""

    def __init__(self) -> None:
        self._method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        # Twice as fine as the preset, on fewer patches: 1.4 instead of 0.7 ms; eight frames later,
        # masks overlap with the network's by 0.859 instead of 0.846.
        self._method.setFinestScale(1)
        self._method.setPatchStride(6)

    def __call__(self, target: SmallFrame, source: SmallFrame) -> Flow:
        """Return the flow between two frames.

        Raises:
            ValueError: they differ in size.
        """
        if target.image_hw != source.image_hw:
            raise ValueError(f"frames of sizes {target.image_hw} and {source.image_hw}: no flow")
        guess = np.zeros((*target.grey.shape, 2), np.float32)
        offsets = self._method.calc(target.grey, source.grey, guess)
        return Flow(offsets.astype(np.float32, copy=False), target, source)


def shrink(image: Image) -> SmallFrame:
    """Return a small grey version of an (H, W, 3) uint8 RGB frame."""
    height, width = image.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = max(_SHORT_SIDE, round(width * scale)), max(_SHORT_SIDE, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return SmallFrame(as_uint8(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)), (height, width))


def carry(found: InstancesT, flow: Flow) -> InstancesT:
    """Move the objects of the source frame along the flow to the target.

    Each mask is resampled in its own window. At the outline of an object, the flow mixes its motion
    and the background's, so two motions are tried: the flow inside the object, extended, and the
    median shift and scale of all its pixels. The one that explains the picture better moves the
    mask; the box always follows the median motion. Scores, labels and the number of objects do not
    change; an object that has left the frame has an empty box.

    Args:
        found: N objects of the source.
        flow: from the target to the source.
    """
    if not len(found):
        return found
    masks, frames = as_floats(found.soft_masks.detach().cpu()), as_floats(found.mask_frames.cpu())
    boxes = as_floats(found.boxes.cpu())
    image = np.array((0, 0, *flow.image_hw[::-1]), np.float32)
    is_whole = bool((frames == image).all())  # as for YOLACT
    windows = _windows(_filled(masks, image, boxes) if is_whole else frames, flow)
    motions = _motions(masks, frames, boxes, windows, flow)
    grid_hw = masks.shape[1], masks.shape[2]
    new_frames = frames
    grids: Iterable[_Grid] = repeat(_grid(image, image, grid_hw, flow))
    if not is_whole:
        new_frames = windows = _move(frames, motions)
        grids = [_grid(*pair, grid_hw, flow) for pair in zip(frames, new_frames, strict=True)]
    parts = zip(masks, motions, windows, grids, strict=False)
    moved_masks = [_resample(*part) for part in parts]
    moved = _move(boxes, motions).clip(0, np.tile(image[2:], 2))
    device = found.boxes.device
    return replace(
        found,
        boxes=torch.from_numpy(moved).to(device),
        soft_masks=torch.from_numpy(np.stack(moved_masks)).to(device),
        mask_frames=torch.from_numpy(new_frames).to(device),
    )


def _filled(masks: Floats, image: Floats, boxes: Floats) -> Floats:
    """Return the bounds of (N, h, w) masks of a whole image, (N, 4) xyxy; of empty ones the box."""
    cells = np.array([cv2.boundingRect((mask > 0.01).view(np.uint8)) for mask in masks], np.float32)
    cells[:, 2:] += cells[:, :2]
    filled = cells * np.tile(image[2:] / np.array(masks.shape[:0:-1], np.float32), 2)
    return np.where(cells[:, 2:3] > 0, filled, boxes)


def _windows(regions: Floats, flow: Flow) -> Floats:
    """Return the bounds in the target of regions of the source: (N, 4) each, xyxy in pixels."""
    half = _COARSE // 2
    coarse = flow.offsets[half::_COARSE, half::_COARSE]  # (h, w, 2)
    rows, columns = (index * _COARSE + half for index in np.indices(coarse.shape[:2]))
    seen = np.ones((len(regions), rows.size), np.bool_)  # (N, P)
    for axis, index in enumerate((columns, rows)):
        old = ((index + coarse[..., axis]).ravel() + 0.5) * flow.pixel[axis]
        margin = _COARSE * flow.pixel[axis]
        seen &= old >= regions[:, axis, None] - margin
        seen &= old <= regions[:, axis + 2, None] + margin
    windows = regions.copy()
    found = seen.any(axis=1)
    for axis, index in enumerate((columns, rows)):
        new = (index.ravel() + 0.5) * flow.pixel[axis]
        margin = _COARSE * flow.pixel[axis]
        windows[found, axis] = np.where(seen[found], new, np.inf).min(axis=1) - margin
        windows[found, axis + 2] = np.where(seen[found], new, -np.inf).max(axis=1) + margin
    return windows


def _motions(masks: Floats, frames: Floats, boxes: Floats, windows: Floats, flow: Flow) -> Floats:
    """Fit `s * old + (x, y)` to the pixels of each object: (N, 3), of s, x, y."""
    steps = (np.arange(_SAMPLES, dtype=np.float32) + 0.5) / _SAMPLES
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)  # (P, 2)
    new = windows[:, None, :2] + grid * (windows[:, None, 2:] - windows[:, None, :2])  # (N, P, 2)
    old = new + _sample(flow.offsets, new / flow.pixel - 0.5) * flow.pixel
    inside = ((old >= boxes[:, None, :2]) & (old < boxes[:, None, 2:])).all(axis=2)  # (N, P)
    size = np.array(masks.shape[:0:-1])
    cells = (old - frames[:, None, :2]) / _sides(frames)[:, None] * size
    columns, rows = np.moveaxis(cells.clip(0, size - 1).astype(int), 2, 0)
    on_mask = inside & (masks[np.arange(len(masks))[:, None], rows, columns] > 0.5)
    chosen = np.where(on_mask.any(axis=1, keepdims=True), on_mask, inside)
    chosen |= ~chosen.any(axis=1, keepdims=True)  # if the object has left the frame: all samples
    motion, middle = _medians(new - old, chosen), _medians(old, chosen)  # (N, 2)
    arms, stretched = old - middle[:, None], new - old - motion[:, None]
    ratios = (stretched * arms).sum(axis=2) / (np.square(arms).sum(axis=2) + 1e-6)
    growth = _medians(ratios[..., None], chosen).clip(1 / _MOST_SCALE - 1, _MOST_SCALE - 1)
    return np.concatenate((1 + growth, motion - growth * middle), axis=1).astype(np.float32)


def _medians(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return the medians of the chosen (N, P, C) values, at least one per row: (N, C)."""
    ordered = np.sort(np.where(chosen[..., None], values, np.inf), axis=1)
    middle = (chosen.sum(axis=1) - 1) // 2
    medians: Floats = np.take_along_axis(ordered, middle[:, None, None], axis=1)[:, 0]
    return medians


def _sides(frames: Floats) -> Floats:
    """Return width and height of (..., 4) boxes, never 0: (..., 2)."""
    sides: Floats = (frames[..., 2:] - frames[..., :2]).clip(1e-6)
    return sides


def _move(boxes: Floats, motions: Floats) -> Floats:
    return boxes * motions[:, :1] + motions[:, [1, 2, 1, 2]]


class _Grid(NamedTuple):
    """The h x w cells of a mask in the target.

    Attributes:
        old: the mask's frame in the source, xyxy in pixels.
        new: its frame in the target.
        scale: cells of the source per pixel, (2,).
        offsets: (h, w, 2), the flow in pixels.
        pixel: width and height of the flow's pixels, (2,).
        now: (h, w), grey values of the target in the new frame.
        before: (h, w), grey values of the source in the old frame.
    """

    old: Floats
    new: Floats
    scale: Floats
    offsets: Floats
    pixel: Floats
    now: Floats
    before: Floats


def _grid(old: Floats, new: Floats, grid_hw: tuple[int, int], flow: Flow) -> _Grid:
    """Prepare to move masks from one frame to another, xyxy in pixels."""
    pixel = flow.pixel

    def cells_of(picture: Picture, frame: Floats) -> Picture:
        step = _cell(frame, grid_hw) / pixel
        start = frame[:2] / pixel + step / 2 - 0.5
        matrix = np.column_stack((np.diag(step), start))
        flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
        size = grid_hw[::-1]
        return cv2.warpAffine(picture, matrix, size, None, flags, border)  # type: ignore

    offsets, now = cells_of(flow.offsets, new), cells_of(flow.target.grey, new)
    before = cells_of(flow.source.grey, old)
    greys = now.astype(np.float32), before.astype(np.float32)
    return _Grid(old, new, np.float32(1) / _cell(old, grid_hw), offsets, pixel, *greys)


def _cell(frame: Floats, grid_hw: tuple[int, ...]) -> Floats:
    """Return width and height of the cells of a mask with a frame xyxy in pixels: (2,)."""
    return (_sides(frame) / grid_hw[::-1]).astype(np.float32)


@cache
def _indices(grid_hw: tuple[int, ...]) -> Floats:
    """Return the column and row of each cell: (h, w, 2)."""
    return np.stack(np.meshgrid(*map(np.arange, grid_hw[::-1])), axis=-1).astype(np.float32)


def _resample(mask: Floats, motion: Floats, window: Floats, grid: _Grid) -> Floats:
    """Move a mask; it is 0 outside the window, xyxy in pixels."""
    moved = np.zeros_like(mask)
    cell = _cell(grid.new, mask.shape)
    x1, y1 = ((window[:2] - grid.new[:2]) // cell).clip(0).astype(int)
    x2, y2 = (-((grid.new[:2] - window[2:]) // cell)).clip(0).astype(int)
    part = np.s_[y1:y2, x1:x2]
    cells, now = _indices(mask.shape)[part], grid.now[part]
    if not now.size:
        return moved
    start = grid.new[:2] + cell * _HALF  # the first cell's centre in pixels
    still: Floats = cells * (cell * grid.scale) + ((start - grid.old[:2]) * grid.scale - _HALF)
    step, first = cell / motion[0], (start - motion[1:]) / motion[0]
    rigid: Floats = cells * (step * grid.scale) + ((first - grid.old[:2]) * grid.scale - _HALF)
    offsets = grid.offsets[part] * (grid.pixel * grid.scale)
    # A mask of the whole image continues beyond its border, as the object does.
    border = cv2.BORDER_REPLICATE if (grid.old == grid.new).all() else cv2.BORDER_CONSTANT
    both = np.dstack((mask, grid.before))
    inside = _sample(both, still + offsets, border)[..., 0] > 0.5
    dense = still + _spread(offsets, inside, rigid - still)
    tried = [_sample(both, places, border) for places in (dense, rigid)]  # (h, w, 2) each
    inside = (tried[0][..., 0] > 0.5) | (tried[1][..., 0] > 0.5)
    errors = [float((np.abs(each[..., 1] - now) * inside).sum()) for each in tried]
    moved[part] = tried[errors[0] >= errors[1]][..., 0]
    return moved


def _spread(offsets: Floats, inside: NDArray[np.bool_], otherwise: Floats) -> Floats:
    """Average (h, w, 2) offsets over neighbours inside; where there are none, use `otherwise`."""
    weights = inside[..., None].astype(np.float32)
    size, border = (_SPREAD, _SPREAD), cv2.BORDER_CONSTANT
    total = cv2.blur(offsets * weights, size, borderType=border)
    count = cv2.blur(weights, size, borderType=border)[..., None]
    mean: Floats = (total + _LITTLE * otherwise) / (count + _LITTLE)
    return mean


def _sample(
    picture: Picture, places: NDArray[np.floating[Any]], border: int = cv2.BORDER_REPLICATE
) -> Picture:
    """Sample an (h, w, ...) array bilinearly at (..., 2) places, x and y."""
    places = places.astype(np.float32, copy=False)
    return cv2.remap(picture, places, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore
