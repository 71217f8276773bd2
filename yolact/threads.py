"""A bounded queue between threads, and an ordered parallel map."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


class Cancelled(Exception):
    """The channel was cancelled by its consumer."""


class Channel(Generic[T]):
    """A bounded queue between two threads that either end can close.

    The producer closes it with `finish`, passing the error that stopped it, if any: the consumer
    receives all earlier items, then that error. The consumer closes it with `cancel`: the items are
    discarded, and the producer's next call raises `Cancelled`.

    Args:
        capacity: number of items held before `put` waits; at least 1.
        drop_stale: `put` never waits, but discards the oldest item.

    Attributes:
        dropped: number of items that `drop_stale` discarded.
    """

    def __init__(self, capacity: int, *, drop_stale: bool = False):
        self.dropped = 0
        self._items: deque[T] = deque()
        self._capacity, self._drop_stale = capacity, drop_stale
        self._changed = threading.Condition()
        self._finished = self._cancelled = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Append an item, waiting for room.

        Raises:
            Cancelled: the channel was cancelled.
        """
        with self._changed:
            if self._drop_stale and len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._wait(lambda: len(self._items) < self._capacity)
            self._items.append(item)
            self._changed.notify_all()

    def take(self, most: int = 1, *, fill: bool = True) -> list[T]:
        """Remove and return the oldest items, waiting for any; an empty list means the end.

        Args:
            most: maximum number of items.
            fill: wait for `most` items, or for the end.

        Raises:
            Cancelled: the channel was cancelled.
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
        """Sleep in the producer until the time is over.

        Raises:
            Cancelled: the channel was cancelled, which ends the sleep.
        """
        until = time.perf_counter() + seconds
        with self._changed:
            while not self._cancelled and (left := until - time.perf_counter()) > 0:
                self._changed.wait(left)
            if self._cancelled:
                raise Cancelled

    def finish(self, error: BaseException | None = None) -> None:
        """Close the channel from the producer's side; items put before can still be taken."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def cancel(self) -> None:
        """Close the channel from the consumer's side, or from outside; discard its items."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool]) -> None:
        while not self._cancelled and not ready():
            self._changed.wait(0.2)  # with a timeout, or Windows would not see Ctrl-C
        if self._cancelled:
            raise Cancelled


class DeferredError(Generic[T]):
    """Items up to an error of their iteration, which is kept for later.

    Attributes:
        failure: the error, if there was one.
    """

    def __init__(self, items: Iterable[T]):
        self._items = items
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[T]:
        try:
            yield from self._items
        except Exception as error:
            self.failure = error

    def reraise(self) -> None:
        """Raise the error, if there was one."""
        if self.failure is not None:
            raise self.failure


def map_ahead(
    function: Callable[[T], Result], items: Iterable[T], workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield the results of a function for all items, in order, from a pool of threads.

    Close the generator with `contextlib.closing`: this waits for running calls and starts no
    others.

    Args:
        function: called in the threads; its error is raised instead of its result.
        items: iterated in the caller's thread. An exception of the iteration is raised after the
            results of all items before it; KeyboardInterrupt is raised at once.
        workers: number of threads.
        ahead: number of items to read beyond the one whose result is yielded next. A result waits
            until they are read, so 0 suits items that arrive slowly.
    """
    running: deque[Future[Result]] = deque()
    readable = DeferredError(items)
    pool = ThreadPoolExecutor(workers)
    try:
        for item in readable:
            running.append(pool.submit(function, item))
            while len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
    readable.reraise()
