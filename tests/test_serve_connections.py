"""Connections to the served page that are slow, endless, too many, or no HTTP at all."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

import uvicorn  # noqa: E402
from starlette.types import Receive, Scope, Send  # noqa: E402

from yolact.serve import connection  # noqa: E402
from yolact.serve.run import listen, make_server  # noqa: E402

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b"!" * 20_000_000  # more than the buffers of a socket hold


async def answers_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    body = BODY if scope.get("path") == "/large" else b"ok"
    if scope["type"] == "http":
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_no_answer_waits_for_its_head_to_arrive(host: str) -> None:
    """Nagle's algorithm would hold back what follows the first packet."""
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((host.replace("0.0.0.0", "127.0.0.1"), port)):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.fixture(scope="module")
def server() -> Iterator[uvicorn.Server]:
    with listen("127.0.0.1", 0) as listener:
        server = make_server(answers_at_once)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_for(lambda: server.started)
        yield server
        server.should_exit = True
        thread.join()


@pytest.fixture
def address(server: uvicorn.Server) -> tuple[str, int]:
    """Of the server, when the connections of other tests are gone."""
    wait_for_connections(server, 0)
    return server.servers[0].sockets[0].getsockname()


def wait_for_connections(server: uvicorn.Server, count: int) -> None:
    wait_for(lambda: len(server.server_state.connections) == count)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def received(client: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def is_answered(client: socket.socket) -> bool:
    client.sendall(GET)
    answer = client.recv(1000)
    while not answer.endswith(b"ok") and (part := client.recv(1000)):
        answer += part
    return answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"ok")


def trickle(first: bytes, byte: bytes) -> Callable[[socket.socket], None]:
    def send(client: socket.socket) -> None:
        client.sendall(first)
        for _ in range(1000):
            client.sendall(byte)
            time.sleep(0.01)

    return send


@pytest.mark.parametrize(
    "talk",
    [
        lambda client: client.recv(1),
        trickle(b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: 1\r\n"),
        trickle(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n", b"x"),
        trickle(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["silent", "headers", "a refused body", "a refused body in chunks"],
)
def test_who_asks_without_end_is_cut_off(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, talk: Callable[[socket.socket], None]
) -> None:
    monkeypatch.setattr(connection, "SECONDS", 0.1)
    with socket.create_connection(address, timeout=30) as client:
        client.settimeout(10)
        try:
            talk(client)
        except ConnectionError:
            return
        assert received(client) == b""


def test_an_answer_that_is_not_taken_is_given_up(
    server: uvicorn.Server, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SECONDS", 0.1)
    answered = server.server_state.total_requests
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(GET.replace(b"/ ", b"/large ", 1))
        wait_for(lambda: server.server_state.total_requests > answered)
        wait_for_connections(server, 0)
        assert len(received(client)) < len(BODY)


def test_every_answer_begins_the_time_anew(
    server: uvicorn.Server, address: tuple[str, int]
) -> None:
    with socket.create_connection(address, timeout=30) as client:
        wait_for_connections(server, 1)
        (held,) = server.server_state.connections
        for _ in range(3):
            before = held._deadline
            assert is_answered(client)
            wait_for(lambda before=before: held._deadline is not before)
            assert before.cancelled() and not held._deadline.cancelled()
            assert held._deadline.when() > before.when()


def test_too_many_connections(
    server: uvicorn.Server, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 3)
    with ExitStack() as stack:
        first, *others = [
            stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(3)
        ]
        assert all(is_answered(each) for each in (first, *others))
        with socket.create_connection(address, timeout=30) as late:
            answer = received(late)
            assert refusal(answer) == ("503", "busy: too many connections")
            assert b"\r\nRetry-After: 1\r\n" in answer
        first.close()
        wait_for_connections(server, 2)
        with socket.create_connection(address, timeout=30) as next_one:
            assert is_answered(next_one)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        GET.replace(b"Host: x", b"Host: x\r\nHost: y"),
        GET.replace(b"Host: x", b"X: " + b"x" * 20_000),
    ],
    ids=["TLS", "two hosts", "no host"],
)
def test_what_is_no_http(address: tuple[str, int], request_: bytes) -> None:
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(request_)
        assert refusal(received(client))[0] == "400"


def refusal(answer: bytes) -> tuple[str, str]:
    """Status and reason of a refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head
    return head.split()[1].decode(), json.loads(body)["error"]
