"""The frame pipeline: read, predict, draw, and write or show, each in its own thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data.video.writer import VideoWriter
from yolact.drawing.detections import draw_fps
from yolact.drawing.window import close_window, show
from yolact.results.detections import Detections
from yolact.threads import Cancelled, Channel, map_ahead

Image = NDArray[np.uint8]
Predict = Callable[[list[Image]], list[Detections]]
Draw = Callable[[Image, Detections], Image]

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

    @property
    def seconds(self) -> float:
        """When the frame delivered last is to be seen, counted from the video's beginning."""

    @property
    def path(self) -> Path | None:
        """The file, whose sound the output takes over; None for cameras and streams."""

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
    seconds: float  # in the video
    read_at: float  # on the clock of time.perf_counter


class _Predicted(NamedTuple):
    read: _Read
    detections: Detections


def run_video(
    source: FrameSource,
    predict: Predict,
    draw: Draw,
    *,
    output: Path | None,
    display: bool,
    batch: int = 1,
    workers: int = 1,
    show_fps: bool = False,
    emulate_playback: bool = False,
    on_frame: Callable[[int, Detections], None] | None = None,
    max_frames: int | None = None,
) -> VideoReport:
    """Detect in every frame of a video, and write or show the result while the next is computed.

    A file is processed completely and in order. A live source skips stale frames, so that what is
    shown lags about one frame behind. Whatever ends the run (the stream, an error anywhere, Esc,
    Ctrl-C), the output is finished and no thread stays behind. It has the source's time and sound.

    Args:
        source: an opened video.
        predict: the network, for a list of frames.
        draw: makes the picture of one frame; not called when nobody will see it.
        output: video file to write.
        display: show the result in a window; Esc or closing it ends the run.
        batch: frames for each call of `predict`; the last call may get fewer.
        workers: threads that call `predict`; one, where frames are read no faster than they play.
        show_fps: write the current speed into the picture, and for a live source the time from
            reading a frame to delivering it.
        emulate_playback: read a file no faster than it would play.
        on_frame: called in order with a frame's position in the source and what was found.
        max_frames: stop after that many frames.

    Raises:
        ValueError: the output cannot be written, or a number is below 1.
        OSError: there is no display to show on, or the disk is full.
    """
    for name, number in (("batch", batch), ("workers", workers), ("max_frames", max_frames)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}: expected 1 or more")
    start, frames = time.perf_counter(), 0
    # A window without a file is for watching: nobody wants to see a file faster than it plays.
    pace = not source.is_live and (emulate_playback or (display and output is None))
    if output is None and not display:
        draw = _keep
    stages = _Stages(source, predict, draw, batch, workers, pace=pace, max_frames=max_frames)
    with ExitStack() as stack:
        sink = _Sink(source, output, display, show_fps)
        stack.callback(sink.close)
        stack.callback(stages.stop)
        for read, detections in stages:
            if on_frame is not None:
                on_frame(read.position, detections)
            frames += 1
            if not sink.put(read) or frames == max_frames:
                break
    seconds = time.perf_counter() - start
    dropped = stages.dropped + source.broken_frames
    return VideoReport(frames, seconds, frames / seconds if seconds > 0 else 0.0, dropped)


class _Stages:
    """The threads before the last stage, and the channels between them."""

    def __init__(
        self,
        source: FrameSource,
        predict: Predict,
        draw: Draw,
        batch: int,
        workers: int,
        *,
        pace: bool,
        max_frames: int | None,
    ):
        live = source.is_live
        ahead = batch if live else 2 * batch  # a file is read ahead, a camera is not
        # Whichever stage is the slowest, no frame waits for it longer than until the next is there.
        self._frames = Channel[_Read](ahead, drop_stale=live)
        self._predicted = Channel[_Predicted](batch, drop_stale=live)
        self._drawn = Channel[_Predicted](batch if live else 2, drop_stale=live)
        self._channels = (self._frames, self._predicted, self._drawn)
        most = None if live else max_frames
        interval = 1 / source.fps if pace else 0.0
        take = partial(self._frames.take, batch, fill=not live)
        workers = 1 if live or pace else workers
        jobs = (
            lambda: _read_stage(source, self._frames, interval, most),
            lambda: _predict_stage(take, predict, self._frames, self._predicted, workers),
            lambda: _draw_stage(self._predicted, draw, self._drawn),
        )
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]

    def __iter__(self) -> Iterator[_Predicted]:
        """Start; yield the drawn frames in order; raise the error of the stage that failed."""
        for thread in self._threads:
            thread.start()
        while taken := self._drawn.take():
            yield from taken

    @property
    def dropped(self) -> int:
        """Stale frames that were skipped, wherever they waited."""
        return sum(channel.dropped for channel in self._channels)

    def stop(self) -> None:
        """End all threads and wait for them."""
        for channel in self._channels:
            channel.cancel()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()


def _read_stage(
    source: FrameSource, outbox: Channel[_Read], interval: float, most: int | None
) -> None:
    with _handover(None, outbox):
        due = time.perf_counter()
        for position, image in enumerate(islice(source, most)):
            read_at = time.perf_counter()
            if interval:
                # A late frame moves the schedule: no burst catches up after a slow stretch.
                due = max(due, time.perf_counter())
                outbox.pause(due - time.perf_counter())
                due += interval
            outbox.put(_Read(position, image, source.seconds, read_at))


def _predict_stage(
    take: Callable[[], list[_Read]],
    predict: Predict,
    inbox: Channel[_Read],
    outbox: Channel[_Predicted],
    workers: int,
) -> None:
    def work(reads: list[_Read]) -> list[_Predicted]:
        results = predict([read.image for read in reads])
        return [_Predicted(*pair) for pair in zip(reads, results, strict=True)]

    # One more than at work, so that whoever finishes before its turn has something to go on with.
    done = map_ahead(work, iter(take, []), workers, ahead=workers if workers > 1 else 0)
    with _handover(inbox, outbox), closing(done):
        for predicted in chain.from_iterable(done):
            outbox.put(predicted)


def _draw_stage(inbox: Channel[_Predicted], draw: Draw, outbox: Channel[_Predicted]) -> None:
    with _handover(inbox, outbox):
        while taken := inbox.take():
            for read, detections in taken:
                drawn = read._replace(image=draw(read.image, detections))
                outbox.put(_Predicted(drawn, detections))


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
        self._writer = (
            VideoWriter(output, source.fps, source.image_hw, source.path) if output else None
        )
        self._display, self._show_fps, self._is_live = display, show_fps, source.is_live
        self._times: deque[float] = deque(maxlen=31)

    def put(self, read: _Read) -> bool:
        """Deliver one drawn frame; False when the user has seen enough."""
        image = read.image
        if self._show_fps:
            image = draw_fps(image, self._speed(read.read_at))
        if self._writer is not None:
            self._writer.write(image, read.seconds)
        return show(image, WINDOW, wait_ms=1) if self._display else True

    def close(self) -> None:
        """Close the window and finish the file."""
        if self._display:
            close_window(WINDOW)
        if self._writer is not None:
            self._writer.close()

    def _speed(self, read_at: float) -> str:
        """Tell the frames per second of the last second or so, and a live frame's age."""
        now = time.perf_counter()
        self._times.append(now)
        passed = now - self._times[0]
        fps = (len(self._times) - 1) / passed if passed > 0 else 0.0
        age = f", {1000 * (now - read_at):.0f} ms" if self._is_live else ""
        return f"{fps:.1f} fps{age}"
