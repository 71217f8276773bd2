import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data.video import VideoSource, VideoWriter, open_video, plausible_fps
from layers.structures import Detections
from yolact import video
from yolact.video import Cancelled, Channel, run_video

HW = (48, 64)


def picture(number: int, hw: tuple[int, int] = HW) -> np.ndarray:
    """A plain frame whose grey value tells its number, even when darkened by two encodings."""
    return np.full((*hw, 3), 10 * number + 8, np.uint8)


def number_of(frame: np.ndarray) -> int:
    return int(frame.mean() // 10)


def write_clip(path: Path, frames: int, fps: float = 25) -> Path:
    with VideoWriter(path, fps, HW) as writer:
        for number in range(frames):
            writer.write(picture(number))
    return path


def read_numbers(path: Path) -> list[int]:
    with open_video(path) as source:
        return [number_of(frame) for frame in source]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 10)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".MP4", ".mkv"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip{suffix}", 5)
    with open_video(str(path)) as source:
        assert source.image_hw == HW
        assert source.fps == pytest.approx(25)
        assert source.frame_count == 5
        assert not source.is_live
        frames = list(source)
        assert [number_of(frame) for frame in frames] == [0, 1, 2, 3, 4]
        assert {frame.shape for frame in frames} == {(*HW, 3)}
        assert list(source) == []
        assert source.broken_frames == 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_colors_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((*HW, 3), np.uint8)
    red[..., 0] = 220
    with VideoWriter(tmp_path / "red.avi", 10, HW) as writer:
        writer.write(red)
    with open_video(tmp_path / "red.avi") as source:
        frame = next(iter(source))
    assert frame[..., 0].mean() > 180
    assert frame[..., 2].mean() < 60


