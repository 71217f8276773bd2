"""The frame pipeline: read, predict, draw, and write or show, each in its own thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.video import VideoWriter
from layers.structures import Detections

from .visualize import close_window, draw_fps, show

Image = NDArray[np.uint8]
Predict = Callable[[list[Image]], list[Detections]]
Draw = Callable[[Image, Detections], Image]
T = TypeVar("T")

WINDOW = "YOLACT"


class FrameSource(Protocol):
    """Where frames come from; `data.video.VideoSource` is one."""

    @property
    def fps(self) -> float:
        """Frames per second."""

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""

    @property
    def is_live(self) -> bool:
        """Whether frames pass even if nobody reads them."""

    @property
    def broken_frames(self) -> int:
        """Frames skipped so far because they could not be decoded."""

    def __iter__(self) -> Iterator[Image]:
        """Yield (H, W, 3) uint8 RGB frames."""


@dataclass(frozen=True)
class VideoReport:
    """What a run did.

    Attributes:
        frames: frames that went through the network and came out.
        seconds: wall time.
        fps: frames / seconds.
        dropped: frames skipped: stale ones of a live source, and broken ones.
    """

    frames: int
    seconds: float
    fps: float
    dropped: int


class _Read(NamedTuple):
    position: int
    image: Image


class _Predicted(NamedTuple):
    position: int
    image: Image
    detections: Detections


class Cancelled(Exception):
    """The other end of a channel has gone away."""


class Channel(Generic[T]):
    """A small bounded queue between two threads that either end can close.

    The producer ends it by `finish`, if need be with the error that stopped it, which the consumer
    meets after everything sent before. The consumer ends it by `cancel`, which stops the producer.

    Args:
        capacity: items held before `put` waits.
        drop_stale: never wait; forget the oldest item instead.
    """

    def __init__(self, capacity: int, *, drop_stale: bool = False):
        """Start empty and open."""
        self.dropped = 0
        self._items: deque[T] = deque()
        self._capacity, self._drop_stale = capacity, drop_stale
        self._changed = threading.Condition()
        self._finished = self._cancelled = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Send an item.

        Raises:
            Cancelled: the consumer wants no more.
        """
        with self._changed:
            if self._drop_stale and len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._wait(lambda: len(self._items) < self._capacity)
            self._items.append(item)
            self._changed.notify_all()

    def take(self, most: int = 1, *, fill: bool = True) -> list[T]:
        """Receive items in order; an empty list means the end.

        Args:
            most: items to return at most.
            fill: wait for that many, unless the end comes first; else return what there is.

        Raises:
            Cancelled: this channel was cancelled.
            BaseException: the producer's error.
        """
        enough = min(most, self._capacity) if fill else 1
        with self._changed:
            self._wait(lambda: len(self._items) >= enough or self._finished)
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
        if not taken and self._error is not None:
            raise self._error
        return taken

    def pause(self, seconds: float) -> None:
        """Sleep in the producer, but not past `cancel`.

        Raises:
            Cancelled: the consumer wants no more.
        """
        until = time.perf_counter() + seconds
        with self._changed:
            while not self._cancelled and (left := until - time.perf_counter()) > 0:
                self._changed.wait(left)
            if self._cancelled:
                raise Cancelled

    def finish(self, error: BaseException | None = None) -> None:
        """End the channel from the producer's side."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def cancel(self) -> None:
        """End the channel from the consumer's side, or from outside."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool]) -> None:
        while not self._cancelled and not ready():
            self._changed.wait(0.2)  # a wait without an end would not see Ctrl-C on Windows
        if self._cancelled:
            raise Cancelled


def run_video(
    source: FrameSource,
    predict: Predict,
    draw: Draw,
    *,
    output: Path | None,
    display: bool,
    batch: int = 1,
    show_fps: bool = False,
    emulate_playback: bool = False,
    on_frame: Callable[[int, Detections], None] | None = None,
    max_frames: int | None = None,
) -> VideoReport:
    """Detect in every frame of a video, and write or show the result while the next is computed.

    A file is processed completely and in order. A live source skips frames that have become stale,
    so that what is shown lags about one frame behind. Whatever ends the run (the stream, an error
    in any stage, Esc, Ctrl-C), the output is finished and no thread stays behind.

    Args:
        source: an opened video.
        predict: the network, for a list of frames.
        draw: makes the picture of one frame; not called when nobody will see it.
        output: video file to write.
        display: show the result in a window; Esc or closing it ends the run.
        batch: frames for each call of `predict`; the last call may get fewer.
        show_fps: write the current speed into the picture.
        emulate_playback: read a file no faster than it would play.
        on_frame: called in order with a frame's position in the source and its detections.
        max_frames: stop after that many frames.

    Raises:
        ValueError: the output cannot be written, or a number below 1.
        OSError: there is no display to show on.
    """
    if batch < 1 or (max_frames is not None and max_frames < 1):
        raise ValueError(f"batch ({batch}) and max_frames ({max_frames}) must be 1 or more")
    start, frames = time.perf_counter(), 0
    # A window without a file is for watching: nobody wants to see a file faster than it plays.
    pace = not source.is_live and (emulate_playback or (display and output is None))
    if output is None and not display:
        draw = _keep
    stages = _Stages(source, predict, draw, batch, pace=pace, max_frames=max_frames)
    with ExitStack() as stack:
        sink = _Sink(source, output, display, show_fps)
        stack.callback(sink.close)
        stack.callback(stages.stop)
        for position, image, detections in stages:
            if on_frame is not None:
                on_frame(position, detections)
            frames += 1
            if not sink.put(position, image) or frames == max_frames:
                break
    seconds = time.perf_counter() - start
    dropped = stages.frames.dropped + source.broken_frames
    return VideoReport(frames, seconds, frames / seconds if seconds > 0 else 0.0, dropped)


class _Stages:
    """The three threads before the last stage, and the channels between them."""

    def __init__(
        self,
        source: FrameSource,
        predict: Predict,
        draw: Draw,
        batch: int,
        *,
        pace: bool,
        max_frames: int | None,
    ):
        live = source.is_live
        ahead = batch if live else 2 * batch  # a file is read ahead, a camera is not
        self.frames = Channel[_Read](ahead, drop_stale=live)
        self.predicted = Channel[_Predicted](batch)
        self.drawn = Channel[_Predicted](1 if live else 2)
        frames: Iterable[Image] = source if live else islice(source, max_frames)
        jobs = (
            lambda: _read_stage(frames, self.frames, 1 / source.fps if pace else 0.0),
            lambda: _predict_stage(self.frames, predict, self.predicted, batch, fill=not live),
            lambda: _draw_stage(self.predicted, draw, self.drawn),
        )
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]

    def __iter__(self) -> Iterator[_Predicted]:
        """Start; yield the drawn frames in order; raise the error of the stage that failed."""
        for thread in self._threads:
            thread.start()
        while taken := self.drawn.take():
            yield from taken

    def stop(self) -> None:
        """End all threads and wait for them."""
        for channel in (self.frames, self.predicted, self.drawn):
            channel.cancel()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()


def _read_stage(source: Iterable[Image], outbox: Channel[_Read], interval: float) -> None:
    with _handover(None, outbox):
        due = time.perf_counter()
        for position, image in enumerate(source):
            if interval:
                # A late frame moves the schedule: no burst catches up after a slow stretch.
                due = max(due, time.perf_counter())
                outbox.pause(due - time.perf_counter())
                due += interval
            outbox.put(_Read(position, image))


def _predict_stage(
    inbox: Channel[_Read], predict: Predict, outbox: Channel[_Predicted], batch: int, *, fill: bool
) -> None:
    with _handover(inbox, outbox):
        while reads := inbox.take(batch, fill=fill):
            results = predict([read.image for read in reads])
            for read, detections in zip(reads, results, strict=True):
                outbox.put(_Predicted(read.position, read.image, detections))


def _draw_stage(inbox: Channel[_Predicted], draw: Draw, outbox: Channel[_Predicted]) -> None:
    with _handover(inbox, outbox):
        while taken := inbox.take():
            for position, image, detections in taken:
                outbox.put(_Predicted(position, draw(image, detections), detections))


def _keep(image: Image, _: Detections) -> Image:
    return image


@contextmanager
def _handover(
    inbox: Channel[_Read] | Channel[_Predicted] | None, outbox: Channel[_Read] | Channel[_Predicted]
) -> Iterator[None]:
    """Run a stage: whatever ends it, stop the stage before and pass the news to the one after."""
    failure = None
    try:
        yield
    except Cancelled:
        pass
    except BaseException as error:
        failure = error
    finally:
        if inbox is not None:
            inbox.cancel()
        outbox.finish(failure)


class _Sink:
    """The last stage, in the caller's thread because windows demand it: write and show."""

    def __init__(self, source: FrameSource, output: Path | None, display: bool, show_fps: bool):
        self._writer = VideoWriter(output, source.fps, source.image_hw) if output else None
        self._display, self._show_fps, self._is_live = display, show_fps, source.is_live
        self._last: int | None = None
        self._times: deque[float] = deque(maxlen=31)

    def put(self, position: int, image: Image) -> bool:
        """Deliver one frame; False when the user has seen enough."""
        if self._show_fps:
            image = draw_fps(image, f"{self._speed():.1f} fps")
        if self._writer is not None:
            # Repeated in place of the ones dropped since, so that a recording keeps real time.
            gap = position - self._last if self._is_live and self._last is not None else 1
            for _ in range(gap):
                self._writer.write(image)
        self._last = position
        return show(image, WINDOW, wait_ms=1) if self._display else True

    def close(self) -> None:
        """Finish the file and close the window."""
        if self._writer is not None:
            self._writer.close()
        if self._display:
            close_window(WINDOW)

    def _speed(self) -> float:
        """Measure frames per second over the last second or so."""
        self._times.append(time.perf_counter())
        passed = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / passed if passed > 0 else 0.0
