"""Running out of GPU memory: run a smaller batch, or say in one line what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")
Result = TypeVar("Result")


@contextmanager
def out_of_memory_advice(mend: str) -> Iterator[None]:
    """Turn an out-of-memory error into one line that says what to do.

    Args:
        mend: what to do, in a few words.

    Raises:
        MemoryError: out of memory; one line.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"{str(error).split('. ', 1)[0]}; {mend}") from None


class BatchLimit:
    """Runs batches in parts that fit into memory, once a batch did not fit.

    Threads can share one.

    Attributes:
        most: maximum number of items run at a time; None as long as every batch fits.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def run(
        self, function: Callable[[Sequence[T]], list[Result]], items: Sequence[T]
    ) -> list[Result]:
        """Return a function's results for all items, in order.

        Args:
            function: takes a batch; its result for an item must not depend on the others.
            items: at least one.

        Raises:
            torch.OutOfMemoryError: a single item does not fit.
        """
        results: list[Result] = []
        while len(results) < len(items):
            part = items[len(results) :][: self.most]
            try:
                results += function(part)
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            # After the handler, as the error keeps the attempt's allocations alive.
            torch.cuda.empty_cache()  # reduces fragmentation
            self.most = min(self.most or len(part), len(part) // 2)
            logger.warning(
                "out of memory with %d images at a time; going on with %d", len(part), self.most
            )
        return results
