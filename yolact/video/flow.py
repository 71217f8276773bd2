"""Optical flow between two frames, at a small size, and objects carried along it.

A flow looks back: it tells, for each pixel of the frame that is asked about (`target`), where that
pixel was in a frame whose objects are known (`source`). T. Kroeger et al., Fast Optical Flow using
Dense Inverse Search, ECCV 2016; OpenCV's implementation, its fastest preset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.images import Image, as_uint8
from layers.instances import Instances
from layers.native import Floats, as_floats

Found = TypeVar("Found", bound=Instances)

_LONG_SIDE = 320
_SHORT_SIDE = 16  # the least that OpenCV's patches need
_COARSE = 8  # small pixels between those that tell where to look for an object
_SAMPLES = 16  # a side, that tell its motion
_SPREAD = 7  # cells of a mask over which the flow inside of an object is averaged
# Between two frames of one shot nothing grows or shrinks by more.
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
        target: the frame that is asked about.
        source: the frame that is known, of the same size.
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
        """How far the pixels moved, on average, in small pixels."""
        return float(cv2.magnitude(self.offsets[..., 0], self.offsets[..., 1]).mean())

    def after(self, earlier: Flow) -> Flow:
        """Chain two flows: this one from A to B, `earlier` from B to C; the result from A to C."""
        further = _sample(earlier.offsets, self.places)
        return Flow(self.offsets + further, self.target, earlier.source)

    def error(self) -> NDArray[np.uint8]:
        """Return how far the source, moved along the flow, is from the target: (h, w), 0 to 255."""
        return as_uint8(cv2.absdiff(_sample(self.source.grey, self.places), self.target.grey))

    def agrees(self, back: Flow) -> NDArray[np.bool_]:
        """Mark pixels of the target that the flow from source to target leads back to: (h, w).

        The others were hidden in the source, or the flow is wrong there. N. Sundaram et al., Dense
        Point Trajectories by GPU-accelerated Large Displacement Optical Flow, ECCV 2010, eq. 5.
        """
        returned = _sample(back.offsets, self.places)
        missed = self.offsets + returned
        squares = [np.einsum("hwc,hwc->hw", v, v) for v in (self.offsets, returned, missed)]
        agreeing: NDArray[np.bool_] = squares[2] < 0.01 * (squares[0] + squares[1]) + 0.5
        return agreeing


class FlowEstimator:
    """Computes flows, one at a time: each thread needs its own."""

    def __init__(self) -> None:
        self._method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        # Twice as fine as the preset, on fewer patches: 1.4 instead of 0.7 ms for masks that
        # overlap with the network's by 0.859 instead of 0.846, eight frames later.
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
    """Make the small grey picture of an (H, W, 3) uint8 RGB frame."""
    height, width = image.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = max(_SHORT_SIDE, round(width * scale)), max(_SHORT_SIDE, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return SmallFrame(as_uint8(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)), (height, width))


def carry(found: Found, flow: Flow) -> Found:
    """Move the objects of the source frame to where the flow says they are in the target.

    Each mask is resampled in its own window. Across the outline of an object the flow is a mixture
    of its motion and the background's, so two motions are tried: the flow as it is inside of the
    object, and the median shift and growth of all of its pixels. The one that explains the picture
    better moves the mask; the box follows the latter. Scores, labels and the number of objects
    stay; one that has left the frame has an empty box.

    Args:
        found: N objects of the source.
        flow: from the target to the source.
    """
    if not len(found):
        return found
    masks, frames = as_floats(found.soft_masks.detach().cpu()), as_floats(found.mask_frames.cpu())
    boxes = as_floats(found.boxes.cpu())
    image = np.array((0, 0, *flow.image_hw[::-1]), np.float32)
    is_whole = bool((frames == image).all())  # so are YOLACT's
    windows = _windows(_filled(masks, image) if is_whole else frames, flow)
    motions = _motions(masks, frames, boxes, windows, flow)
    new_frames = frames if is_whole else _move(frames, motions)
    parts = zip(masks, frames, new_frames, windows, motions, strict=True)
    new_masks = np.stack([_resample(*part, flow) for part in parts])
    moved = _move(boxes, motions).clip(0, np.tile(image[2:], 2))
    device = found.boxes.device
    return replace(
        found,
        boxes=torch.from_numpy(moved).to(device),
        soft_masks=torch.from_numpy(new_masks).to(device),
        mask_frames=torch.from_numpy(new_frames).to(device),
    )


def _filled(masks: Floats, image: Floats) -> Floats:
    """Bound what (N, h, w) masks of a whole image have inside: (N, 4) xyxy in pixels."""
    cells = np.array([cv2.boundingRect((mask > 0.01).view(np.uint8)) for mask in masks], np.float32)
    cells[:, 2:] += cells[:, :2]
    return cells * np.tile(image[2:] / masks.shape[:0:-1], 2)


def _windows(regions: Floats, flow: Flow) -> Floats:
    """Bound where regions of the source are in the target: (N, 4) both, xyxy in pixels."""
    height, width = flow.offsets.shape[:2]
    half = _COARSE // 2
    columns, rows = np.arange(half, width, _COARSE), np.arange(half, height, _COARSE)
    new = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(np.float32)
    offsets = flow.offsets[half::_COARSE, half::_COARSE].reshape(-1, 2)
    old, new = (new + offsets + 0.5) * flow.pixel, (new + 0.5) * flow.pixel  # (P, 2)
    margin = _COARSE * flow.pixel
    low, high = regions[:, None, :2] - margin, regions[:, None, 2:] + margin
    seen = np.all((old >= low) & (old <= high), axis=2, keepdims=True)  # (N, P, 1)
    first, last = np.where(seen, new, np.inf).min(axis=1), np.where(seen, new, -np.inf).max(axis=1)
    windows = np.concatenate((first - margin, last + margin), axis=1)
    return np.where(seen.any(axis=1), windows, regions).astype(np.float32)


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
    chosen |= ~chosen.any(axis=1, keepdims=True)  # of what has left the frame: all around it
    motion, middle = _medians(new - old, chosen), _medians(old, chosen)  # (N, 2)
    arms, stretched = old - middle[:, None], new - old - motion[:, None]
    ratios = (stretched * arms).sum(axis=2) / (np.square(arms).sum(axis=2) + 1e-6)
    growth = _medians(ratios[..., None], chosen).clip(1 / _MOST_SCALE - 1, _MOST_SCALE - 1)
    return np.concatenate((1 + growth, motion - growth * middle), axis=1).astype(np.float32)


def _medians(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return the medians of the chosen ones of (N, P, C) values, one at least: (N, C)."""
    ordered = np.sort(np.where(chosen[..., None], values, np.inf), axis=1)
    middle = (chosen.sum(axis=1) - 1) // 2
    medians: Floats = np.take_along_axis(ordered, middle[:, None, None], axis=1)[:, 0]
    return medians


