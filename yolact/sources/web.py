"""The bytes behind a web address, within limits."""

from __future__ import annotations

import string
import time
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, Request, build_opener

from data.files import without_password

MAX_BYTES = 100 << 20
SILENCE, PATIENCE = 10.0, 60.0  # seconds: without a byte, and in all
_CHUNK = 1 << 16


def fetch(url: str) -> bytes:
    """Fetch a file of at most `MAX_BYTES` over HTTP or HTTPS.

    Raises:
        OSError: no answer in time, an error, a web page, a video, too many bytes, or a
            redirection to another scheme; one line that names the address.
    """
    address = quote(url, safe=string.punctuation)  # of blanks and letters beyond ASCII
    request = Request(address, headers={"User-Agent": "yolact", "Accept-Encoding": "identity"})
    try:
        if not _is_web(url):
            raise ValueError("expected an address that begins with http:// or https://")
        with build_opener(_WebOnly).open(request, timeout=SILENCE) as response:
            _check(response)
            return _read(response)
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if type(error) is URLError else error
        reason = " ".join(str(cause).split()) or type(error).__name__
        raise OSError(without_password(f"cannot fetch {url}: {reason}")) from error


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


class _WebOnly(HTTPRedirectHandler):
    """Follows redirections to http and https alone."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not _is_web(newurl):
            raise HTTPError(newurl, code, f"redirected to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check(response: HTTPResponse) -> None:
    """Refuse by the headers what is no image, or too large."""
    kind = response.headers.get_content_type()
    if kind == "text/html":
        raise OSError("the server sent a web page")
    if kind.startswith("video/") or kind == "multipart/x-mixed-replace":
        raise OSError(f"the server sends a video ({kind}); stream() and --video take videos")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > MAX_BYTES:
        raise OSError(f"{int(length):,} bytes exceed {MAX_BYTES:,}")


def _read(response: HTTPResponse) -> bytes:
    content, until = bytearray(), time.monotonic() + PATIENCE
    while chunk := response.read1(_CHUNK):
        content += chunk
        if len(content) > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError(f"not finished after {PATIENCE:.0f} seconds")
    expected = response.headers.get("Content-Length", "")
    if expected.isdecimal() and int(expected) != len(content):
        raise OSError(f"the connection broke after {len(content)} of {expected} bytes")
    return bytes(content)
