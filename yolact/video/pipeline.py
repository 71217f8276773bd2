"""Process a video: read, predict, draw, and write or show, each step in its own thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

from data.images import Image, Picture
from data.video.reader import VideoSource
from data.video.writer import VideoWriter
from yolact.drawing.detections import draw_fps
from yolact.drawing.window import close_window, show
from yolact.results.detections import Detections
from yolact.threads import Channel

from .keyframes import FrameGroup, KeyFrames
from .live import live_stages
from .parts import Parts
from .stages import (
    Draw,
    Finish,
    FpsCounter,
    Frame,
    FramePacer,
    Predict,
    Result,
    Stages,
    Track,
    finish_stage,
    iterate_channel,
    make_finish,
    predict_stage,
    put_all,
    read_stage,
)

WINDOW = "YOLACT"


@dataclass(frozen=True)
class VideoReport:
    """Counts and speed of a processed video.

    Attributes:
        frames: frames that were delivered.
        seconds: wall time.
        fps: frames / seconds.
        dropped: frames skipped: stale ones of a live source, and broken ones.
        video: the file written; its name differs from the requested one if that exists meanwhile.
        damage: what was broken or missing in a stored source; "" if nothing.
    """

    frames: int
    seconds: float
    fps: float
    dropped: int
    video: Path | None = None
    damage: str = ""


def run_video(
    source: VideoSource,
    predict: Predict,
    draw: Draw,
    *,
    output: Path | Parts | None,
    display: bool,
    batch: int = 1,
    workers: int = 1,
    show_fps: bool = False,
    emulate_playback: bool = False,
    on_frame: Callable[[int, Detections], None] | None = None,
    max_frames: int | None = None,
    keyframes: KeyFrames | None = None,
    track: Track | None = None,
) -> VideoReport:
    """Segment every frame of a video, and write or show one result while the next is computed.

    A file is processed completely and in order. For a live source, stale frames are skipped, so
    that the picture lags about one frame behind; with key frames, all are shown. Whatever ends the
    run (the stream, an error in any stage, Esc, Ctrl-C), the output is completed, with the source's
    timing and sound, and all threads end.

    Args:
        source: an opened video.
        predict: segments a list of frames.
        draw: draws the detections of a frame; not called without output and display.
        output: video file to write, or its parts.
        display: show the result in a window; Esc or closing it ends the run.
        batch: frames for each call of `predict`; the last call may get fewer.
        workers: threads that call `predict`; only one is used at the speed of playback.
        show_fps: draw the speed, and for a live source the time from reading to delivering a frame.
        emulate_playback: read a file no faster than it would play.
        on_frame: called in order with a frame's position in the source and its detections.
        max_frames: stop after that many frames.
        keyframes: chooses the frames that the network runs on; None for all.
        track: gives the objects ids, see `Tracker.update`; None for no ids.

    Raises:
        ValueError: the output cannot be written, or a number is below 1.
        OSError: there is no display to show on, or the disk is full.
    """
    _check(batch=batch, workers=workers, max_frames=max_frames)
    start, frames = time.perf_counter(), 0
    # A file that is only shown is for watching, so it plays at its own speed.
    pace = not source.is_live and (emulate_playback or (display and output is None))
    finish = make_finish(draw if output or display else _leave_undrawn, track)
    stages = _stages(source, predict, finish, batch, workers, pace, max_frames, keyframes)
    with ExitStack() as stack:
        sink = _Sink(source, output, display, show_fps, stages.network)
        stack.callback(sink.close)
        stack.callback(stages.stop)
        for frames, (frame, detections) in enumerate(stages, 1):
            if on_frame is not None:
                on_frame(frame.position, detections)
            if not sink.put(frame) or frames == max_frames:
                break
    seconds = time.perf_counter() - start
    dropped = stages.dropped + source.broken_frames
    return VideoReport(frames, seconds, frames / (seconds or 1), dropped, sink.path, source.damage)


def _check(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}: expected 1 or more")


def _stages(
    source: VideoSource,
    predict: Predict,
    finish: Finish,
    batch: int,
    workers: int,
    pace: bool,
    most: int | None,
    keys: KeyFrames | None,
) -> Stages:
    """Return the threads that read, run the network and draw."""
    live = source.is_live
    if live and keys is not None:
        return live_stages(source, predict, finish, keys.select)
    workers = 1 if live or pace else workers
    pacer = FramePacer(1 / source.fps if pace else 0.0)
    jobs: tuple[Callable[[], None], ...]
    if keys is not None:
        frames, filled, drawn = Channel[Frame](2), Channel[Result](2), Channel[Result](2)
        groups = Channel[FrameGroup[Frame]](batch)
        seen = Channel[tuple[FrameGroup[Frame], Detections]](batch)
        jobs = (
            lambda: read_stage(source, frames, FramePacer(0), most),
            lambda: put_all(keys.groups(iterate_channel(frames)), groups),
            lambda: predict_stage(partial(groups.take, batch), key_of, predict, seen, workers),
            lambda: put_all(keys.interpolate(iterate_channel(seen), predict), filled, pacer),
            lambda: finish_stage(filled, finish, drawn),
        )
        return Stages(jobs, (frames, groups, seen, filled), drawn)
    # A file is read ahead, a camera is not. Live, a frame waits for the slowest stage at most until
    # the next one replaces it.
    frames = Channel[Frame](batch if live else 2 * batch, drop_stale=live)
    predicted = Channel[Result](batch, drop_stale=live)
    drawn = Channel[Result](batch if live else 2, drop_stale=live)
    take = partial(frames.take, batch, fill=not live)
    jobs = (
        lambda: read_stage(source, frames, pacer, None if live else most),
        lambda: predict_stage(take, attrgetter("picture"), predict, predicted, workers),
        lambda: finish_stage(predicted, finish, drawn),
    )
    return Stages(jobs, (frames, predicted), drawn)


def _leave_undrawn(picture: Picture, _: Detections) -> Picture:
    return picture


def key_of(group: FrameGroup[Frame]) -> Image:
    """Return the key frame of a group, which the network runs on."""
    return group[0].item.image


class _Sink:
    """The last stage, which writes and shows; in the caller's thread, as windows require."""

    def __init__(
        self,
        source: VideoSource,
        output: Path | Parts | None,
        display: bool,
        show_fps: bool,
        network: FpsCounter | None,
    ):
        self._writer: VideoWriter | Parts | None = None
        if isinstance(output, Path):
            file = output, source.fps, source.image_hw, source.sound, source.card
            self._writer = VideoWriter(*file)
        elif output is not None:
            self._writer = output
        self._display, self._show_fps, self._is_live = display, show_fps, source.is_live
        self._rate, self._network = FpsCounter(), network

    @property
    def path(self) -> Path | None:
        """Return the file's path, which is final only once the file is closed."""
        return self._writer.path if self._writer else None

    def put(self, frame: Frame) -> bool:
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
        """Return text: frames per second, those of the network, and the age of a live frame."""
        network = f", network {self._network.value:.1f} fps" if self._network else ""
        age = f", {1000 * (time.perf_counter() - read_at):.0f} ms" if self._is_live else ""
        return f"{self._rate.tick():.1f} fps{network}{age}"
