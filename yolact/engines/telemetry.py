"""OpenVINO and NNCF without their reports to an analytics host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_REPORTER = "openvino_telemetry"


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Hide the telemetry package inside the block, so that packages imported there do not use it.

    Otherwise it sends an event at import, with an identity that it stores in the user's home. If
    the program itself has imported it, it stays.
    """
    is_absent = _REPORTER not in sys.modules
    if is_absent:
        sys.modules[_REPORTER] = None  # type: ignore[assignment]  # an import of it fails
    try:
        yield
    finally:
        if is_absent:
            sys.modules.pop(_REPORTER, None)
