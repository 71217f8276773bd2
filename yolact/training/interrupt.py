"""Ctrl-C and SIGTERM between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .saver import logger


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and is between two steps."""


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or a polite kill, into an event; a second Ctrl-C stops at once."""
    event = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        logger.info("stopping after this step; Ctrl-C again stops at once")
        event.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
