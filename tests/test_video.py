import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.numbered_clip import HW, number_of, picture, write_clip

from data.video import reader
from data.video.reader import VideoSource, open_video, plausible_fps, quiet_opencv


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("suffix", [".mp4", ".AVI"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip{suffix}", 5)
    with open_video(str(path)) as source:
        assert source.image_hw == HW
        assert source.fps == pytest.approx(25)
        assert source.frame_count == 5
        assert not source.is_live
        assert source.path == path
        frames = list(source)
        assert [number_of(frame) for frame in frames] == [0, 1, 2, 3, 4]
        assert {frame.shape for frame in frames} == {(*HW, 3)}
        assert list(source) == []
        assert source.broken_frames == 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


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
    """Stands for a capture at 10 fps that fails to decode some frames of a file.

    `times` maps the number of a frame to the milliseconds that the container tells.
    """

    def __init__(
        self, frames: str, claimed: float, times: Callable[[int], float] = lambda number: 0
    ):
        self.frames, self.claimed, self.times, self.reads = iter(frames), claimed, times, 0
        self.is_open, self.settings = True, {}

    def get(self, what: int) -> float:
        told = {cv2.CAP_PROP_FPS: 10, cv2.CAP_PROP_FRAME_COUNT: self.claimed}
        return told[what] if what in told else self.times(self.reads)

    def set(self, what: int, value: float) -> None:
        self.settings[what] = value

    def isOpened(self) -> bool:
        return self.is_open

    def release(self) -> None:
        self.is_open = False

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
    ("times", "expected"),
    [
        (lambda number: 100 * number, [0, 0.1, 0.4, 0.5]),
        (lambda number: 50 * number, [0, 0.05, 0.2, 0.25]),  # unequal distances are the file's own
        (lambda number: 0, [0, 0.1, 0.4, 0.5]),  # it tells nothing
        (lambda number: float("nan"), [0, 0.1, 0.4, 0.5]),
        (lambda number: 1e9 * number, [0, 0.1, 0.4, 0.5]),  # beyond the end
        (lambda number: 1000 - number, [1, 1.1, 1.4, 1.5]),  # back in time
    ],
)
def test_broken_frames_take_their_time(
    times: Callable[[int], float], expected: list[float]
) -> None:
    source = VideoSource("flaky", FlakyCapture(".xx..", 6, times), picture(0), is_live=False)
    assert [source.seconds for _ in source] == pytest.approx(expected)


def test_a_live_source_goes_by_the_clock() -> None:
    capture = FlakyCapture("....", 0, lambda number: 1e6 * number)
    source = VideoSource("camera", capture, picture(0), is_live=True)
    times = [source.seconds for _ in source]
    assert times == sorted(set(times))
    assert 0 < times[-1] < 100
    assert source.path is None


@pytest.mark.parametrize(
    ("name", "claimed", "live"),
    [("0", 0, True), ("rtsp://camera/live", 0, True), ("http://host/clip.mp4", 4, False)],
)
def test_only_what_does_not_end_is_live(
    monkeypatch: pytest.MonkeyPatch, name: str, claimed: int, live: bool
) -> None:
    capture = FlakyCapture("....", claimed)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture)
    source = open_video(name)
    assert source.is_live == live
    assert source.frame_count == (None if live else claimed)
    assert source.path is None
    assert capture.settings == ({cv2.CAP_PROP_BUFFERSIZE: 1} if live else {})


def test_a_closed_source_ends() -> None:
    capture = FlakyCapture(".....", 10**6)
    with VideoSource("flaky", capture, picture(0), is_live=False) as source:
        frames = iter(source)
        next(frames)
    assert not capture.is_open
    capture.frames = iter("")
    assert list(frames) == []
    assert capture.reads == 1


def test_other_cameras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_camera_indices", lambda: [3, 97])
    with pytest.raises(ValueError, match="no camera 97; found 3; try"):
        open_video(97)


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_clip(Path("~/clip.avi"), 2)
    assert (tmp_path / "clip.avi").exists()
    with open_video("~/clip.avi") as source:
        assert source.path == tmp_path / "clip.avi"


def test_opencv_is_quiet_for_a_while() -> None:
    log = getattr(cv2.utils, "logging", cv2)
    before = log.getLogLevel()
    with pytest.raises(OSError), quiet_opencv():
        assert log.getLogLevel() == 0
        raise OSError
    assert log.getLogLevel() == before != 0


@pytest.mark.parametrize("name", ["highway", "juggle", "person_dog"])
def test_real_clips(data_root: Path, name: str) -> None:
    with open_video(data_root / "video" / f"{name}.mp4") as source:
        assert source.frame_count
        assert source.image_hw == (720, 1280)
        frames = iter(source)
        assert {next(frames).shape for _ in range(3)} == {(720, 1280, 3)}
