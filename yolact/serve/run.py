"""The server: a socket, and the application behind it until Ctrl-C."""

from __future__ import annotations

import logging
import socket

import uvicorn
from starlette.types import ASGIApp

from data.problems import reason_of

from .connection import BoundedConnection


def listen(host: str, port: int) -> socket.socket:
    """Open a socket; port 0 takes a free one.

    Raises:
        ValueError: no such address here, or the port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
        # Each connection has it from here. Without it the body of an answer waits 40 ms for the
        # client to confirm its head; asyncio sets it where sockets know their protocol alone.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot serve at {host}, port {port}: {reason_of(error)}") from None


def address_of(listener: socket.socket) -> str:
    """Return the address of a socket for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return a server whose `run(sockets=[...])` answers until Ctrl-C, which it raises again.

    What strangers send wrong is no news for the console.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=BoundedConnection,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anyone could write them
        ws="none",
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)
