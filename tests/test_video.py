import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numbered_clip import HW, number_of, picture, read_numbers, write_clip

from data.video import VideoSource, VideoWriter, open_video, plausible_fps


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
