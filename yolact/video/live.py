"""A camera without lag: the network works on the newest frame, and flow carries its results on.

Every frame is shown as it arrives, with the last result moved to the objects' current places. A
slower network makes that result older, but does not delay the picture.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from data.images import Image
from yolact.results.detections import Detections
from yolact.threads import Cancelled, Channel

from .flow import Flow, FlowEstimator, SmallFrame, carry, shrink
from .keyframes import Item, flow_unless_cut, mark_carried
from .stages import (
    Finish,
    FpsCounter,
    Frame,
    FramePacer,
    Predict,
    Result,
    Select,
    Stages,
    finish_stage,
    iterate_channel,
    put_all,
    read_stage,
)

if TYPE_CHECKING:
    from data.video.reader import VideoSource


def live_stages(source: VideoSource, predict: Predict, finish: Finish, select: Select) -> Stages:
    """Return the threads that show a source at its own rate, whatever `predict` costs."""
    frames = Channel[Frame](1, drop_stale=True)
    followed, drawn = (Channel[Result](1, drop_stale=True) for _ in range(2))
    slot, rate = LatestFrame(), FpsCounter()
    jobs = (
        lambda: read_stage(source, frames, FramePacer(0), None),
        lambda: network_stage(slot, predict, rate),
        lambda: put_all(follow(iterate_channel(frames), slot, predict, select), followed),
        lambda: finish_stage(followed, finish, drawn),
    )
    return Stages(jobs, (frames, slot, followed), drawn, rate)


class LatestFrame:
    """Exchange between threads: the newest frame for the network, its results for later frames."""

    dropped = 0  # a frame that the network skips is still shown

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: tuple[int, Image] | None = None
        self._taken: int | None = None
        self._found: list[tuple[int, Detections]] = []
        self._finished = False
        self._failure: BaseException | None = None

    def exchange(
        self, number: int, image: Image
    ) -> tuple[int | None, list[tuple[int, Detections]]]:
        """Replace the newest frame.

        Returns:
            The number of the previous frame, if the network has taken it, and all results since
            then, with the numbers of their frames.

        Raises:
            Cancelled: the exchange was cancelled.
            BaseException: the error of the network.
        """
        with self._changed:
            self._check()
            taken, found = self._taken, self._found
            self._newest, self._taken, self._found = (number, image), None, []
            self._changed.notify_all()
        return taken, found

    def take(self) -> tuple[int, Image] | None:
        """Wait for a frame that was not yet taken; return None at the end."""
        with self._changed:
            while self._newest is None and not self._finished:
                self._changed.wait(0.2)  # with a timeout, or Windows would not see Ctrl-C
            frame, self._newest = self._newest, None
            self._taken = frame[0] if frame else None
            return None if self._finished else frame

    def give(self, number: int, found: Detections) -> None:
        """Hand over the network's result for a frame."""
        with self._changed:
            self._found.append((number, found))

    def finish(self, failure: BaseException | None = None) -> None:
        """End the work of both sides, with the error that ended it, if any."""
        with self._changed:
            self._finished, self._failure = True, self._failure or failure
            self._changed.notify_all()

    def cancel(self) -> None:
        """End the work of both sides from outside."""
        self.finish(Cancelled())

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


def network_stage(slot: LatestFrame, predict: Predict, rate: FpsCounter) -> None:
    """Run the network repeatedly, each time on the newest frame."""
    failure = None
    try:
        while (taken := slot.take()) is not None:
            number, image = taken
            (found,) = predict([image])
            slot.give(number, found)
            rate.tick()
    except BaseException as error:
        failure = error
    finally:
        slot.finish(failure)


def follow(
    frames: Iterable[Item], slot: LatestFrame, predict: Predict, select: Select
) -> Iterator[tuple[Item, Detections]]:
    """Yield every frame with the last result of the network, carried to it.

    Only the first frame waits for its own result. After a cut, nothing is shown until the next one.

    Args:
        frames: frames in order.
        slot: the exchange with the network's thread.
        predict: segments the first frame.
        select: keeps the detections that count, dropping objects that left the frame.
    """
    estimate = FlowEstimator()
    small: SmallFrame | None = None
    latest: Detections | None = None
    flows: dict[int, Flow] = {}  # from this frame to each one that the network works on
    try:
        for number, frame in enumerate(frames):
            before, small = small, shrink(frame.image)
            if before is None or latest is None:
                (latest,) = predict([frame.image])
                yield frame, latest
                continue
            backward_flow, _ = flow_unless_cut(estimate, small, before)
            taken, found = slot.exchange(number, frame.image)
            if backward_flow is None:
                flows, latest = {}, replace(latest[:0], image_hw=small.image_hw)
            else:
                # Chain the flows: carrying a late result frame by frame would delay the picture.
                flows = {known: backward_flow.after(flow) for known, flow in flows.items()}
                if taken is not None:
                    flows[taken] = backward_flow
                latest = _newest(latest, backward_flow, found, flows)
                flows = {known: flow for known, flow in flows.items() if known not in dict(found)}
            yield frame, select(mark_carried(latest, frame.image))
    finally:
        slot.finish()


def _newest(
    latest: Detections,
    backward_flow: Flow,
    found: list[tuple[int, Detections]],
    flows: dict[int, Flow],
) -> Detections:
    """Carry the newest result to the current frame; a result from before a cut has no flow."""
    for number, result in reversed(found):
        if number in flows:
            return carry(result, flows[number])
    return carry(latest, backward_flow)
