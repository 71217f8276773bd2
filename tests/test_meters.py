import math
import time

import pytest
import torch

from yolact.timing import MovingAverage, StageTimer, format_eta, synchronize


@pytest.mark.parametrize(
    ("values", "window", "mean"),
    [
        ([], 100, 0.0),
        ([math.nan], 100, 0.0),
        ([3.0], 100, 3.0),
        ([1.0, 2.0, 3.0, 4.0], 100, 2.5),
        ([1.0, 2.0, 3.0, 4.0], 2, 3.5),
        ([1.0, math.nan, math.inf, 3.0], 100, 2.0),
        ([0.1] * 1000, 100, 0.1),
    ],
)
def test_moving_average(values: list[float], window: int, mean: float) -> None:
    average = MovingAverage(window)
    for value in values:
        average.add(value)
    assert average.mean == pytest.approx(mean, abs=1e-15)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (59.99, "0:00:59"),
        (3661, "1:01:01"),
        (86400, "1 day, 0:00:00"),
        (4 * 86400 + 14 * 3600 + 47 * 60 + 5.4, "4 days, 14:47:05"),
        (-1, "unknown"),
        (math.nan, "unknown"),
        (math.inf, "unknown"),
        (1e30, "unknown"),
    ],
)
def test_format_eta(seconds: float, text: str) -> None:
    assert format_eta(seconds) == text


def test_stage_timer_without_stages() -> None:
    timer = StageTimer()
    assert timer.statistics() == {}
    assert timer.format().splitlines()[-1].split() == ["total", "0.00"]


def test_stage_timer_keeps_order_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.010, 1.0, 1.002, 2.0, 2.042, 3.0, 3.020])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timer = StageTimer(torch.device("cpu"))
    for name in ("network", "masks", "network", "network"):
        with timer.stage(name):
            pass
    network = timer.statistics()["network"]
    assert list(timer.statistics()) == ["network", "masks"]
    assert network.runs == 3
    assert network.mean == pytest.approx(24)
    assert network.median == pytest.approx(20)
    assert network.p95 == pytest.approx(42)
    table = [line.split() for line in timer.format().splitlines()]
    assert table[1] == ["network", "24.00", "20.00", "42.00", "3"]
    assert table[-1] == ["total", "26.00"]


def test_stage_timer_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def clock() -> float:
        events.append("clock")
        return 0.0

    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: events.append("wait"))
    monkeypatch.setattr(time, "perf_counter", clock)
    with StageTimer("cuda").stage("network"):
        events.append("run")
    assert events == ["wait", "clock", "run", "wait", "clock"]


@pytest.mark.parametrize(
    ("name", "waits"),
    [("", []), ("cpu", []), ("meta", []), ("cuda:1", ["cuda:1"]), ("mps", ["mps"])],
)
def test_which_devices_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, name: str, waits: list[str]
) -> None:
    found: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: found.append(str(device)))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: found.append("mps"))
    synchronize(torch.device(name) if name else None)
    assert found == waits


def test_stage_timer_remembers_no_failures() -> None:
    timer = StageTimer()
    with pytest.raises(RuntimeError), timer.stage("network"):
        raise RuntimeError
    assert timer.statistics() == {}
