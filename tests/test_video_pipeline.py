"""The stages of a video: read, predict, draw, write or show."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_clip import HW, number_of, picture, read_numbers, write_clip

from data.video import open_video
from layers.structures import Detections
from yolact import video
from yolact.video import Cancelled, Channel, run_video


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 10)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class FakeSource:
    """Numbered frames without a file; a live one produces them at its own pace."""

    def __init__(
        self, frames: int, *, live: bool = False, fps: float = 100, fail_at: int | None = None
    ):
        self.frames, self.is_live, self.fps, self.fail_at = frames, live, fps, fail_at
        self.image_hw, self.broken_frames = HW, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self.frames):
            if number == self.fail_at:
                raise OSError("camera unplugged")
            if self.is_live:
                time.sleep(1 / self.fps)
            yield picture(number % 25)


def nothing_found(number: int = 0) -> Detections:
    none = torch.zeros(0)
    return Detections(
        boxes=torch.zeros(0, 4),
        scores=none,
        labels=none.long(),
        soft_masks=torch.zeros(0, 4, 4),
        mask_frames=torch.zeros(0, 4),
        box_scores=none,
        image_hw=HW,
        class_names=(str(number),),  # lets a test see which frame these belong to
    )


def predict(images: list[np.ndarray]) -> list[Detections]:
    return [nothing_found(number_of(image)) for image in images]


def draw(image: np.ndarray, detections: Detections) -> np.ndarray:
    assert detections.class_names == (str(number_of(image)),)
    return image.copy()


def test_no_frames(tmp_path: Path) -> None:
    report = run_video(FakeSource(0), predict, draw, output=tmp_path / "o.mp4", display=False)
    assert (report.frames, report.dropped, report.fps) == (0, 0, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", [1, 3, 4, 10, 16])
def test_file_is_complete_and_in_order(clip: Path, batch: int) -> None:
    sizes, seen = [], []

    def counting(images: list[np.ndarray]) -> list[Detections]:
        sizes.append(len(images))
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
            on_frame=lambda position, found: seen.append((position, found.class_names[0])),
        )
    assert seen == [(i, str(i)) for i in range(10)]
    assert sizes == [batch] * (10 // batch) + [10 % batch] * (10 % batch > 0)
    assert read_numbers(output) == list(range(10))
    assert (report.frames, report.dropped) == (10, 0)
    assert report.fps == pytest.approx(10 / report.seconds)


@pytest.mark.parametrize("live", [False, True])
def test_max_frames(live: bool) -> None:
    source = FakeSource(25, live=live, fps=500)
    report = run_video(source, predict, draw, output=None, display=False, max_frames=4)
    assert report.frames == 4


@pytest.mark.parametrize("numbers", [{"batch": 0}, {"max_frames": 0}])
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


@pytest.mark.parametrize("stage", ["read", "predict", "draw", "on_frame"])
def test_error_in_a_stage_reaches_the_caller(tmp_path: Path, stage: str) -> None:
    output = tmp_path / "out.mp4"
    with pytest.raises(OSError, match="unplugged" if stage == "read" else stage):
        run_video(**failing(stage), output=output, display=False)
    assert read_numbers(output) == [0, 1, 2, 3, 4]  # all that came before, playable


def test_wrong_number_of_results() -> None:
    with pytest.raises(ValueError, match="zip"):
        run_video(FakeSource(3), lambda _: [], draw, output=None, display=False)


@pytest.mark.parametrize("live", [False, True])
def test_ctrl_c_finishes_the_output(tmp_path: Path, live: bool) -> None:
    positions: list[int] = []

    def interrupt(position: int, _: Detections) -> None:
        positions.append(position)
        if len(positions) == 4:
            raise KeyboardInterrupt

    source = FakeSource(10**6, live=live, fps=200)
    output = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        run_video(source, predict, draw, output=output, display=False, on_frame=interrupt)
    assert len(read_numbers(output)) >= 3


def test_bad_output_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="suffix"):
        run_video(FakeSource(3), predict, draw, output=Path("out.xyz"), display=False)


def test_live_source_drops_stale_frames(tmp_path: Path) -> None:
    seen: list[int] = []
    newest = newest_before = -1

    class Counted(FakeSource):
        def __iter__(self) -> Iterator[np.ndarray]:
            nonlocal newest
            for frame in super().__iter__():
                newest += 1
                yield frame

    def slow(images: list[np.ndarray]) -> list[Detections]:
        """Take as long as the camera takes for five frames."""
        nonlocal newest_before
        assert number_of(images[0]) >= newest_before - 1  # no frame is kept waiting
        until = min(newest + 5, 24)
        while newest < until:
            time.sleep(0.001)
        newest_before = newest
        return predict(images)

    source = Counted(25, live=True, fps=100)
    output = tmp_path / "out.mp4"
    report = run_video(
        source, slow, draw, output=output, display=False, on_frame=lambda i, _: seen.append(i)
    )
    assert seen == sorted(set(seen))
    assert seen[0] <= 1
    assert seen[-1] == 24
    assert report.frames == len(seen) < 10
    assert report.frames + report.dropped == 25
    assert len(read_numbers(output)) == 25  # gaps are filled: the recording keeps real time


def test_live_batches_do_not_wait() -> None:
    sizes: list[int] = []

    def fast(images: list[np.ndarray]) -> list[Detections]:
        sizes.append(len(images))
        return predict(images)

    source = FakeSource(6, live=True, fps=50)
    run_video(source, fast, draw, output=None, display=False, batch=4)
    assert sizes == [1] * 6


def test_emulated_playback_keeps_every_frame_and_the_pace() -> None:
    source = FakeSource(11, fps=50)
    report = run_video(source, predict, draw, output=None, display=False, emulate_playback=True)
    assert report.frames == 11
    assert report.seconds >= 10 / 50


def test_fps_is_drawn(tmp_path: Path) -> None:
    output = tmp_path / "out.avi"
    run_video(FakeSource(3), predict, draw, output=output, display=False, show_fps=True)
    with open_video(output) as source:
        assert all(frame.std() > 5 for frame in source)


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
