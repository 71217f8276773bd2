"""What one server accepts: sizes, rates, requests at a time, seconds."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.types import Receive

Result = TypeVar("Result")

_CLIENTS = 1024  # whose buckets are remembered
_ARRIVING = 8  # times as many uploads as are worked on or wait


@dataclass(frozen=True)
class Limits:
    """What one server accepts.

    Attributes:
        upload_bytes: of a request.
        pixels: of an image; the largest take seconds, and a gigabyte while they are decoded.
        rate: requests per second of one client, in the long run.
        burst: requests of one client at once, after a pause.
        waiting: requests beyond those that are worked on.
        seconds: to receive a request, and again to answer it.
    """

    upload_bytes: int = 20_000_000
    pixels: int = 50_000_000
    rate: float = 30.0
    burst: int = 60
    waiting: int = 8
    seconds: float = 30.0


class TokenBuckets:
    """A bucket of tokens for each client, which fills steadily; a request takes one.

    Args:
        rate: tokens per second.
        burst: that a bucket holds.
        clock: tells the seconds.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # the client seen last is the last

    def take(self, client: str) -> float:
        """Take a token; return 0, or in how many seconds there will be one."""
        now = self._clock()
        tokens, seen = self._buckets.pop(client, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - seen) * self._rate)
        left = tokens - 1 if tokens >= 1 else tokens
        self._buckets[client] = (left, now)
        if len(self._buckets) > _CLIENTS:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if tokens >= 1 else (1 - tokens) / self._rate


class RequestSlots:
    """A bounded number of slots for requests.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self._left = count

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a slot for one request.

        Raises:
            HTTPException: 503, all are taken.
        """
        if not self._left:
            raise HTTPException(503, "busy: too many requests at a time", {"Retry-After": "1"})
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1


class WorkerPool:
    """Threads that work, and a bounded number of requests that wait for them.

    Args:
        workers: threads.
        waiting: requests beyond these; each holds an upload in memory.
        seconds: after which an answer is given up.

    Attributes:
        arriving: slots of requests whose images are on their way; more, as they may come slowly.
        slots: of those whose images are here.
    """

    def __init__(self, workers: int, waiting: int, seconds: float) -> None:
        self.slots = RequestSlots(workers + waiting)
        self.arriving = RequestSlots(_ARRIVING * (workers + waiting))
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(workers, "segment")

    async def work(self, job: Callable[[], Result], receive: Receive) -> Result:
        """Run a job in a thread; one that had begun when it is given up ends all the same.

        Args:
            job: returns the result.
            receive: of a request whose body was read; tells when its client hangs up.

        Raises:
            HTTPException: 400, the client hung up; 504, it took too long.
        """
        running = asyncio.get_running_loop().run_in_executor(self._threads, job)
        leaving = asyncio.ensure_future(_hang_up(receive))
        ends: set[asyncio.Future[Any]] = {running, leaving}
        try:
            await asyncio.wait(ends, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            if leaving.done():
                raise HTTPException(400, "the client hung up")
            raise HTTPException(504, f"no answer within {self._seconds:g} seconds")
        finally:
            running.cancel()
            leaving.cancel()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def check_rate(buckets: TokenBuckets, client: str) -> None:
    """Count a request of a client.

    Raises:
        HTTPException: 429, there were too many.
    """
    if seconds := buckets.take(client):
        wait = {"Retry-After": str(math.ceil(seconds))}
        raise HTTPException(429, "too many requests: slow down", wait)
