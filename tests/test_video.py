"""Sources of frames: files and image sequences."""

from fractions import Fraction
from pathlib import Path

import av
import av.logging
import cv2
import numpy as np
import pytest
from support.numbered_clip import HW, number_of, picture, read_numbers, write_clip
from support.recorded_clip import make

from data.video.clock import Clock
from data.video.reader import open_video
from data.video.source import plausible_fps

pytestmark = pytest.mark.usefixtures("no_thread_stays")


@pytest.mark.parametrize("suffix", [".mp4", ".AVI", ".webm", ".ts", ".mkv"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip{suffix}", 5)
    with open_video(str(path)) as source:
        assert source.image_hw == HW
        assert source.fps == pytest.approx(25)
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
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "not a video"),
        ("missing.mp4", None, "no such video file"),
        ("missing_%04d.png", None, "no images"),
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


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        open_video(tmp_path)


def test_a_wav_is_no_video(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.wav", "w") as container:
        stream = container.add_stream("pcm_s16le", 8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), layout="stereo")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match="not a video"):
        open_video(tmp_path / "a.wav")


def test_gigantic_frames_are_refused(tmp_path: Path) -> None:
    head = b"YUV4MPEG2 W30000 H30000 F25:1 C420jpeg\nFRAME\n"
    (tmp_path / "a.y4m").write_bytes(head + bytes(1000))
    with pytest.raises(ValueError, match=r"30000 x 30000|not a video"):
        open_video(tmp_path / "a.y4m")


BURSTS = [0.0, 5.0, 10.0, *(10 + n / 60 for n in range(1, 20))]
UNEVEN = [0.0, 0.067, 0.167, 0.8, 2.4, 3.0, 5.967]


@pytest.mark.parametrize("times", [BURSTS, UNEVEN, [7200.0, 7200.04, 7201.0]])
@pytest.mark.parametrize(("suffix", "live"), [(".mp4", False), (".mkv", False), (".mkv", True)])
def test_the_frames_own_times(tmp_path: Path, times: list[float], suffix: str, live: bool) -> None:
    path = make(
        tmp_path / f"a{suffix}", [picture(n % 20) for n in range(len(times))], times, live=live
    )
    with open_video(path) as source:
        read = [source.seconds for _ in source]
    assert read == pytest.approx([t - times[0] for t in times], abs=0.002)


def test_frames_without_times(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h264", [picture(n) for n in range(5)])
    with open_video(path) as source:
        assert [source.seconds for _ in source] == pytest.approx([n / source.fps for n in range(5)])


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([], []),
        ([5, 5.1, 5.2], [0, 0.1, 0.2]),
        ([None, None, None], [0, 0.1, 0.2]),
        ([1, 1, 1, 1.3], [0, 0, 0, 0.3]),  # equal ones stay
        ([1, 1.2, 1.1, 1.3], [0, 0.2, 0.2, 0.3]),  # a little disorder
        ([100, 100.1, 0, 0.1], [0, 0.1, 0.2, 0.3]),  # a new beginning
        ([0, 0.1, 1e9, 1e9 + 0.1], [0, 0.1, 0.2, 0.3]),  # a broken one, or a clock that was set
        ([0, 0.1, 7200], [0, 0.1, 7200]),  # a gap that may be
    ],
)
def test_clock(stamps: list[float | None], expected: list[float]) -> None:
    clock = Clock(10)
    assert [clock.advance(stamp) for stamp in stamps] == pytest.approx(expected)


def test_no_stamp_is_believed_beyond_the_end() -> None:
    clock = Clock(10, end=5)
    assert [clock.advance(stamp) for stamp in (0, 0.1, 60)] == pytest.approx([0, 0.1, 0.2])


