"""Frames from cameras."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.numbered_clip import picture

from data.video import camera
from data.video.camera import CameraSource, quiet_opencv
from data.video.reader import open_video

pytestmark = pytest.mark.usefixtures("no_thread_stays")


class FlakyCapture:
    """Stands for a camera that fails to give some frames."""

    def __init__(self, frames: str):
        self.frames, self.reads, self.is_open = iter(frames), 0, True
        self.settings: dict[int, float] = {}

    def get(self, what: int) -> float:
        return 10 if what == cv2.CAP_PROP_FPS else 0

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
    ("frames", "delivered", "broken"), [(".", 1, 0), ("....", 4, 0), ("..x.", 3, 1), ("x..", 2, 0)]
)
def test_an_unplugged_camera_is_no_end(
    monkeypatch: pytest.MonkeyPatch, frames: str, delivered: int, broken: int
) -> None:
    capture = FlakyCapture(frames)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture)
    source, times = open_video("0"), []
    assert (source.is_live, source.path) == (True, None)
    assert capture.settings == {cv2.CAP_PROP_BUFFERSIZE: 1}
    with pytest.raises(OSError, match="camera 0 gives no frames any more"):
        for _ in source:
            times.append(source.seconds)
    assert len(times) == delivered
    assert source.broken_frames == broken
    assert times == sorted(set(times))
    assert capture.reads < 30


def test_a_closed_camera_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FlakyCapture("....")
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture)
    with CameraSource(0, "0") as source:
        frames = iter(source)
        next(frames)
    capture.frames = iter("")
    assert list(frames) == []


def test_a_camera_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[int] = []

    def capture(index: int) -> FlakyCapture:
        opened.append(index)
        return FlakyCapture(".")

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    (tmp_path / "by-id").symlink_to("/dev/video7")
    names = ("/dev/video3", str(tmp_path / "by-id"), "2", 1)
    assert [open_video(name).name for name in names] == [str(name) for name in names]
    assert opened == [3, 7, 2, 1]


@pytest.mark.parametrize("index", [97, "97"])
def test_no_such_camera(index: int | str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ValueError, match=r"no camera 97; (try|no camera was found: try a file$|is it)"
    ):
        open_video(index)
    assert capfd.readouterr().err == ""


def test_other_cameras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_camera_indices", lambda: [3, 97])
    with pytest.raises(ValueError, match="no camera 97; try 3$"):
        open_video(97)


def test_opencv_is_quiet_for_a_while() -> None:
    log = getattr(cv2.utils, "logging", cv2)
    before = log.getLogLevel()
    with pytest.raises(OSError), quiet_opencv():
        assert log.getLogLevel() == 0
        raise OSError
    assert log.getLogLevel() == before != 0
