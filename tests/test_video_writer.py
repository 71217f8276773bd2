"""Files of frames and sound."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.numbered_clip import HW, number_of, picture, read_numbers, write_clip

from data.video.formats import FORMATS
from data.video.reader import open_video
from data.video.writer import VideoWriter, exact_fps


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 10)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [*FORMATS, ".MKV"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip{suffix}", 5)
    with open_video(path) as source:
        assert source.image_hw == HW
        assert source.fps == pytest.approx(25)
        assert [(number_of(frame), source.seconds) for frame in source] == [
            (number, pytest.approx(number / 25, abs=0.002)) for number in range(5)
        ]
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".ts", ".gif"])
@pytest.mark.parametrize("color", [(220, 20, 20), (20, 200, 40), (30, 60, 220), (120, 120, 120)])
def test_colors(tmp_path: Path, suffix: str, color: tuple[int, int, int]) -> None:
    path = tmp_path / f"color{suffix}"
    with VideoWriter(path, 10, HW) as writer:
        writer.write(np.full((*HW, 3), color, np.uint8))
    with open_video(path) as source:
        frame = next(iter(source))
    assert frame.mean((0, 1)) == pytest.approx(color, abs=10)


@pytest.mark.parametrize("hw", [(49, 65), (48, 63), (51, 64)])
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_odd_sizes_lose_at_most_one_line(tmp_path: Path, hw: tuple[int, int], suffix: str) -> None:
    path = tmp_path / f"odd{suffix}"
    with VideoWriter(path, 10, hw) as writer:
        writer.write(picture(3, hw))
        writer.write(picture(4, (2 * hw[0], hw[1])))
    with open_video(path) as source:
        assert source.image_hw == (hw[0] // 2 * 2, hw[1] // 2 * 2)
    assert read_numbers(path) == [3, 4]


def test_frame_of_another_size_is_kept(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10, HW) as writer:
        writer.write(picture(1))
        writer.write(picture(2, (96, 128)))
    assert read_numbers(tmp_path / "a.mp4") == [1, 2]


@pytest.mark.parametrize(
    ("name", "fps", "hw", "message"),
    [
        ("out.xyz", 25, HW, "suffix"),
        ("out", 25, HW, "suffix"),
        ("nowhere/out.mp4", 25, HW, "no folder"),
        ("d.mp4", 25, HW, "folder"),
        ("o.mp4", 0, HW, "at 0 fps"),
        ("o.mp4", -1, HW, "at -1 fps"),
        ("o.avi", 25, (1, 64), "64 x 1 frames"),
        ("o.mp4", 25, (48, 200_000), "200000 x 48 frames"),
    ],
)
def test_writer_refuses(
    tmp_path: Path,
    name: str,
    fps: float,
    hw: tuple[int, int],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "d.mp4").mkdir()
    with pytest.raises(ValueError, match=message) as error:
        VideoWriter(tmp_path / name, fps, hw)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
    assert names(tmp_path) == ["d.mp4"]


@pytest.mark.parametrize(
    ("frame", "given"),
    [
        (np.zeros((*HW, 3)), "ndarray of shape (48, 64, 3) and type float64"),
        (np.zeros((*HW, 3), np.int64), "ndarray of shape (48, 64, 3) and type int64"),
        (np.zeros((*HW, 4), np.uint8), "ndarray of shape (48, 64, 4) and type uint8"),
        (np.zeros(HW, np.uint8), "ndarray of shape (48, 64) and type uint8"),
        (np.zeros((0, 64, 3), np.uint8), "ndarray of shape (0, 64, 3) and type uint8"),
        (torch.zeros(3, *HW), "Tensor of shape (3, 48, 64) and type torch.float32"),
        (None, "NoneType of shape ()"),
    ],
)
def test_what_is_no_frame_is_refused(tmp_path: Path, frame: Any, given: str) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10, HW) as writer:
        writer.write(picture(1))
        with pytest.raises(ValueError, match=re.escape(f"{given} is no frame: expected")):
            writer.write(frame)
        writer.write(picture(2))
    assert read_numbers(tmp_path / "a.mp4") == [1, 2]


def test_good_file_is_replaced_only_by_a_finished_one(clip: Path) -> None:
    with VideoWriter(clip, 25, HW):
        pass
    assert len(read_numbers(clip)) == 10  # no frame was written: the old file stands
    writer = VideoWriter(clip, 25, HW)
    writer.write(picture(7))
    assert len(read_numbers(clip)) == 10
    writer.close()
    writer.close()
    with pytest.raises(OSError, match="closed"):
        writer.write(picture(8))
    assert read_numbers(clip) == [7]
    assert names(clip.parent) == [clip.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_file_is_playable(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), VideoWriter(tmp_path / "a.mp4", 25, HW) as writer:
        writer.write(picture(1))
        writer.write(picture(2))
        raise error
    assert read_numbers(tmp_path / "a.mp4") == [1, 2]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let writing fail beyond a number of bytes, as it does on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (240, 320, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("frames", [4, 40])
def test_full_disk(clip: Path, suffix: str, frames: int, capfd: pytest.CaptureFixture[str]) -> None:
    path = clip.with_name(f"out{suffix}")
    path.write_bytes(b"old")
    with (
        largest_file(100_000),
        pytest.raises(OSError, match="cannot write .*out") as error,
        VideoWriter(path, 25, (240, 320)) as writer,
    ):
        for number in range(frames):
            writer.write(noise(number))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
    assert names(path.parent) == sorted([clip.name, path.name])
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (29.97, Fraction(30000, 1001)),
        (29.97002997, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (24, Fraction(24)),
        (25.0, Fraction(25)),
        (30, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (1, Fraction(1)),
        (0.2, Fraction(1, 5)),
    ],
)
def test_exact_fps(fps: float, exact: Fraction) -> None:
    assert exact_fps(fps) == exact


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("fps", [29.97, 24, 12.5])
def test_h264_that_browsers_play(tmp_path: Path, suffix: str, fps: float) -> None:
    av = pytest.importorskip("av")
    from av.video.reformatter import ColorRange, Colorspace

    path = write_clip(tmp_path / f"a{suffix}", 20, fps)
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.codec.canonical_name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        colours = stream.codec_context.colorspace, stream.codec_context.color_range
        assert colours == (Colorspace.ITU601, ColorRange.MPEG)
        assert float(stream.average_rate) == pytest.approx(float(exact_fps(fps)), rel=1e-6)
        assert container.duration / av.time_base == pytest.approx(20 / fps, abs=0.002)
        times = [frame.time for frame in container.decode(stream)]
    assert times == pytest.approx([number / fps for number in range(20)], abs=0.001)
    content = path.read_bytes()
    if suffix != ".mkv":
        assert content.index(b"moov") < content.index(b"mdat")  # it starts before all is loaded


def test_frames_of_one_time_follow_each_other(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with VideoWriter(tmp_path / "a.mp4", 25, HW) as writer:
        for number in range(4):
            writer.write(picture(number), 0.2)
    with av.open(tmp_path / "a.mp4") as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == len(set(times)) == 4
    assert times == sorted(times)


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="no permission"):
        VideoWriter(tmp_path / "a.mp4", 25, HW)


BURSTS = [*(5.0 * n for n in range(4)), *(15 + n / 60 for n in range(1, 12))]
UNEVEN = [0.0, 0.067, 0.167, 0.267, 0.333, 1.4, 1.5, 2.567, 5.967, 6.0]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("times", [BURSTS, UNEVEN, [0.0, 7200.0, 7200.04]])
def test_every_frame_is_shown_at_its_time(
    tmp_path: Path, suffix: str, times: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    path, mean_rate = tmp_path / f"a{suffix}", (len(times) - 1) / times[-1]
    with VideoWriter(path, mean_rate, HW) as writer:
        for number, seconds in enumerate(times):
            writer.write(picture(number), seconds)
    with open_video(path) as source:
        shown = [(number_of(frame), source.seconds) for frame in source]
    assert [number for number, _ in shown] == list(range(len(times)))
    assert path.stat().st_size < 2_000_000
    if caplog.messages:  # these two cannot hold hours
        assert (suffix in (".avi", ".gif"), times[1]) == (True, 7200)
        assert "a gap of" in caplog.text
    else:
        assert [seconds for _, seconds in shown] == pytest.approx(times, abs=0.0051)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_clock_that_was_set_does_not_blow_up_a_file(tmp_path: Path, suffix: str) -> None:
    with VideoWriter(tmp_path / f"a{suffix}", 25, HW) as writer:
        for number, seconds in enumerate((0, 0.04, 1e9, 1e9 + 0.04, 5, 1e15)):
            writer.write(picture(number), seconds)
    assert read_numbers(tmp_path / f"a{suffix}") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("fps", "seconds"), [(30, 3600), (0.01, 3600), (25, 1000)])
def test_gaps_do_not_blow_up_a_file(
    tmp_path: Path, fps: float, seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    """AVI has an empty frame for each tick: 400 gaps of an hour were 314 MB."""
    with VideoWriter(tmp_path / "a.avi", fps, HW) as writer:
        for number in range(400):
            writer.write(picture(number % 25), number * seconds)
    assert (tmp_path / "a.avi").stat().st_size < 10_000_000
    assert "a gap of" in caplog.messages[0]
    assert "s of gaps are left out in all" in caplog.messages[1]
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("kind", ["dithered", "stripes", "noise"])
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm"])
@pytest.mark.parametrize("hw", [(96, 128), (720, 64)])
def test_fine_patterns_keep_their_colour(
    tmp_path: Path, kind: str, suffix: str, hw: tuple[int, int]
) -> None:
    places = np.indices(hw).sum(0) % 2 if kind == "dithered" else np.indices(hw)[1] % 2
    pairs = np.array(((250, 200, 10), (40, 60, 230)), np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)
    image = image if kind == "noise" else pairs[places]
    with VideoWriter(tmp_path / f"a{suffix}", 10, hw) as writer:
        writer.write(image)
        writer.write(image)
    with open_video(tmp_path / f"a{suffix}") as source:
        shown = np.stack(list(source))
    assert shown.mean((0, 1, 2)) == pytest.approx(image.mean((0, 1)), abs=3)


@pytest.mark.parametrize(
    ("suffix", "height", "space", "full"),
    [
        (".mp4", 48, 5, False),
        (".mkv", 718, 5, False),
        (".mp4", 720, 1, False),
        (".webm", 720, 1, False),
        (".avi", 720, 5, True),  # JPEG knows one kind
    ],
)
def test_colours_are_labelled(
    tmp_path: Path, suffix: str, height: int, space: int, full: bool
) -> None:
    import av

    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, 10, (height, 64)) as writer:
        writer.write(np.full((height, 64, 3), (253, 20, 20), np.uint8))
    with av.open(path) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (space, 2 if full else 1)