def halves(left: int, right: int, hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    image = np.full((*hw, 3), left, np.uint8)
    image[:, hw[1] // 2 :] = right
    return image


@pytest.mark.parametrize(
    ("rotation", "bright"),
    [
        ((90, False), (0, slice(None))),  # the right side goes up
        ((-90, False), (-1, slice(None))),
        ((180, False), (slice(None), 0)),
        ((0, True), (slice(None), 0)),
    ],
)
def test_frames_are_upright(
    tmp_path: Path, rotation: tuple[int, bool], bright: tuple[object, object]
) -> None:
    path = make(tmp_path / "a.mp4", [halves(20, 220)] * 2, rotation=rotation)
    with open_video(path) as source:
        frame = next(iter(source))
        assert source.image_hw == frame.shape[:2] == ((64, 48) if rotation[0] % 180 else (48, 64))
        assert frame.flags.c_contiguous
        assert frame[bright].mean() == pytest.approx(220, abs=10)


@pytest.mark.parametrize(
    ("aspect", "width"), [(Fraction(64, 45), 91), (Fraction(8, 9), 57), (Fraction(1, 1000), 64)]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, width: int, suffix: str) -> None:
    path = make(tmp_path / f"a{suffix}", [halves(20, 220)] * 20, aspect=aspect)
    with open_video(path) as source:
        assert source.image_hw == (48, width)
        assert {frame.shape for frame in source} == {(48, width, 3)}


RED, GREEN, GREY = (253, 0, 0), (20, 200, 40), (120, 120, 120)


@pytest.mark.parametrize("color", [RED, GREEN, GREY])
@pytest.mark.parametrize(
    ("hw", "space", "full"),
    [((720, 64), 1, False), ((1080, 64), 1, False), ((576, 64), 5, False), ((48, 64), 5, True)],
)
def test_untagged_colours_are_hd_from_720_lines_on(
    tmp_path: Path, color: tuple[int, int, int], hw: tuple[int, int], space: int, full: bool
) -> None:
    image = av.VideoFrame.from_ndarray(np.full((*hw, 3), color, np.uint8), format="rgb24")
    ranges = {"dst_color_range": 2} if full else {}
    frame = image.reformat(format="yuv420p", dst_colorspace=space, **ranges)
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("ffv1", 25)
        stream.height, stream.width = hw
        if full:
            stream.codec_context.color_range = 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_video(tmp_path / "a.mkv") as source:
        assert next(iter(source)).mean((0, 1)) == pytest.approx(color, abs=3)


def test_a_palette_and_odd_sizes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.gif", 4)
    assert read_numbers(path) == [0, 1, 2, 3]
    odd = make(tmp_path / "a.mkv", [halves(20, 220, (49, 65))] * 2, codec="ffv1", pixels="yuv444p")
    with open_video(odd) as source:
        assert {frame.shape for frame in source} == {(49, 65, 3)}


def test_a_closed_source_ends(tmp_path: Path) -> None:
    with open_video(write_clip(tmp_path / "a.mp4", 10)) as source:
        frames = iter(source)
        next(frames)
    assert list(source) == []


@pytest.mark.parametrize("name", ["{}", "{}/%d.png", "{}/%02d.png"])
def test_image_sequences(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "frames 100%"
    folder.mkdir()
    for number in (9, 10, 11, 30):
        cv2.imwrite(str(folder / f"{number:02}.png"), picture(number % 20))
    (folder / "12.png").write_bytes(b"broken")
    (folder / "notes.txt").touch()
    with open_video(name.format(folder)) as source:
        assert (source.image_hw, source.fps) == (HW, 30)
        read = [(number_of(frame), source.seconds) for frame in source]
    assert read == [(n, pytest.approx(t / 30)) for n, t in ((9, 0), (10, 1), (11, 2), (10, 4))]
    assert source.broken_frames == 1
    assert len(caplog.messages) == 1


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_clip(Path("~/clip.avi"), 2)
    assert (tmp_path / "clip.avi").exists()
    with open_video("~/clip.avi") as source:
        assert source.path == tmp_path / "clip.avi"


@pytest.mark.parametrize("name", ["a:b.mp4", "http:a.mp4", "100%.mp4", "a#b?c.mp4", "ü 1.mp4"])
def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(Path(name), 2)
    assert read_numbers(Path(name)) == [0, 1]
    with open_video((tmp_path / name).as_uri()) as source:
        assert source.path == tmp_path / name


def test_without_pyav_one_line_tells_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = write_clip(tmp_path / "a.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    for name in ("container", "encoder"):
        monkeypatch.delitem(sys.modules, f"data.video.{name}")
    with pytest.raises(ValueError, match="videos need PyAV: pip install av"):
        open_video(path)
    with pytest.raises(ValueError, match="videos need PyAV: pip install av"):
        write_clip(tmp_path / "b.mp4", 2)


@pytest.mark.parametrize("name", ["highway", "juggle", "person_dog"])
def test_real_clips(data_root: Path, name: str) -> None:
    with open_video(data_root / "video" / f"{name}.mp4") as source:
        assert source.image_hw == (720, 1280)
        frames = iter(source)
        assert {next(frames).shape for _ in range(3)} == {(720, 1280, 3)}
