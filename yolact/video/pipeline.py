"""A video read, predicted, drawn, and written or shown, each step in its own thread."""

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
from typing import NamedTuple

from data.images import Image
from data.video.reader import VideoSource
from data.video.writer import VideoWriter
from yolact.drawing.detections import draw_fps
from yolact.drawing.window import close_window, show
from yolact.results.detections import Detections
from yolact.threads import Cancelled, Channel, map_ahead

Predict = Callable[[list[Image]], list[Detections]]
Draw = Callable[[Image, Detections], Image]

WINDOW = "YOLACT"


@dataclass(frozen=True)
class VideoReport:
    """Counts and speed of a processed video.

    Attributes:
        frames: frames that were delivered.
        seconds: wall time.
        fps: frames / seconds.
        dropped: frames skipped: stale ones of a live source, and broken ones.
    """

    frames: int
    seconds: float
    fps: float
    dropped: int


class _Frame(NamedTuple):
    position: int  # in the source
    image: Image  # (H, W, 3) uint8 RGB
    seconds: float  # time stamp in the video
    read_at: float  # by time.perf_counter


class _Result(NamedTuple):
    frame: _Frame
    detections: Detections


def run_video(
    source: VideoSource,
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
    """Segment every frame of a video, and write or show one result while the next is computed.

    A file is processed completely and in order. A live source skips stale frames, so that the
    picture lags about one frame behind. Whatever ends the run (the stream, an error in any stage,
    Esc, Ctrl-C), the output is finished, with the source's timing and sound, and all threads end.

    Args:
        source: an opened video.
        predict: segments a list of frames.
        draw: draws the detections of a frame; not called without output and display.
        output: video file to write.
        display: show the result in a window; Esc or closing it ends the run.
        batch: frames for each call of `predict`; the last call may get fewer.
        workers: threads that call `predict`; only one is used at the speed of playback.
        show_fps: draw the current speed, and for a live source the time from reading a frame to
            delivering it.
        emulate_playback: read a file no faster than it would play.
        on_frame: called in order with a frame's position in the source and its detections.
        max_frames: stop after that many frames.

    Raises:
        ValueError: the output cannot be written, or a number is below 1.
        OSError: there is no display to show on, or the disk is full.
    """
    for name, number in (("batch", batch), ("workers", workers), ("max_frames", max_frames)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}: expected 1 or more")
    start, frames = time.perf_counter(), 0
    # A file that is only shown is watched, so it plays at its own speed.
    pace = not source.is_live and (emulate_playback or (display and output is None))
    if output is None and not display:
        draw = _leave_undrawn
    stages = _Stages(source, predict, draw, batch, workers, pace=pace, max_frames=max_frames)
    with ExitStack() as stack:
        sink = _Sink(source, output, display, show_fps)
        stack.callback(sink.close)
        stack.callback(stages.stop)
        for frame, detections in stages:
            if on_frame is not None:
                on_frame(frame.position, detections)
            frames += 1
            if not sink.put(frame) or frames == max_frames:
                break
    seconds = time.perf_counter() - start
    dropped = stages.dropped + source.broken_frames
    return VideoReport(frames, seconds, frames / seconds if seconds > 0 else 0.0, dropped)


class _Stages:
    """The threads that read, predict and draw, and the channels that link them."""

    def __init__(
        self,
        source: VideoSource,
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
        # Live, a frame waits for the slowest stage at most until the next one replaces it.
        self._frames = Channel[_Frame](ahead, drop_stale=live)
        self._predicted = Channel[_Result](batch, drop_stale=live)
        self._drawn = Channel[_Result](batch if live else 2, drop_stale=live)
        self._channels = (self._frames, self._predicted, self._drawn)
        most = None if live else max_frames
        interval = 1 / source.fps if pace else 0.0
        take = partial(self._frames.take, batch, fill=not live)
        workers = 1 if live or pace else workers
        jobs = (
            lambda: _read_stage(source, self._frames, interval, most),
            lambda: _predict_stage(take, predict, self._predicted, workers),
            lambda: _draw_stage(self._predicted, draw, self._drawn),
        )
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]

    def __iter__(self) -> Iterator[_Result]:
        """Start the threads; yield the drawn frames in order, then raise a failed stage's error."""
        for thread in self._threads:
            thread.start()
        while taken := self._drawn.take():
            yield from taken

    @property
    def dropped(self) -> int:
        """Number of stale frames skipped in all channels."""
        return sum(channel.dropped for channel in self._channels)

    def stop(self) -> None:
        """Cancel all channels, and wait until the threads end."""
        for channel in self._channels:
            channel.cancel()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()


def _read_stage(
    source: VideoSource, outbox: Channel[_Frame], interval: float, most: int | None
) -> None:
    with _finishing(outbox):
        due = time.perf_counter()
        for position, image in enumerate(islice(source, most)):
            read_at = time.perf_counter()
            if interval:
                # A late frame moves the schedule: no burst catches up after a slow stretch.
                due = max(due, time.perf_counter())
                outbox.pause(due - time.perf_counter())
                due += interval
            outbox.put(_Frame(position, image, source.seconds, read_at))


def _predict_stage(
    take: Callable[[], list[_Frame]],
    predict: Predict,
    outbox: Channel[_Result],
    workers: int,
) -> None:
    def predict_batch(frames: list[_Frame]) -> list[_Result]:
        found = predict([frame.image for frame in frames])
        return [_Result(*pair) for pair in zip(frames, found, strict=True)]

    # One batch more than workers, so that one who finishes out of turn does not wait.
    ahead = workers if workers > 1 else 0
    batches = map_ahead(predict_batch, iter(take, []), workers, ahead)
    with _finishing(outbox), closing(batches):
        for result in chain.from_iterable(batches):
            outbox.put(result)


def _draw_stage(inbox: Channel[_Result], draw: Draw, outbox: Channel[_Result]) -> None:
    with _finishing(outbox):
        while taken := inbox.take():
            for frame, detections in taken:
                drawn = frame._replace(image=draw(frame.image, detections))
                outbox.put(_Result(drawn, detections))


def _leave_undrawn(image: Image, _: Detections) -> Image:
    return image


@contextmanager
def _finishing(outbox: Channel[_Frame] | Channel[_Result]) -> Iterator[None]:
    """Finish a stage's channel when the stage ends, with the error that ended it, if any."""
    failure = None
    try:
        yield
    except Cancelled:
        pass
    except BaseException as error:
        failure = error
    finally:
        outbox.finish(failure)


class _Sink:
    """The last stage, which writes and shows; in the caller's thread, as windows demand."""

    def __init__(self, source: VideoSource, output: Path | None, display: bool, show_fps: bool):
        self._writer = (
            VideoWriter(output, source.fps, source.image_hw, source.sound) if output else None
        )
        self._display, self._show_fps, self._is_live = display, show_fps, source.is_live
        self._times: deque[float] = deque(maxlen=31)

    def put(self, frame: _Frame) -> bool:
        """Deliver a drawn frame; return False once the user closes the window."""
        image = frame.image
        if self._show_fps:
            image = draw_fps(image, self._speed(frame.read_at))
        if self._writer is not None:
            self._writer.write(image, frame.seconds)
        return show(image, WINDOW, wait_ms=1) if self._display else True

    def close(self) -> None:
        """Finish the file and close the window."""
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            if self._display:
                close_window(WINDOW)

    def _speed(self, read_at: float) -> str:
        """Format the frames per second of the last 30 frames, and the age of a live frame."""
        now = time.perf_counter()
        self._times.append(now)
        passed = now - self._times[0]
        fps = (len(self._times) - 1) / passed if passed > 0 else 0.0
        age = f", {1000 * (now - read_at):.0f} ms" if self._is_live else ""
        return f"{fps:.1f} fps{age}"
