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
    assert 5 <= int(answer.headers["Retry-After"]) <= 10  # the clock runs
    assert client.get("/api/model").status_code == 200


SCOPE = {
    "type": "http", "method": "POST", "path": "/api/segment", "query_string": b"masks=none",
    "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("x", 1),
}  # fmt: skip


def uploading(leave: asyncio.Event) -> Any:
    """What a client sends: its image at once; it hangs up when it is told to."""
    messages = iter([{"type": "http.request", "body": PNG, "more_body": False}])

    async def receive() -> Any:
        if message := next(messages, None):
            return message
        await leave.wait()
        return {"type": "http.disconnect"}

    return receive


@pytest.fixture
def held(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A predictor that begins to work and does not end before it is released."""
    begun, release = threading.Event(), threading.Event()
    segment = predictor.segment

    def wait(*arguments: Any) -> Any:
        begun.count += 1  # type: ignore[attr-defined]
        begun.set()
        release.wait(30)
        return segment(*arguments)

    monkeypatch.setattr(predictor, "segment", wait)
    begun.release, begun.count = release, 0  # type: ignore[attr-defined]
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

    app = make_app(predictor, "tiny", Limits(waiting=1))
    count = predictor.workers + 1
    sent: list[Any] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        uploads = [asyncio.create_task(app(SCOPE, slow, ignore)) for _ in range(3 * count)]
        await asyncio.sleep(0.1)
        await app(SCOPE, uploading(asyncio.Event()), keep)
        for each in uploads:
            each.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)

    asyncio.run(run())
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("leaving", [1, 4])
def test_who_hangs_up_is_neither_answered_nor_in_the_way(
    predictor: Predictor, held: Any, leaving: int
) -> None:
    """The place is free at once, and what had not begun is not computed."""
    app = make_app(predictor, "tiny", Limits(waiting=leaving - 1))
    assert predictor.workers == 1
    sent: list[Any] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        leave = asyncio.Event()
        left = [asyncio.create_task(app(SCOPE, uploading(leave), keep)) for _ in range(leaving)]
        await asyncio.to_thread(held.wait, 30)
        leave.set()
        await asyncio.wait_for(asyncio.gather(*left), 5)
        sent.clear()
        patient = asyncio.create_task(app(SCOPE, uploading(asyncio.Event()), keep))
        await asyncio.sleep(0.05)
        held.release.set()
        await patient

    asyncio.run(run())
    assert (sent[0]["status"], held.count) == (200, 2)


def test_a_server_that_stops_says_so(
    predictor: Predictor, held: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What is worked on, and what is on its way; uvicorn cancels both after a while."""
    sent: list[Any] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    async def never() -> Any:
        await asyncio.sleep(30)

    async def run() -> None:
        app = make_app(predictor, "tiny")
        receives = (uploading(asyncio.Event()), never)
        answers = [asyncio.create_task(app(SCOPE, receive, keep)) for receive in receives]
        await asyncio.to_thread(held.wait, 30)
        for each in answers:
            each.cancel()
        await asyncio.gather(*answers)
        held.release.set()

    asyncio.run(run())
    assert [message["status"] for message in sent if "status" in message] == [503, 503]
    assert b"the server stops" in sent[-1]["body"]
    assert caplog.text == ""


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

    asyncio.run(make_app(predictor, "tiny", Limits(seconds=0.01))(SCOPE, never, send))
    assert sent[0]["status"] == 408
    assert b"did not arrive" in sent[1]["body"]
