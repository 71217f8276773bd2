"""A connection that nobody can hold for ever, and of which there are not too many."""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 256
SECONDS = 90.0


class BoundedConnection(H11Protocol):
    """A connection of HTTP/1.1 that is closed when no request of it was answered for `SECONDS`.

    That ends what no limit of a single request sees: headers or a refused body that arrive a byte
    at a time, and an answer that is not taken. Whoever comes when `MOST_CONNECTIONS` are open is
    told so and turned away.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait, or refuse."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse("503 Service Unavailable", "busy: too many connections", "Retry-After: 1")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._deadline.cancel()
        self._wait()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as everything else is answered."""
        self._refuse("400 Bad Request", msg)

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(SECONDS, self.transport.abort)

    def _refuse(self, status: str, reason: str, *more: str) -> None:
        body = json.dumps({"error": reason})
        head = (f"HTTP/1.1 {status}", "Content-Type: application/json", "Connection: close", *more)
        length = f"Content-Length: {len(body)}"
        self.transport.write("\r\n".join((*head, length, "", body)).encode())
        self.transport.close()
