"""What does not fit into the memory of a GPU: a smaller batch, or one line that says what to do."""

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
    """Say what to do where something does not fit.

    Args:
        mend: that, in a few words.

    Raises:
        MemoryError: it did not fit; one line.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"{str(error).split('. ', 1)[0]}; {mend}") from None


class BatchLimit:
    """Runs batches in parts that fit into memory, once one has not.

    Threads can share one.

    Attributes:
        most: items that are run at a time; None as long as every batch has fitted.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def run(
        self, function: Callable[[Sequence[T]], list[Result]], items: Sequence[T]
    ) -> list[Result]:
        """Return a function's results for all items, in order.

        Args:
            function: of a batch; its result for an item does not depend on the others.
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
            # After the handler, for the error holds what the attempt has allocated.
            torch.cuda.empty_cache()  # pieces of it can then serve as a whole
            self.most = min(self.most or len(part), len(part) // 2)
            logger.warning(
                "out of memory with %d images at a time; going on with %d", len(part), self.most
            )
        return results
