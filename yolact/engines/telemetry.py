"""OpenVINO and NNCF without their reports to an analytics host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_REPORTER = "openvino_telemetry"


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Hide the package that reports, inside the block: what is imported there does without it.

    It would send an event at the import already, with an identity that it keeps in the user's home.
    A program that has imported it by itself keeps it.
    """
    is_absent = _REPORTER not in sys.modules
    if is_absent:
        sys.modules[_REPORTER] = None  # type: ignore[assignment]  # an import of it fails
    try:
        yield
    finally:
        if is_absent:
            sys.modules.pop(_REPORTER, None)
