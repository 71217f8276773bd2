"""Work for several threads: a bounded queue, and a map that keeps the order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


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


def map_ahead(
    function: Callable[[T], Result], items: Iterable[T], workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield what a function makes of each item, in order, while threads make the next ones.

    Args:
        function: called by several threads.
        items: read in the caller's thread, no further ahead than needed. If reading fails, the
            results of all items before come first, then the error.
        workers: threads.
        ahead: results to begin before the first that was not yielded yet is waited for. Those wait
            for the next items, so where items take their time it should be 0.

    Closing the generator waits for what was begun; `contextlib.closing` does it in any case.
    """
    running: deque[Future[Result]] = deque()
    failure: Exception | None = None
    unread = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            try:
                item = next(unread)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            running.append(pool.submit(function, item))
            while len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure
