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
        image_hw: height and width of both frames in pixels.
    """

    offsets: Floats
    image_hw: tuple[int, int]

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
        return Flow(self.offsets + further, self.image_hw)

    def error(self, target: SmallFrame, source: SmallFrame) -> NDArray[np.uint8]:
        """Return how far the source, moved along the flow, is from the target: (h, w), 0 to 255."""
        moved = _sample(source.grey, self.places)
        return as_uint8(cv2.absdiff(moved, target.grey))

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

    def __call__(self, target: SmallFrame, source: SmallFrame) -> Flow:
        """Return the flow between two frames.

        Raises:
            ValueError: they differ in size.
        """
        if target.image_hw != source.image_hw:
            raise ValueError(f"frames of sizes {target.image_hw} and {source.image_hw}: no flow")
        guess = np.zeros((*target.grey.shape, 2), np.float32)
        offsets = self._method.calc(target.grey, source.grey, guess)
        return Flow(offsets.astype(np.float32, copy=False), target.image_hw)


def shrink(image: Image) -> SmallFrame:
    """Make the small grey picture of an (H, W, 3) uint8 RGB frame."""
    height, width = image.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = max(_SHORT_SIDE, round(width * scale)), max(_SHORT_SIDE, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return SmallFrame(as_uint8(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)), (height, width))


def carry(found: Found, flow: Flow) -> Found:
    """Move the objects of the source frame to where the flow says they are in the target.

    Each mask is resampled in its own window, and its box follows by the median motion and the
    growth of the mask's pixels. Scores, labels and the number of objects stay; one that has left
    the frame has an empty box.

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
    if is_whole:
        new_frames, new_masks = frames, _carry_whole(masks, windows, flow)
    else:
        new_frames = _move(frames, motions)
        new_masks = _carry_framed(masks, frames, new_frames, flow)
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


def _carry_whole(masks: Floats, windows: Floats, flow: Flow) -> Floats:
    """Resample (N, h, w) masks of the whole image in (N, 4) windows in pixels; the rest is 0."""
    height, width = masks.shape[1:]
    small = np.array(flow.offsets.shape[1::-1])
    cell = (np.array((width, height)) / small).astype(np.float32)  # of a small pixel
    offsets = cv2.resize(flow.offsets, (width, height)) * cell
    places = Flow(offsets, flow.image_hw).places
    bounds = windows / np.tile(flow.pixel / cell, 2)
    low, high = np.floor(bounds[:, :2]).clip(0).astype(int), np.ceil(bounds[:, 2:]).astype(int)
    carried = np.zeros_like(masks)
    for mask, (x1, y1), (x2, y2), out in zip(masks, low, high, carried, strict=True):
        window = places[y1:y2, x1:x2]
        if window.size:
            out[y1:y2, x1:x2] = _sample(mask, window)
    return carried


def _carry_framed(masks: Floats, old: Floats, new: Floats, flow: Flow) -> Floats:
    """Resample (N, h, w) masks of old frames in new ones, (N, 4) xyxy in pixels."""
    count, height, width = masks.shape
    size = np.array((width, height), np.float32)
    cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    there = new[:, None, :2] + (cells + 0.5) * (_sides(new) / size)[:, None]  # (N, h * w, 2)
    there = there.astype(np.float32)
    was = there + _sample(flow.offsets, there / flow.pixel - 0.5) * flow.pixel
    places = (was - old[:, None, :2]) / _sides(old)[:, None] * size - 0.5
    places = places.reshape(count, height, width, 2)
    pairs = zip(masks, places, strict=True)
    return np.stack([_sample(mask, place, cv2.BORDER_CONSTANT) for mask, place in pairs])


Picture = TypeVar("Picture", Floats, NDArray[np.uint8])


def _sample(picture: Picture, places: Floats, border: int = cv2.BORDER_REPLICATE) -> Picture:
    """Read an (h, w, ...) array at (..., 2) places, x and y, bilinearly."""
    return cv2.remap(picture, places, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore
