"""The stages of a video: each a thread that takes from one channel and puts into the next."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from data.images import Image, Picture
from data.video.source import as_image
from yolact.results.detections import Detections
from yolact.threads import Cancelled, Channel, map_ahead

if TYPE_CHECKING:
    from data.video.reader import VideoSource

Predict = Callable[[list[Picture]], list[Detections]]
Draw = Callable[[Picture, Detections], Picture]
Select = Callable[[Detections], Detections]
Track = Callable[[Image, Detections, float], Detections]
"""Takes each frame in order, its detections and its time; returns the detections with ids."""

T = TypeVar("T")


class Frame(NamedTuple):
    """A frame on its way through the stages."""

    position: int  # in the source
    picture: Picture  # (H, W, 3) uint8 RGB
    seconds: float  # time stamp in the video
    read_at: float  # by time.perf_counter

    @property
    def image(self) -> Image:
        """The picture as an array, copied if it is on a GPU."""
        return as_image(self.picture)


Result = tuple[Frame, Detections]
Finish = Callable[[Frame, Detections], Result]


class FramePacer:
    """Lets one frame pass in each interval.

    Args:
        interval: in seconds; 0 for no pace.
    """

    def __init__(self, interval: float):
        self._interval, self._due = interval, time.perf_counter()

    def wait(self, outbox: Channel[Any]) -> None:
        """Sleep until the next frame is due.

        Raises:
            Cancelled: the channel was cancelled.
        """
        if self._interval:
            # A late frame shifts the schedule, so that no burst of frames follows a slow stretch.
            self._due = max(self._due, time.perf_counter())
            outbox.pause(self._due - time.perf_counter())
            self._due += self._interval


class FpsCounter:
    """Events per second, over the last 30."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=31)
        self.value = 0.0

    def tick(self) -> float:
        """Count an event, and return the rate; 0 for the first one."""
        self._times.append(time.perf_counter())
        passed = self._times[-1] - self._times[0]
        self.value = (len(self._times) - 1) / passed if passed > 0 else 0.0
        return self.value


def read_stage(
    source: VideoSource, outbox: Channel[Frame], pace: FramePacer, most: int | None
) -> None:
    """Read frames into a channel, at most `most`."""
    with finish_on_exit(outbox):
        for position, picture in enumerate(islice(source.pictures(), most)):
            read_at = time.perf_counter()
            pace.wait(outbox)
            outbox.put(Frame(position, picture, source.seconds, read_at))


def predict_stage(
    take: Callable[[], list[T]],
    picture_of: Callable[[T], Picture],
    predict: Predict,
    outbox: Channel[tuple[T, Detections]],
    workers: int,
) -> None:
    """Run the network on one picture of each item taken, in `workers` threads."""

    def predict_batch(items: list[T]) -> list[tuple[T, Detections]]:
        return list(zip(items, predict([picture_of(item) for item in items]), strict=True))

    # One batch more than workers, so that a worker that finishes out of turn need not wait.
    ahead = workers if workers > 1 else 0
    batches = map_ahead(predict_batch, iter(take, []), workers, ahead)
    with closing(batches):
        put_all(chain.from_iterable(batches), outbox)


def make_finish(draw: Draw, track: Track | None) -> Finish:
    """Return a function that adds time and ids to the detections of a frame, and draws them."""

    def finish(frame: Frame, found: Detections) -> Result:
        if track is not None:
            found = track(frame.image, found, frame.seconds)
        found = replace(found, seconds=frame.seconds)
        return frame._replace(picture=draw(frame.picture, found)), found

    return finish


def finish_stage(inbox: Channel[Result], finish: Finish, outbox: Channel[Result]) -> None:
    """Finish the frames in order."""
    put_all((finish(*result) for result in iterate_channel(inbox)), outbox)


def put_all(items: Iterable[T], outbox: Channel[T], pace: FramePacer | None = None) -> None:
    """Put all items into a channel, then mark its end."""
    with finish_on_exit(outbox):
        for item in items:
            if pace is not None:
                pace.wait(outbox)
            outbox.put(item)


def iterate_channel(inbox: Channel[T]) -> Iterator[T]:
    """Yield the items of a channel until its end."""
    while taken := inbox.take():
        yield from taken


@contextmanager
def finish_on_exit(outbox: Channel[Any]) -> Iterator[None]:
    """Mark the end of a stage's channel when the stage ends, with its error, if any."""
    failure = None
    try:
        yield
    except Cancelled:
        pass
    except BaseException as error:
        failure = error
    finally:
        outbox.finish(failure)


class Cancellable(Protocol):
    """A link between threads; see `Channel`."""

    dropped: int

    def cancel(self) -> None:
        """Wake and end all threads that wait for it."""


class Stages:
    """Threads, the channels that link them, and the drawn frames that come out at the end.

    Args:
        jobs: one for each thread; each marks the end of its channel.
        channels: the channels that link the threads.
        drawn: the channel of finished frames.

    Attributes:
        network: counter of network runs per second, if that rate differs from the frames'.
    """

    def __init__(
        self,
        jobs: Iterable[Callable[[], None]],
        channels: Iterable[Cancellable],
        drawn: Channel[Result],
        network: FpsCounter | None = None,
    ):
        self.network = network
        self._channels, self._drawn = (*channels, drawn), drawn
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]

    def __iter__(self) -> Iterator[Result]:
        """Start the threads; yield the drawn frames in order, then raise a failed stage's error."""
        for thread in self._threads:
            thread.start()
        yield from iterate_channel(self._drawn)

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