def _sides(frames: Floats) -> Floats:
    """Return width and height of (N, 4) boxes, never 0: (N, 2)."""
    sides: Floats = (frames[:, 2:] - frames[:, :2]).clip(1e-6)
    return sides


def _move(boxes: Floats, motions: Floats) -> Floats:
    return boxes * motions[:, :1] + motions[:, [1, 2, 1, 2]]


def _resample(
    mask: Floats, frame: Floats, new_frame: Floats, window: Floats, motion: Floats, flow: Flow
) -> Floats:
    """Move an (h, w) mask from one frame to another, within a window, all xyxy in pixels."""
    size = np.array(mask.shape[::-1], np.float32)
    cell = (new_frame[2:] - new_frame[:2]).clip(1e-6) / size  # width and height in pixels
    low = ((window[:2] - new_frame[:2]) // cell).clip(0).astype(int)
    high = (-((new_frame[:2] - window[2:]) // cell)).clip(0, size).astype(int)
    moved = np.zeros_like(mask)
    if (low >= high).any():
        return moved
    cells: Floats = np.stack(np.meshgrid(*map(np.arange, low, high)), axis=-1).astype(np.float32)
    new: Floats = (new_frame[:2] + (cells + 0.5) * cell).astype(
        np.float32, copy=False
    )  # (h, w, 2) in pixels
    rigid: Floats = ((new - motion[1:]) / motion[0] - new).astype(np.float32, copy=False)
    dense = _sample(flow.offsets, new / flow.pixel - 0.5) * flow.pixel
    # A mask of the whole image goes on beyond its border, as the object does.
    is_whole = (frame == (0, 0, *flow.image_hw[::-1])).all()
    border = cv2.BORDER_REPLICATE if is_whole else cv2.BORDER_CONSTANT
    scale = size / (frame[2:] - frame[:2]).clip(1e-6)

    def carried(offsets: Floats) -> Floats:
        places = (new + offsets - frame[:2]) * scale - 0.5
        return _sample(mask, places.astype(np.float32, copy=False), border)

    dense = _spread(dense, carried(dense) > 0.5, rigid)
    tried = carried(dense), carried(rigid)
    inside = ((tried[0] > 0.5) | (tried[1] > 0.5)).view(np.uint8)
    errors = [_error(flow, new, offsets, inside) for offsets in (dense, rigid)]
    moved[low[1] : high[1], low[0] : high[0]] = tried[errors[0] >= errors[1]]
    return moved


def _spread(offsets: Floats, inside: NDArray[np.bool_], otherwise: Floats) -> Floats:
    """Average (h, w, 2) offsets over the neighbours inside; where there are none, take others."""
    weights = inside[..., None].astype(np.float32)
    size, border = (_SPREAD, _SPREAD), cv2.BORDER_CONSTANT
    total = cv2.blur(offsets * weights, size, borderType=border)
    count = cv2.blur(weights, size, borderType=border)[..., None]
    mean: Floats = ((total + 1e-3 * otherwise) / (count + 1e-3)).astype(np.float32, copy=False)
    return mean


def _error(flow: Flow, new: Floats, offsets: Floats, inside: NDArray[np.uint8]) -> float:
    """Return the mean difference of source and target inside of a mask, if it moves like this."""
    now = _sample(flow.target.grey, new / flow.pixel - 0.5)
    before = _sample(flow.source.grey, (new + offsets) / flow.pixel - 0.5)
    return cv2.mean(cv2.absdiff(now, before), inside)[0]


Picture = TypeVar("Picture", Floats, NDArray[np.uint8])


def _sample(picture: Picture, places: Floats, border: int = cv2.BORDER_REPLICATE) -> Picture:
    """Read an (h, w, ...) array at (..., 2) places, x and y, bilinearly."""
    return cv2.remap(picture, places, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore
