import threading

import pytest

from yolact.channel import Cancelled, Channel


def test_channel_passes_the_error_after_the_items() -> None:
    channel: Channel[int] = Channel(3)
    for item in range(3):
        channel.put(item)
    channel.finish(OSError("late"))
    assert channel.take(2) == [0, 1]
    assert channel.take(2) == [2]
    with pytest.raises(OSError, match="late"):
        channel.take()


def test_channel_cancel_wakes_a_waiting_producer() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    threading.Timer(0.02, channel.cancel).start()
    with pytest.raises(Cancelled):
        channel.put(1)
    with pytest.raises(Cancelled):
        channel.pause(60)
