import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from yolact.threads import Cancelled, Channel, map_ahead


def test_channel_passes_the_error_after_the_items() -> None:
    channel: Channel[int] = Channel(3)
    for item in range(3):
        channel.put(item)
    channel.finish(OSError("late"))
    assert channel.take(2) == [0, 1]
    assert channel.take(2) == [2]
    with pytest.raises(OSError, match="late"):
        channel.take()


@pytest.mark.parametrize(
    ("call", "argument"), [(Channel.put, 1), (Channel.pause, 30.0), (Channel.take, 2)]
)
def test_channel_cancel_wakes_whoever_waits(
    call: Callable[[Channel[int], object], object], argument: object
) -> None:
    channel: Channel[int] = Channel(1 if call is not Channel.take else 2)
    channel.put(0)
    start = time.perf_counter()
    threading.Timer(0.02, channel.cancel).start()
    with pytest.raises(Cancelled):
        call(channel, argument)
    with pytest.raises(Cancelled):  # and whoever comes later; what was sent is gone
        call(channel, argument)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("sent", "most", "fill", "taken"),
    [
        (1, 1, True, [0]),
        (3, 1, True, [0]),
        (3, 2, True, [0, 1]),
        (3, 2, False, [0, 1]),
        (1, 2, False, [0]),
        (3, 9, True, [0, 1, 2]),  # more than the channel can hold are never waited for
    ],
)
def test_channel_gives_the_oldest_items(sent: int, most: int, fill: bool, taken: list[int]) -> None:
    channel: Channel[int] = Channel(3)
    for item in range(sent):
        channel.put(item)
    assert channel.take(most, fill=fill) == taken


def test_a_finished_channel_does_not_wait_to_fill() -> None:
    channel: Channel[int] = Channel(3)
    channel.put(0)
    channel.finish()
    assert [channel.take(3), channel.take(3)] == [[0], []]


def test_a_channel_of_fresh_items_drops_the_oldest() -> None:
    channel: Channel[int] = Channel(2, drop_stale=True)
    for item in range(5):
        channel.put(item)
    assert (channel.take(5), channel.dropped) == ([3, 4], 3)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_map_ahead_keeps_the_order_and_reads_no_further(
    count: int, ahead: int, workers: int
) -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(count):
            read.append(number)
            yield number

    def square(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number**2

    found = []
    for result in map_ahead(square, items(), workers, ahead):
        found.append(result)
        assert len(read) <= len(found) + ahead
    assert found == [number**2 for number in range(count)]


def test_map_ahead_tells_errors_in_their_place() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("no more")

    found = map_ahead(lambda number: 2 // number, items(), workers=2, ahead=5)
    assert [next(found), next(found)] == [2, 1]
    with pytest.raises(OSError, match="no more"):
        next(found)
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda number: 2 // number, [1, 0, 1], workers=2, ahead=5))


def test_closing_map_ahead_waits_for_its_threads() -> None:
    before = threading.active_count()
    with closing(map_ahead(lambda _: time.sleep(0.05), range(100), workers=2, ahead=2)) as found:
        next(found)
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_closing_map_ahead_begins_nothing_new() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.05)

    with closing(map_ahead(work, range(100), workers=1, ahead=8)) as found:
        next(found)
    assert len(begun) <= 2


def test_a_cancelled_channel_drops_nothing_more() -> None:
    channel: Channel[int] = Channel(1, drop_stale=True)
    channel.put(0)
    channel.cancel()
    with pytest.raises(Cancelled):
        channel.put(1)
    assert channel.dropped == 0
