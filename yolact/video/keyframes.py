"""Key frames: the network runs on some frames, and flow carries its results to those between.

Objects are carried to a frame from the key frame before it and from the one after it, matched by
the overlap of their masks, and blended by the distance in time, so that they neither lag nor jump.
Nothing is carried across a cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import torch

from data.images import Image
from layers.boxes import box_iou
from layers.native import Floats
from layers.structures import concatenate_groups
from yolact.errors import OptionError
from yolact.results.detections import Detections
from yolact.threads import DeferredError

from .flow import Flow, FlowEstimator, SmallFrame, carry, shrink
from .overlaps import mask_overlaps, match_pairs, small_masks
from .stages import Predict, Select

_SAME = 0.3  # minimum overlap of two detections of one object
_DRIFTED = 0.5  # overlap below which an object was lost between two key frames
_FEW_CELLS = 16  # minimum cells of a mask on the small grid, for comparing masks
# Share of pixels that the flow does not explain: at a cut, and from one key frame to the next.
_CUT, _UNEXPLAINED = 0.3, 0.15
_MOVED = 12.0  # mean path of the pixels from one key frame to the next, in small pixels
_MIXED = ("boxes", "scores", "soft_masks", "mask_frames", "box_scores")
# Limits of a group chosen by "auto", in frames and bytes, as all its frames are in memory.
_LONGEST, _MOST_BYTES = 12, 2**27


KeyFrameOption = int | Literal["auto", "off"]


def check_keyframes(option: object) -> None:
    """Refuse a value that is no choice of key frames.

    Raises:
        OptionError: neither "auto" nor "off" nor a number from 1 on.
    """
    is_number = isinstance(option, int) and not isinstance(option, bool) and option >= 1
    if not is_number and option not in ("auto", "off"):
        raise OptionError("keyframes", option, "expected auto, off, or a whole number, at least 1")


class HasImage(Protocol):
    """An item with a frame."""

    @property
    def image(self) -> Image:
        """(H, W, 3) uint8 RGB."""


Item = TypeVar("Item", bound=HasImage)
T = TypeVar("T")


@dataclass(frozen=True)
class LinkedFrame(Generic[Item]):
    """A frame, and the flow that links it with the previous frame.

    Attributes:
        item: the frame.
        backward_flow: from it to the previous frame; None if it begins a shot.
    """

    item: Item
    backward_flow: Flow | None = None


FrameGroup = list[LinkedFrame[Item]]
"""A key frame, and the frames after it up to the next one."""


def _all(found: Detections) -> Detections:
    return found


def max_group_length(image_hw: tuple[int, ...], every: int) -> int:
    """Return `every`, or the maximum number of frames of a size in memory, if that is less."""
    return min(every, max(2 * _MOST_BYTES // (3 * image_hw[0] * image_hw[1]), 1))


@dataclass(frozen=True)
class KeyFrames:
    """The choice of key frames.

    Attributes:
        every: maximum distance between key frames, as a cut always gives one; None chooses them by
            the amount of motion, by what the flow cannot explain, and by objects lost in between.
        fps: of the video: without `every`, there is at least one key frame per second.
        select: keeps the carried detections that count, dropping those that fade below the
            threshold.
    """

    every: int | None
    fps: float = 30.0
    select: Select = _all

    @classmethod
    def from_option(cls, keyframes: KeyFrameOption, fps: float, select: Select) -> KeyFrames | None:
        """Return key frames for a distance or "auto"; None for "off" or 1.

        Raises:
            OptionError: another value.
        """
        check_keyframes(keyframes)
        if keyframes in ("off", 1):
            return None
        return cls(keyframes if isinstance(keyframes, int) else None, fps, select)

    def groups(self, items: Iterable[Item]) -> Iterator[FrameGroup[Item]]:
        """Divide a video into groups; raise an error of `items` after the frames before it."""
        estimate = FlowEstimator()
        small: SmallFrame | None = None
        group: FrameGroup[Item] = []
        moved = unexplained = 0.0
        readable = DeferredError(items)
        for item in readable:
            before, small = small, shrink(item.image)
            backward_flow, lost = (
                (None, 0.0) if before is None else flow_unless_cut(estimate, small, before)
            )
            unexplained += lost
            moved += (
                backward_flow.length if backward_flow is not None and self.every is None else 0.0
            )
            if group and (backward_flow is None or self._ends_group(group, moved, unexplained)):
                yield group
                group, moved, unexplained = [], 0.0, 0.0
            group.append(LinkedFrame(item, backward_flow))
        if group:
            yield group
        readable.reraise()

    def _ends_group(self, group: FrameGroup[Item], moved: float, unexplained: float) -> bool:
        """Tell whether the next frame shall be a key frame, by the changes since the last one."""
        image = group[0].item.image
        if self.every is not None:
            return len(group) >= max_group_length(image.shape, self.every)
        longest = min(self.fps, _LONGEST, _MOST_BYTES // image.nbytes)
        return len(group) >= longest or moved > _MOVED or unexplained > _UNEXPLAINED

    def interpolate(
        self, seen: Iterable[tuple[FrameGroup[Item], Detections]], predict: Predict
    ) -> Iterator[tuple[Item, Detections]]:
        """Yield every frame with its detections, in order.

        Args:
            seen: groups, each with the detections in its key frame. An error of the iteration
                is raised after the frames before it.
            predict: for additional key frames if an object is lost between two.
        """
        interpolator = _Interpolator(self.select, predict if self.every is None else None)
        held: tuple[FrameGroup[Item], Detections] | None = None
        readable = DeferredError(seen)
        for group, found in readable:
            if held is not None:
                yield from interpolator.interpolate(*held, (group[0], found))
            held = group, found
        if held is not None:
            yield from interpolator.interpolate(*held, None)
        readable.reraise()


def flow_unless_cut(
    estimate: FlowEstimator, now: SmallFrame, before: SmallFrame
) -> tuple[Flow | None, float]:
    """Return the backward flow of a frame, None at a cut, and the share of unexplained pixels."""
    if now.image_hw != before.image_hw:
        return None, 1.0
    backward_flow = estimate(now, before)
    # Relative to the contrast, as dark videos have cuts, too.
    unexplained = float((backward_flow.error() > 8 + now.grey.std() / 3).mean())
    return (backward_flow if unexplained < _CUT else None), unexplained


class _Interpolator:
    """Fills groups of frames with detections.

    Args:
        select: keeps the detections that count.
        predict: segments additional frames if an object is lost; None for no such frames.
    """

    def __init__(self, select: Select, predict: Predict | None):
        self._select, self._predict = select, predict
        self._estimate = FlowEstimator()

    def interpolate(
        self,
        group: FrameGroup[Item],
        found: Detections,
        end: tuple[LinkedFrame[Item], Detections] | None,
    ) -> Iterator[tuple[Item, Detections]]:
        """Yield a group with detections; `end` is the next key frame."""
        between = group[1:]
        before = _propagate(found, [step.backward_flow for step in between])
        after: list[Detections] | None = None
        if between and end is not None and end[0].backward_flow is not None:
            if self._predict is not None and _is_lost(
                _propagate(before[-1], [end[0].backward_flow])[0], end[1]
            ):
                middle = len(group) // 2
                (looked,) = self._predict([group[middle].item.image])
                yield from self.interpolate(group[:middle], found, (group[middle], looked))
                yield from self.interpolate(group[middle:], looked, end)
                return
            onward = [self._forward_flow(step) for step in (end[0], *between[:0:-1])]
            after = _propagate(end[1], onward)[::-1]
        yield group[0].item, found
        for number, (step, carried) in enumerate(zip(between, before, strict=True), 1):
            if after is not None:
                carried = blend(carried, after[number - 1], number / len(group))
            yield step.item, self._select(mark_carried(carried, step.item.image))

    def _forward_flow(self, step: LinkedFrame[Item]) -> Flow:
        """Return the flow from the frame before to this one."""
        assert step.backward_flow is not None
        return self._estimate(step.backward_flow.source, step.backward_flow.target)


def mark_carried(found: Detections, image: Image) -> Detections:
    """Mark detections that were carried to a frame."""
    return replace(found, picture=image, coefficients=None, carried=True)


def _propagate(found: Detections, flows: Sequence[Flow | None]) -> list[Detections]:
    """Carry detections along 1, 2, ... flows, each from a frame to the previous one."""
    carried = []
    for flow in flows:
        assert flow is not None
        found = carry(found, flow)
        carried.append(found)
    return carried


def _is_lost(carried: Detections, seen: Detections) -> bool:
    """Tell whether an object of either has no object of its class in its place in the other."""
    overlaps = overlap(carried, seen)
    return len(match(overlaps, _DRIFTED)) < max(len(carried), len(seen))


def blend(before: Detections, after: Detections, share: float) -> Detections:
    """Combine the detections that two key frames give for a frame between them, best first.

    An object in both is interpolated; the score of an object in only one fades.

    Args:
        before: from the earlier key frame.
        after: from the later key frame.
        share: weight of the later one, 0 to 1.
    """
    both = match(overlap(before, after), _SAME)
    mine, others = [i for i, _ in both], [j for _, j in both]
    alone = [i for i in range(len(before)) if i not in mine]
    new = [j for j in range(len(after)) if j not in others]
    before, after = (replace(found, coefficients=None) for found in (before, after))
    parts = [_between(before[mine], after[others], share)] if both else []
    parts += [_faded(before[alone], 1 - share)] if alone else []
    parts += [_faded(after[new], share)] if new else []
    if not parts:
        return before
    together = concatenate_groups(parts)
    return together[together.scores.argsort(descending=True, stable=True)]


def _between(one: Detections, other: Detections, share: float) -> Detections:
    mixed = {
        name: torch.lerp(getattr(one, name).float(), getattr(other, name).float(), share)
        for name in _MIXED
    }
    return replace(one, **mixed)  # type: ignore[arg-type]


def _faded(found: Detections, share: float) -> Detections:
    return replace(found, scores=found.scores * share)


def match(overlaps: Floats, least: float) -> list[tuple[int, int]]:
    """Pair rows and columns of (N, M) overlaps that reach `least`."""
    return match_pairs(np.where(overlaps >= least, overlaps, 0.0))


def overlap(one: Detections, other: Detections) -> Floats:
    """Return the (N, M) intersections over unions; 0 for different classes.

    They are of masks on a coarse grid, or of boxes if a mask is too small for that or absent.
    """
    first, second = small_masks(one), small_masks(other)
    cells = np.minimum(first.sum(axis=(1, 2))[:, None], second.sum(axis=(1, 2)))
    of_boxes = box_iou(one.boxes, other.boxes).numpy()
    overlaps = np.where(cells < _FEW_CELLS, of_boxes, mask_overlaps(first, second))
    same = one.labels.numpy()[:, None] == other.labels.numpy()
    return np.where(same, overlaps, 0).astype(np.float32)
