"""The stages of a video: read, predict, draw, write or show."""

import errno
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.fake_video import Counted, FakeSource, draw, nothing_found, predict
from support.numbered_clip import number_of, read_numbers, write_clip
from support.sound_clip import FPS, listen, write_sound_clip

from data.video.reader import open_video
from yolact.results.detections import Detections
from yolact.video import pipeline as video
from yolact.video import stages
from yolact.video.pipeline import run_video


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 10)


pytestmark = pytest.mark.usefixtures("no_thread_stays")


def test_no_frames(tmp_path: Path) -> None:
    report = run_video(FakeSource(0), predict, draw, output=tmp_path / "o.mp4", display=False)
    assert (report.frames, report.dropped, report.fps) == (0, 0, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", [1, 3, 4, 10, 16])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_file_is_complete_and_in_order(clip: Path, batch: int, workers: int) -> None:
    sizes, seen, meeting = [], [], threading.Barrier(workers)

    def counting(images: list[np.ndarray]) -> list[Detections]:
        sizes.append(len(images))
        if number_of(images[0]) < workers and batch == 1:
            meeting.wait(10)  # breaks unless so many are at work at a time
        time.sleep(0.01 * (number_of(images[0]) % 3))
        return predict(images)

    output = clip.with_name("out.mp4")
    with open_video(clip) as source:
        report = run_video(
            source,
            counting,
            draw,
            output=output,
            display=False,
            batch=batch,
            workers=workers,
            on_frame=lambda position, found: seen.append((position, found.class_names[0])),
        )
    assert seen == [(i, str(i)) for i in range(10)]
    assert sorted(sizes, reverse=True) == [batch] * (10 // batch) + [10 % batch] * (10 % batch > 0)
    assert read_numbers(output) == list(range(10))
    assert (report.frames, report.dropped) == (10, 0)
    assert report.fps == pytest.approx(10 / report.seconds)


@pytest.mark.parametrize("live", [False, True])
def test_max_frames(live: bool) -> None:
    source = FakeSource(25, live=live, fps=500)
    report = run_video(source, predict, draw, output=None, display=False, max_frames=4)
    assert report.frames == 4


def test_a_file_is_read_no_further_than_needed() -> None:
    source = Counted(25)
    run_video(source, predict, draw, output=None, display=False, max_frames=4)
    assert source.newest == 3


def test_broken_frames_count_as_dropped() -> None:
    source = FakeSource(3)
    source.broken_frames = 2
    assert run_video(source, predict, draw, output=None, display=False).dropped == 2


@pytest.mark.parametrize("numbers", [{"batch": 0}, {"workers": 0}, {"max_frames": 0}])
def test_numbers_below_one(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        run_video(FakeSource(3), predict, draw, output=None, display=False, **numbers)


def test_nobody_watching_means_no_drawing() -> None:
    def never(image: np.ndarray, detections: Detections) -> np.ndarray:
        raise AssertionError

    assert run_video(FakeSource(3), predict, never, output=None, display=False).frames == 3


def failing(stage: str) -> dict[str, object]:
    def bad_predict(images: list[np.ndarray]) -> list[Detections]:
        if number_of(images[0]) == 5:
            raise OSError("predict")
        return predict(images)

    def bad_draw(image: np.ndarray, detections: Detections) -> np.ndarray:
        if number_of(image) == 5:
            raise OSError("draw")
        return image

    def bad_frame(position: int, detections: Detections) -> None:
        if position == 5:
            raise OSError("on_frame")

    return {
        "source": FakeSource(20, fail_at=5 if stage == "read" else None),
        "predict": bad_predict if stage == "predict" else predict,
        "draw": bad_draw if stage == "draw" else draw,
        "on_frame": bad_frame if stage == "on_frame" else None,
    }


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("stage", ["read", "predict", "draw", "on_frame"])
def test_error_in_a_stage_reaches_the_caller(tmp_path: Path, stage: str, workers: int) -> None:
    output = tmp_path / "out.mp4"
    with pytest.raises(OSError, match="unplugged" if stage == "read" else stage):
        run_video(**failing(stage), workers=workers, output=output, display=False)
    assert read_numbers(output) == [0, 1, 2, 3, 4]  # all that came before, playable


def test_wrong_number_of_results() -> None:
    with pytest.raises(ValueError, match="zip"):
        run_video(FakeSource(3), lambda _: [], draw, output=None, display=False)


@pytest.mark.parametrize(("live", "workers"), [(False, 1), (False, 3), (True, 1)])
def test_ctrl_c_finishes_the_output(tmp_path: Path, live: bool, workers: int) -> None:
    positions: list[int] = []

    def interrupt(position: int, _: Detections) -> None:
        positions.append(position)
        if len(positions) == 4:
            raise KeyboardInterrupt

    source = FakeSource(10**6, live=live, fps=200)
    output = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        sinks = {"output": output, "display": False, "on_frame": interrupt}
        run_video(source, predict, draw, workers=workers, **sinks)
    assert len(read_numbers(output)) >= 3


def test_bad_output_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="suffix"):
        run_video(FakeSource(3), predict, draw, output=Path("out.xyz"), display=False)


class FullDisk:
    """Stands for a writer that runs out of room at its sixth frame, or at the end."""

    def __init__(self, at_the_end: bool):
        self.at_the_end, self.frames, self.closed = at_the_end, 0, False

    def __call__(self, *_: object) -> "FullDisk":
        return self

    def write(self, image: np.ndarray, seconds: float) -> None:
        if self.frames == 5 and not self.at_the_end:
            raise OSError(errno.ENOSPC, "disk full")
        self.frames += 1

    def close(self) -> None:
        self.closed = True
        if self.at_the_end:
            raise OSError(errno.ENOSPC, "disk full")


@pytest.mark.parametrize("at_the_end", [False, True])
@pytest.mark.parametrize("live", [False, True])
def test_full_disk_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, at_the_end: bool, live: bool
) -> None:
    writer = FullDisk(at_the_end)
    monkeypatch.setattr(video, "VideoWriter", writer)
    source = FakeSource(20 if at_the_end else 10**6, live=live, fps=500)
    with pytest.raises(OSError, match="disk full"):
        run_video(source, predict, draw, output=Path("out.mp4"), display=False)
    assert writer.closed
    assert writer.frames == 5 or at_the_end


def test_error_of_the_window_finishes_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_display(*_: object, **__: object) -> bool:
        raise OSError("no display")

    monkeypatch.setattr(video, "show", no_display)
    output = tmp_path / "out.mp4"
    with pytest.raises(OSError, match="no display"):
        run_video(FakeSource(20), predict, draw, output=output, display=True)
    assert read_numbers(output) == [0]


def test_error_at_closing_the_window_finishes_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost_display(_: str) -> None:
        raise OSError("display lost")

    monkeypatch.setattr(video, "show", lambda *_, **__: True)
    monkeypatch.setattr(video, "close_window", lost_display)
    output = tmp_path / "out.mp4"
    with pytest.raises(OSError, match="display lost"):
        run_video(FakeSource(3), predict, draw, output=output, display=True)
    assert read_numbers(output) == [0, 1, 2]


def test_the_rate_is_that_of_the_last_thirty(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0] * 3 + [0.5 * number for number in range(1, 40)])
    monkeypatch.setattr(stages, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    rate = stages.FpsCounter()
    told = [rate.tick() for _ in range(42)]
    assert told[:5] == [0, 0, 0, 6, 4]
    assert told[-1] == rate.value == 2


@pytest.mark.parametrize(
    ("live", "expected"), [(False, r"\d+\.\d fps"), (True, r"\d+\.\d fps, (\d+) ms")]
)
def test_speed_is_drawn(monkeypatch: pytest.MonkeyPatch, live: bool, expected: str) -> None:
    texts: list[str] = []

    def noted(image: np.ndarray, text: str) -> np.ndarray:
        texts.append(text)
        return image

    def slow(images: list[np.ndarray]) -> list[Detections]:
        time.sleep(0.03)
        return predict(images)

    monkeypatch.setattr(video, "draw_fps", noted)
    monkeypatch.setattr(video, "show", lambda *_, **__: True)
    source = FakeSource(5, live=live, fps=100)
    run_video(source, slow, draw, output=None, display=True, show_fps=True)
    told = [re.fullmatch(expected, text) for text in texts]
    assert len(told) > 1 and all(told)
    if live:  # pictures that waited come one right after the other
        assert all(int(match[1]) >= 30 for match in told if match)


@pytest.mark.parametrize("show_fps", [False, True])
def test_speed_is_seen_if_wanted(tmp_path: Path, show_fps: bool) -> None:
    output = tmp_path / "out.avi"
    run_video(FakeSource(3), predict, draw, output=output, display=False, show_fps=show_fps)
    with open_video(output) as source:
        assert {bool(frame.std() > 5) for frame in source} == {show_fps}


@pytest.mark.parametrize("most", [None, 30])
def test_sound_of_a_file_goes_along(tmp_path: Path, most: int | None) -> None:
    clip = write_sound_clip(tmp_path / "clip.mp4")
    output = tmp_path / "out.mp4"
    with open_video(clip) as source:
        run_video(
            source,
            lambda images: [nothing_found() for _ in images],
            lambda image, _: image,
            output=output,
            display=False,
            batch=4,
            max_frames=most,
        )
    heard = listen(output)
    assert heard.flashes == pytest.approx([0, 1], abs=0.002)
    assert heard.tones == pytest.approx([0, 1], abs=0.005)
    assert heard.sound_length == pytest.approx((most or 50) / FPS, abs=2 / FPS)


def test_escape_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[threading.Thread] = []

    def fake_show(image: np.ndarray, title: str, wait_ms: int) -> bool:
        assert title == "YOLACT"
        shown.append(threading.current_thread())
        return len(shown) < 3

    monkeypatch.setattr(video, "show", fake_show)
    output = tmp_path / "out.mp4"
    report = run_video(FakeSource(10**6), predict, draw, output=output, display=True)
    assert report.frames == 3
    assert set(shown) == {threading.current_thread()}
    assert read_numbers(output) == [0, 1, 2]


def test_real_clip_through_the_pipeline(data_root: Path, tmp_path: Path) -> None:
    def empty(images: list[np.ndarray]) -> list[Detections]:
        return [nothing_found() for _ in images]

    output = tmp_path / "out.mp4"
    with open_video(data_root / "video" / "highway.mp4") as source:
        report = run_video(
            source, empty, lambda i, _: i, output=output, display=False, batch=4, max_frames=6
        )
    assert report.frames == 6
    with open_video(output) as written:
        assert written.image_hw == (720, 1280)
        assert len(list(written)) == 6
