"""What is checked and said for every request: the host, the origin, the security headers."""

from __future__ import annotations

import ipaddress

from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Middleware that turns away what other sites make a browser send.

    A page of another site may point its own name at this machine (DNS rebinding), or post to it
    without reading the answer.

    Args:
        app: what it guards.
        hosts: names that this server answers to; None for any.
        front: name of a server in front, under which this one's page is seen; "" without one.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None = None, front: str = "") -> None:
        self._app, self._hosts = app, hosts
        self._front = frozenset((front.lower(),) if front else ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 403 or 421, or pass the request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and host_name(host) not in self._hosts | self._front:
            return JSONResponse({"error": "unknown host name: use the printed address"}, 421)
        if scope["method"] in _SAFE or origin is None:
            return None
        site = _netloc(origin)
        if site == host.lower() or host_name(site) in self._front:
            return None
        refusal = "requests of other sites are refused; --front names a server in front"
        return JSONResponse({"error": refusal}, 403)


def hosts_for(address: str) -> frozenset[str] | None:
    """Return the names by which a server may be called: few on loopback, else any."""
    if not is_loopback(address):
        return None
    return frozenset(("localhost", "127.0.0.1", "::1", address))


def is_loopback(address: str) -> bool:
    """Tell whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def host_name(netloc: str) -> str | None:
    """Return the name in a Host header, without its port; None for none."""
    try:
        url = URL(f"//{netloc}")
        return url.hostname if url.netloc == netloc and "@" not in netloc else None
    except ValueError:
        return None


def _netloc(origin: str) -> str:
    try:
        return URL(origin).netloc.lower()
    except ValueError:
        return ""
