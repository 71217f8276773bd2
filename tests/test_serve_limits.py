"""What one client, and all together, may ask of `yolact serve`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from yolact import Predictor

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("httpx2", reason="needs httpx2, which comes with the extra 'dev'")

from support.tiny_server import ALL, PNG, client_of, refusal, tiny_predictor  # noqa: E402

from yolact.serve.app import make_app  # noqa: E402
from yolact.serve.limits import Limits, TokenBuckets  # noqa: E402


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return tiny_predictor()


def test_a_bucket_of_tokens() -> None:
    now = 0.0
    buckets = TokenBuckets(rate=2, burst=3, clock=lambda: now)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    now = 0.25
    assert buckets.take("a") == 0.25
    now = 0.5
    assert (buckets.take("a"), buckets.take("a")) == (0, 0.5)
    now = 100
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    for number in range(2000):  # many others: the memory is bounded
        buckets.take(str(number))
    assert len(buckets._buckets) == 1024
    assert buckets.take("a") == 0


def test_too_many_requests_of_one_client(predictor: Predictor) -> None:
    client = client_of(predictor, rate=0.1, burst=2)
    assert [client.post(ALL, content=PNG).status_code for _ in range(2)] == [200, 200]
    answer = client.post(ALL, content=PNG)
    assert "slow down" in refusal(answer, 429)
    assert answer.headers["Retry-After"] == "10"
    assert client.get("/api/model").status_code == 200


@pytest.fixture
def held(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A predictor that begins to work and does not end before it is released."""
    begun, release = threading.Event(), threading.Event()
    segment = predictor.segment

    def wait(*arguments: Any) -> Any:
        begun.set()
        release.wait(30)
        return segment(*arguments)

    monkeypatch.setattr(predictor, "segment", wait)
    begun.release = release  # type: ignore[attr-defined]
    yield begun
    release.set()


def test_too_many_requests_at_a_time(predictor: Predictor, held: Any) -> None:
    with client_of(predictor, waiting=0) as client:
        codes: list[int] = []
        first = threading.Thread(
            target=lambda: codes.append(client.post(ALL, content=PNG).status_code)
        )
        first.start()
        assert held.wait(30)
        answer = client.post(ALL, content=PNG)
        assert "busy" in refusal(answer, 503)
        assert answer.headers["Retry-After"] == "1"
        held.release.set()
        first.join()
        assert codes == [200]
        assert client.post(ALL, content=PNG).status_code == 200  # the place is free again


def test_slow_uploads_leave_room_for_others(predictor: Predictor) -> None:
    async def slow() -> Any:
        await asyncio.sleep(30)

    async def ignore(_: Any) -> None:
        pass

    scope = {
        "type": "http", "method": "POST", "path": "/api/segment", "query_string": b"masks=none",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("x", 1),
    }  # fmt: skip
    app = make_app(predictor, "tiny", Limits(waiting=1))
    count = predictor.workers + 1
    sent: list[Any] = []

    async def whole() -> Any:
        return {"type": "http.request", "body": PNG, "more_body": False}

    async def keep(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        uploads = [asyncio.create_task(app(scope, slow, ignore)) for _ in range(3 * count)]
        await asyncio.sleep(0.1)
        await app(scope, whole, keep)
        for each in uploads:
            each.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)

    asyncio.run(run())
    assert sent[0]["status"] == 200


def test_an_answer_that_takes_too_long(predictor: Predictor, held: Any) -> None:
    with client_of(predictor, seconds=0.05) as client:
        assert "within 0.05 seconds" in refusal(client.post(ALL, content=PNG), 504)
        held.release.set()


def test_an_image_that_does_not_arrive(predictor: Predictor) -> None:
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.sleep(30)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/api/segment", "query_string": b"",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("x", 1),
    }  # fmt: skip
    asyncio.run(make_app(predictor, "tiny", Limits(seconds=0.01))(scope, never, send))
    assert sent[0]["status"] == 408
    assert b"did not arrive" in sent[1]["body"]
