"""Ctrl-C and SIGTERM between two steps."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .saver import Saver

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and is between two steps."""


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into an event; a second Ctrl-C stops at once."""
    event = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        logger.info("stopping after this step; Ctrl-C again stops at once")
        event.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {s: signal.signal(s, request) for s in SIGNALS} if in_main_thread else {}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def saving(saver: Saver, wanted: bool) -> Iterator[None]:
    """Save what was learned before anything that goes wrong ends a run, divergence excepted."""
    try:
        yield
    except FloatingPointError:
        raise
    except (Stopped, Exception):
        if wanted and saver.learner.progress.iteration:
            try:
                saver.save_interrupted()
            except OSError as error:  # the reason for the end matters more
                logger.error("%s; earlier checkpoints are whole", error)
        raise