@pytest.mark.parametrize("hw", [(49, 65), (48, 63)])
def test_odd_sizes_lose_at_most_one_line(tmp_path: Path, hw: tuple[int, int]) -> None:
    with VideoWriter(tmp_path / "odd.mp4", 10, hw) as writer:
        writer.write(picture(3, hw))
    with open_video(tmp_path / "odd.mp4") as source:
        assert source.image_hw == (hw[0] // 2 * 2, hw[1] // 2 * 2)


def test_frame_of_another_size_is_kept(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10, HW) as writer:
        writer.write(picture(1))
        writer.write(picture(2, (96, 128)))
    assert read_numbers(tmp_path / "a.mp4") == [1, 2]


@pytest.mark.parametrize(
    ("reported", "used"), [(0, 30), (-1, 30), (float("nan"), 30), (90000, 30), (0.5, 0.5), (25, 25)]
)
def test_plausible_fps(reported: float, used: float) -> None:
    assert plausible_fps(reported) == used


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "not a video"),
        ("text.mp4", b"hello" * 100, "not a video"),
        ("text.txt", b"hello" * 100, "not a video"),
        ("missing.mp4", None, "no such video file"),
    ],
)
def test_unreadable_sources(
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        open_video(str(tmp_path / name))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("index", [97, "97"])
def test_no_such_camera(index: int | str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no camera 97; .*; try 0 or a file"):
        open_video(index)
    assert capfd.readouterr().err == ""


def test_unreachable_stream() -> None:
    with pytest.raises(ValueError, match="cannot read the stream"):
        open_video("http://127.0.0.1:9/clip.mp4")


def test_damaged_file_ends(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", 20)
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : third + third // 2] = bytes(third // 2)
    path.write_bytes(content)
    with open_video(path) as source:
        delivered = len(list(source))
        assert 0 < delivered + source.broken_frames <= 20


class FlakyCapture:
    """Stands for a capture that fails to decode some frames of a file."""

    def __init__(self, frames: str, claimed: int):
        self.frames, self.claimed, self.reads = iter(frames), claimed, 0

    def get(self, _property: int) -> float:
        return self.claimed

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.reads += 1
        good = next(self.frames, "x") == "."
        return good, picture(1) if good else None


@pytest.mark.parametrize(
    ("frames", "claimed", "live", "delivered", "broken"),
    [
        ("", 1, False, 1, 0),
        ("...", 4, False, 4, 0),
        (".xx.", 5, False, 3, 2),
        ("x" * 30 + "..", 33, False, 3, 30),  # a gap longer than a live source is forgiven
        ("..", 10**9, False, 3, 0),  # the container lies: no endless wait
        ("....", 2, False, 5, 0),  # the container lies the other way: nothing is lost
        (".x.", 0, True, 3, 1),
        (".", 0, True, 2, 0),
    ],
)
def test_broken_frames(frames: str, claimed: int, live: bool, delivered: int, broken: int) -> None:
    capture = FlakyCapture(frames, claimed)
    source = VideoSource("flaky", capture, picture(0), is_live=live)
    assert len(list(source)) == delivered
    assert source.broken_frames == broken
    assert capture.reads < 1100


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.xyz", "suffix"),
        ("out", "suffix"),
        ("nowhere/out.mp4", "no folder"),
        ("d.mp4", "folder"),
    ],
)
def test_writer_refuses(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "d.mp4").mkdir()
    with pytest.raises(ValueError, match=message) as error:
        VideoWriter(tmp_path / name, 25, HW)
    assert "\n" not in str(error.value)


def test_good_file_is_replaced_only_by_a_finished_one(clip: Path) -> None:
    with VideoWriter(clip, 25, HW):
        pass
    assert len(read_numbers(clip)) == 10  # no frame was written: the old file stands
    writer = VideoWriter(clip, 25, HW)
    writer.write(picture(7))
    assert len(read_numbers(clip)) == 10
    writer.close()
    writer.close()
    assert read_numbers(clip) == [7]
    assert [p.name for p in clip.parent.iterdir()] == [clip.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_file_is_playable(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), VideoWriter(tmp_path / "a.mp4", 25, HW) as writer:
        writer.write(picture(1))
        writer.write(picture(2))
        raise error
    assert read_numbers(tmp_path / "a.mp4") == [1, 2]


@pytest.mark.parametrize("name", ["highway", "juggle", "person_dog"])
def test_real_clips(data_root: Path, name: str) -> None:
    with open_video(data_root / "video" / f"{name}.mp4") as source:
        assert source.frame_count
        assert source.image_hw == (720, 1280)
        frames = iter(source)
        assert {next(frames).shape for _ in range(3)} == {(720, 1280, 3)}


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
    def interrupt(position: int, _: Detections) -> None:
        if position >= 3:
            raise KeyboardInterrupt

    source = FakeSource(10**6, live=live, fps=200)
    output = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        run_video(source, predict, draw, output=output, display=False, on_frame=interrupt)
    assert read_numbers(output)[:1] == [0]


def test_bad_output_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="suffix"):
        run_video(FakeSource(3), predict, draw, output=Path("out.xyz"), display=False)


def test_live_source_drops_stale_frames(tmp_path: Path) -> None:
    seen: list[int] = []
    ages: list[int] = []
    source = FakeSource(25, live=True, fps=100)
    newest = -1

    def counted(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal newest
        for frame in frames:
            newest += 1
            yield frame

    class Counted(FakeSource):
        def __iter__(self) -> Iterator[np.ndarray]:
            return counted(super().__iter__())

    def slow(images: list[np.ndarray]) -> list[Detections]:
        ages.append(newest - number_of(images[0]))
        time.sleep(0.05)
        return predict(images)

    source = Counted(25, live=True, fps=100)
    output = tmp_path / "out.mp4"
    report = run_video(
        source, slow, draw, output=output, display=False, on_frame=lambda i, _: seen.append(i)
    )
    assert seen == sorted(set(seen))
    assert seen[0] == 0
    assert seen[-1] == 24
    assert report.frames == len(seen) < 15
    assert report.frames + report.dropped == 25
    assert max(ages) <= 2  # frames behind the newest when the network starts
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
