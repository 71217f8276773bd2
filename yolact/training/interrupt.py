"""Handling of Ctrl-C, SIGTERM and SIGHUP between two steps."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from yolact.runs.names import find_checkpoints

from .saver import Saver

logger = logging.getLogger(__name__)

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and stops between two steps."""


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Turn the first of these signals into an event; a second Ctrl-C stops at once."""
    event, received = threading.Event(), []

    def request(number: int, frame: FrameType | None) -> None:
        logger.info("stopping after this step; Ctrl-C again stops at once")
        event.set()
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    in_main_thread = threading.current_thread() is threading.main_thread()
    heeded = [s for s in SIGNALS if s == signal.SIGINT or signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, request) for s in heeded} if in_main_thread else {}
    try:
        yield event
    except Stopped as stopped:
        stopped.args = tuple(received[:1])
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def save_on_error(saver: Saver, wanted: bool, stop: threading.Event) -> Iterator[None]:
    """Save a checkpoint before any error ends a run, except for divergence.

    Args:
        saver: saver of the run.
        wanted: whether to save.
        stop: set if the run was asked to stop, perhaps together with its loading processes.

    Raises:
        ChildProcessError: a loading process was killed.
        Stopped: a loading process was killed because the whole run was asked to stop.
    """
    try:
        yield
    except FloatingPointError:
        raise
    except (Stopped, Exception) as error:
        if wanted and saver.learner.progress.iteration:
            try:
                saver.save_interrupted()
            except OSError as unsaved:  # the reason for the end matters more
                found = find_checkpoints(saver.folder, saver.name)
                newest = f"the newest checkpoint is {found[-1]}" if found else None
                logger.error("%s; %s", unsaved, newest or "there is no checkpoint")
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
            if stop.is_set():
                raise Stopped from None
            raise ChildProcessError(
                f"{error}; where memory runs out, train with fewer --num_workers, and go on by "
                "--resume=interrupt"
            ) from None
        raise
