"""A camera that never lags: every frame is shown, with what the network found last."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.moving_square import HW, Moving, Network, number_of, overlap, picture
from support.numbered_clip import read_numbers

from yolact.cli.predict import key_frames
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.sources.one import SourceImage
from yolact.video import pipeline as video
from yolact.video.keyframes import KeyFrames
from yolact.video.live import LatestFrame, follow
from yolact.video.pipeline import run_video

AUTO = KeyFrames(None)

pytestmark = pytest.mark.usefixtures("no_thread_stays")


def leave(image: np.ndarray, _: Detections) -> np.ndarray:
    return image


def all_of(found: Detections) -> Detections:
    return found


class SlowLatestFrame(LatestFrame):
    """The slot of a network that takes as long as so many frames; no thread, no clock."""

    def __init__(self, frames: int, network: Network):
        super().__init__()
        self.frames, self.network = frames, network
        self.working: tuple[int, np.ndarray] | None = None

    def exchange(
        self, number: int, image: np.ndarray
    ) -> tuple[int | None, list[tuple[int, Detections]]]:
        if self.working and number - self.working[0] >= self.frames:
            self.give(self.working[0], self.network([self.working[1]])[0])
            self.working = None
        if not self.working and self._newest:
            self.working = self.take()
        return super().exchange(number, image)


def followed(source: Moving, delay: int) -> tuple[list[Detections], Network]:
    network = Network(source.speed)
    shown = list(follow(map(SourceImage, source), SlowLatestFrame(delay, network), network, all_of))
    assert [number_of(item.image) for item, _ in shown] == list(range(source.frames))
    return [found for _, found in shown], network


@pytest.mark.parametrize("frames", [0, 1, 2, 50])
@pytest.mark.parametrize("delay", [1, 2, 9, 20, 40])
def test_results_are_carried_to_now(frames: int, delay: int) -> None:
    shown, network = followed(Moving(frames), delay)
    least = 0.9 if delay < 3 else 0.55 if delay < 10 else 0.2
    assert all(overlap(found, position) > least for position, found in enumerate(shown))
    assert [found.carried for found in shown] == [number > 0 for number in range(frames)]
    assert all(0 < gap <= delay for gap in np.diff(network.seen))
    assert len(network.seen) >= min(frames, (frames - 2) // delay)


def test_nothing_comes_across_a_cut() -> None:
    shown, _ = followed(Moving(40, cuts=[20]), 9)
    labels = [found.labels.tolist() for found in shown]
    assert labels[:20] == [[0]] * 20
    assert labels[20:30] == [[]] * 10 or [1] in labels[20:30]
    assert [0] not in labels[20:]
    assert labels[-1] == [1]


def test_a_change_of_size_is_a_cut() -> None:
    network = Network()
    images = [picture(0), picture(1), picture(2)[:90], picture(3)[:90]]
    slot = SlowLatestFrame(9, network)
    shown = [found for _, found in follow(map(SourceImage, images), slot, network, all_of)]
    assert [len(found) for found in shown] == [1, 1, 0, 0]
    assert [found.image_hw for found in shown] == [HW, HW, (90, 160), (90, 160)]


def test_every_frame_is_shown_while_the_network_works() -> None:
    release = threading.Event()
    network, shown = Network(), []

    def slow(images: list[np.ndarray]) -> list[Detections]:
        if number_of(images[0]):
            release.wait(10)
        return network(images)

    def on_frame(position: int, _: Detections) -> None:
        shown.append(position)
        if len(shown) == 20:
            release.set()

    sinks = {"output": None, "display": False, "on_frame": on_frame}
    report = run_video(
        Moving(10**6, live=True), slow, leave, **sinks, max_frames=20, keyframes=AUTO
    )
    assert report.frames == 20
    assert shown == sorted(set(shown))
    assert len(network.seen) <= 2  # it worked on one frame, while all others were shown


def test_the_network_takes_the_newest_frame() -> None:
    camera, ages = Moving(60, live=True, fps=100), []

    class Newest(Network):
        def __call__(self, images: list[np.ndarray]) -> list[Detections]:
            ages.append(round(camera.seconds * 100) - number_of(images[0]))
            return super().__call__(images)

    run_video(camera, Newest(seconds=0.05), leave, output=None, display=False, keyframes=AUTO)
    assert len(ages) > 2
    assert np.median(ages) <= 2


@pytest.mark.parametrize("stage", ["read", "predict", "first", "draw", "on_frame"])
def test_an_error_ends_the_run(tmp_path: Path, stage: str) -> None:
    def predict(images: list[np.ndarray]) -> list[Detections]:
        if stage == "first" or (stage == "predict" and number_of(images[0]) > 3):
            raise OSError(stage)
        return Network()(images)

    def draw(image: np.ndarray, _: Detections) -> np.ndarray:
        if stage == "draw" and number_of(image) > 10:
            raise OSError(stage)
        return image

    def on_frame(position: int, _: Detections) -> None:
        if stage == "on_frame" and position > 10:
            raise OSError(stage)

    source = Moving(10**6, live=True, fps=200, fail_at=12 if stage == "read" else None)
    output = tmp_path / "out.mp4"
    sinks = {"output": output, "display": False, "on_frame": on_frame}
    with pytest.raises(OSError, match="unplugged" if stage == "read" else stage):
        run_video(source, predict, draw, **sinks, keyframes=AUTO)
    assert stage in ("first", "predict") or read_numbers(output)


def test_ctrl_c_finishes_the_output(tmp_path: Path) -> None:
    positions: list[int] = []

    def interrupt(position: int, _: Detections) -> None:
        positions.append(position)
        if len(positions) == 4:
            raise KeyboardInterrupt

    output = tmp_path / "out.mp4"
    sinks = {"output": output, "display": False, "on_frame": interrupt}
    with pytest.raises(KeyboardInterrupt):
        run_video(
            Moving(10**6, live=True, fps=100), Network(seconds=0.2), leave, **sinks, keyframes=AUTO
        )
    assert len(read_numbers(output)) >= 3


def test_closing_the_window_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "show", lambda *_, **__: False)
    source = Moving(10**6, live=True, fps=100)
    report = run_video(
        source, Network(seconds=0.2), leave, output=None, display=True, keyframes=AUTO
    )
    assert report.frames == 1


def test_rates_and_delay_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(video, "draw_fps", lambda image, text: texts.append(text) or image)
    monkeypatch.setattr(video, "show", lambda *_, **__: True)
    run_video(
        Moving(12, live=True, fps=100),
        Network(seconds=0.02),
        leave,
        output=None,
        display=True,
        show_fps=True,
        keyframes=AUTO,
    )
    assert texts
    for text in texts:
        rate, network, delay = text.split(", ")
        assert float(rate.removesuffix(" fps")) >= 0
        assert float(network.removeprefix("network ").removesuffix(" fps")) >= 0
        assert int(delay.removesuffix(" ms")) >= 0


def test_both_sides_leave_the_latest_frame() -> None:
    slot = LatestFrame()
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(slot.take()))
    thread.start()
    time.sleep(0.01)
    slot.finish()
    thread.join(5)
    assert taken == [None]
    slot.finish(OSError("broken"))
    with pytest.raises(OSError, match="broken"):
        slot.exchange(0, picture(0))


@pytest.mark.parametrize(
    ("asked", "live", "seconds", "every"),
    [
        (None, False, 0.0, "all"),
        (None, True, 0.0, "all"),
        (None, True, 0.15, None),
        ("off", True, 0.15, "all"),
        ("auto", True, 0.0, None),
        (4, True, 0.0, 4),
        (4, False, 0.0, 4),
        (1, False, 0.0, "all"),
        ("auto", False, 0.0, None),
    ],
)
def test_a_camera_that_is_faster_than_the_network_has_key_frames(
    asked: Any, live: bool, seconds: float, every: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    source = Moving(1, live=live, fps=10)
    keys = key_frames(asked, source, Network(seconds=seconds), Thresholds())
    assert (keys.every if keys else "all") == every
    assert ("optical flow" in caplog.text) == (keys is not None)
