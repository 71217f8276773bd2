"""The bytes behind a web address, within limits."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from data.files import without_password

if TYPE_CHECKING:
    import httpx2

MAX_BYTES = 100 << 20
SILENCE, PATIENCE = 10.0, 60.0  # seconds: without a byte, and in all
_HEADERS = {"User-Agent": "yolact", "Accept-Encoding": "identity"}


def fetch(url: str) -> bytes:
    """Fetch a file of at most `MAX_BYTES` over HTTP or HTTPS.

    Raises:
        OSError: no answer in time, an error, a web page, a video, too many bytes, or a
            redirection to another scheme; one line that names the address.
    """
    import httpx2

    try:
        if not re.match("https?://[^/?#]", url, re.IGNORECASE):
            raise ValueError("expected an address that begins with http:// or https:// and a host")
        # The client refuses other schemes in redirections by itself.
        with (
            httpx2.Client(follow_redirects=True, timeout=SILENCE, headers=_HEADERS) as client,
            client.stream("GET", url) as response,
        ):
            _check(response)
            return _read(response)
    except (OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason.startswith("Invalid port"):  # it tells what may be the beginning of a password
            reason = "its port is none; in a password write # as %23, / as %2F, ? as %3F"
        told = without_password(f"cannot fetch {url}: {reason}")
        raise OSError(told) from None  # the cause could show a password


def _check(response: httpx2.Response) -> None:
    """Refuse by the headers what is no image, or too large."""
    if response.is_error:
        raise OSError(f"HTTP error {response.status_code} {response.reason_phrase}")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html":
        raise OSError("the server sent a web page")
    if kind.startswith("video/") or kind == "multipart/x-mixed-replace":
        raise OSError(f"the server sends a video ({kind}); stream() and --video take videos")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > MAX_BYTES:
        raise OSError(f"{int(length):,} bytes exceed {MAX_BYTES:,}")


def _read(response: httpx2.Response) -> bytes:
    content, until = bytearray(), time.monotonic() + PATIENCE
    for chunk in response.iter_raw():  # as sent: nothing is unpacked
        content += chunk
        if len(content) > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError(f"not finished after {PATIENCE:.0f} seconds")
    return bytes(content)
