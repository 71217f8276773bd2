"""Live sources and paced playback: fresh frames, and none in a burst."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.fake_video import Counted, FakeSource, draw, nothing_found, predict
from support.numbered_clip import number_of

from data.video.reader import open_video
from yolact.results.detections import Detections
from yolact.video import pipeline as video
from yolact.video.pipeline import run_video

pytestmark = pytest.mark.usefixtures("no_thread_stays")


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_live_source_drops_stale_frames(tmp_path: Path, suffix: str) -> None:
    seen: list[int] = []
    newest_before = -1

    def slow(images: list[np.ndarray]) -> list[Detections]:
        """Take as long as the camera takes for five frames."""
        nonlocal newest_before
        assert number_of(images[0]) >= newest_before - 1  # no frame is kept waiting
        source.wait(5)
        newest_before = source.newest
        return predict(images)

    source = Counted(25, live=True, fps=100)
    output = tmp_path / f"out{suffix}"
    report = run_video(
        source, slow, draw, output=output, display=False, on_frame=lambda i, _: seen.append(i)
    )
    assert seen == sorted(set(seen))
    assert seen[0] <= 1
    assert seen[-1] == 24
    assert report.frames == len(seen) < 10
    assert report.frames + report.dropped == 25
    with open_video(output) as written:  # the recording keeps real time
        times = [written.seconds for _ in written]
    assert times[-1] == pytest.approx(24 / 100, abs=0.002)


@pytest.mark.parametrize("stage", ["predict", "draw", "deliver"])
def test_live_frames_are_fresh_whichever_stage_is_slow(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Counted(42, live=True, fps=100)
    ages: list[int] = []

    def slow_predict(images: list[np.ndarray]) -> list[Detections]:
        source.wait(6 if stage == "predict" else 0)
        return [nothing_found() for _ in images]

    def slow_draw(image: np.ndarray, _: Detections) -> np.ndarray:
        source.wait(6 if stage == "draw" else 0)
        return image

    def deliver(position: int, _: Detections) -> None:
        ages.append(source.newest - position)
        source.wait(6 if stage == "deliver" else 0)

    monkeypatch.setattr(video, "show", lambda *_, **__: True)
    report = run_video(source, slow_predict, slow_draw, output=None, display=True, on_frame=deliver)
    assert report.frames + report.dropped == 42
    assert np.median(ages) <= 8  # its own six, and hardly any waiting; a queue would make it 18


def test_live_batches_do_not_wait() -> None:
    sizes: list[int] = []

    def fast(images: list[np.ndarray]) -> list[Detections]:
        sizes.append(len(images))
        return predict(images)

    source = FakeSource(6, live=True, fps=50)
    run_video(source, fast, draw, output=None, display=False, batch=4)
    assert sizes == [1] * 6


@pytest.mark.parametrize(
    ("live", "pace", "most"), [(False, True, 1), (True, False, 1), (False, False, 3)]
)
def test_paced_frames_do_not_wait_for_later_ones(live: bool, pace: bool, most: int) -> None:
    working, highest, lock = 0, 0, threading.Lock()

    def counted(images: list[np.ndarray]) -> list[Detections]:
        nonlocal working, highest
        with lock:
            working += 1
            highest = max(highest, working)
        time.sleep(0.02)
        with lock:
            working -= 1
        return predict(images)

    sinks = {"output": None, "display": False, "emulate_playback": pace}
    run_video(FakeSource(6, live=live), counted, draw, workers=3, **sinks)
    assert highest == most


@pytest.mark.parametrize(("display", "emulate"), [(False, True), (True, False)])
def test_playback_keeps_every_frame_and_the_pace(
    monkeypatch: pytest.MonkeyPatch, display: bool, emulate: bool
) -> None:
    monkeypatch.setattr(video, "show", lambda *_, **__: True)
    source, sinks = FakeSource(11, fps=50), {"output": None, "display": display}
    report = run_video(source, predict, draw, emulate_playback=emulate, **sinks)
    assert report.frames == 11
    assert report.seconds >= 10 / 50


class Slow(FakeSource):
    """Takes long to read its third frame."""

    def __iter__(self) -> Iterator[np.ndarray]:
        for number, frame in enumerate(super().__iter__()):
            time.sleep(0.2 if number == 2 else 0)
            yield frame


def test_playback_does_not_catch_up_in_a_burst() -> None:
    times: list[float] = []

    def timed(images: list[np.ndarray]) -> list[Detections]:
        times.append(time.perf_counter())
        return predict(images)

    sinks = {"output": None, "display": False, "emulate_playback": True}
    run_video(Slow(8, fps=50), timed, draw, **sinks)
    assert times[-1] - times[2] >= 0.08  # five frames of 0.02 s, one of them perhaps late
