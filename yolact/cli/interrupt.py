"""Signals that ask to end, answered as Ctrl-C is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Of `kill`, service managers and containers, and of a terminal that closes."""


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt with the signal's number on the first such signal.

    Later ones are ignored, as what was computed is being written. So is one that was ignored
    before, as under `nohup`.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    taken = [each for each in ENDING if signal.getsignal(each) == signal.SIG_DFL]
    before = {each: signal.signal(each, end) for each in taken} if in_main_thread else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(stopped: KeyboardInterrupt) -> int:
    """Return what shells expect of a program that a signal ended."""
    return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
