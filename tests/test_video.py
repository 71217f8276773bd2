"""Sources of frames: files, image sequences, pipes and cameras."""

import os
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from support.numbered_clip import HW, number_of, picture, read_numbers, write_clip

from data.video import camera
from data.video.camera import CameraSource, quiet_opencv
from data.video.clock import Clock
from data.video.reader import open_video, plausible_fps


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def make(
    path: Path,
    frames: list[np.ndarray],
    times: list[float] | None = None,
    codec: str = "libx264",
    *,
    aspect: Fraction | None = None,
    rotation: tuple[int, bool] | None = None,
    pixels: str = "yuv420p",
    live: bool = False,
) -> Path:
    """Write frames as a recorder does, which tells little or odd things about them."""
    options = {"live": "1"} if live else {}
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream(codec, 25, {"preset": "ultrafast"} if "264" in codec else {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            seconds = number / 25 if times is None else times[number]
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".AVI", ".webm", ".ts", ".mkv"])
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
        assert source.frame_count is None


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


def damaged(path: Path, start: float, stop: float) -> Path:
    content = bytearray(path.read_bytes())
    place = slice(round(len(content) * start), round(len(content) * stop))
    content[place] = bytes(place.stop - place.start)
    path.write_bytes(content)
    return path


def noisy(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "libx264"), (".avi", "mjpeg")])
def test_broken_frames_are_counted_and_told(
    tmp_path: Path, suffix: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    frames = [noisy(n) for n in range(20)]
    path = make(tmp_path / f"a{suffix}", frames, codec=codec, pixels=pixels)
    content = path.read_bytes()
    with av.open(path) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for number in (7, 8):
        content = content.replace(packets[number], bytes(len(packets[number])))
    path.write_bytes(content)
    with open_video(path) as source:
        delivered = len(list(source))
        assert delivered + source.broken_frames == 20
        assert source.broken_frames == 2
        assert source.seconds == pytest.approx(19 / 25, abs=0.002)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 2 broken frames were left out"
    ]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_an_early_end_is_told(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"a{suffix}"
    from data.video.writer import VideoWriter

    with VideoWriter(path, 25, (48, 64)) as writer:
        for number in range(50):
            writer.write(noisy(number))
    assert len(read_numbers(path)) == 50
    assert not caplog.messages
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with open_video(path) as source:
        assert 20 < len(list(source)) < 40
    assert len(caplog.messages) == 1
    assert f"{path}: ends early, after 1." in caplog.text
    assert "of 2.0 s" in caplog.text


def test_a_damaged_file_ends(tmp_path: Path) -> None:
    path = damaged(write_clip(tmp_path / "clip.avi", 20), 0.33, 0.5)
    with open_video(path) as source:
        delivered = len(list(source))
        assert 0 < delivered + source.broken_frames <= 20


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
        assert (source.image_hw, source.fps, source.frame_count) == (HW, 30, 5)
        read = [(number_of(frame), source.seconds) for frame in source]
    assert read == [(n, pytest.approx(t / 30)) for n, t in ((9, 0), (10, 1), (11, 2), (10, 4))]
    assert source.broken_frames == 1
    assert len(caplog.messages) == 1


posix = pytest.mark.skipif(os.name != "posix", reason="FIFOs are POSIX")


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    """Feed bytes to a FIFO, in a thread."""
    threads = []

    def feed(content: bytes) -> Path:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        threads.append(threading.Thread(target=lambda: path.write_bytes(content)))
        threads[0].start()
        return path

    yield feed
    for thread in threads:
        thread.join()


@posix
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts", "a.avi"])
def test_a_pipe(tmp_path: Path, fifo: Callable[[bytes], Path], name: str) -> None:
    content = write_clip(tmp_path / name, 6).read_bytes()
    with open_video(fifo(content)) as source:
        assert source.path is None
        assert not source.is_live
        assert [number_of(frame) for frame in source] == [0, 1, 2, 3, 4, 5]


@posix
def test_a_pipe_with_the_index_at_its_end(tmp_path: Path, fifo: Callable[[bytes], Path]) -> None:
    path = make(tmp_path / "a.mp4", [picture(n) for n in range(6)])
    content = path.read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    with open_video(fifo(content)) as source:
        assert [number_of(frame) for frame in source] == [0, 1, 2, 3, 4, 5]


@posix
def test_a_pipe_of_jpegs(fifo: Callable[[bytes], Path]) -> None:
    content = b"".join(cv2.imencode(".jpg", picture(n))[1].tobytes() for n in range(6))
    with open_video(fifo(content)) as source:
        assert [number_of(frame) for frame in source] == [0, 1, 2, 3, 4, 5]


@posix
@pytest.mark.parametrize(("raw", "pixels"), [("64x48@10", "rgb24"), ("64x48@10:gray", "gray")])
def test_a_pipe_of_raw_frames(fifo: Callable[[bytes], Path], raw: str, pixels: str) -> None:
    frames = [picture(n)[..., : 3 if pixels == "rgb24" else 1] for n in range(4)]
    with open_video(fifo(b"".join(f.tobytes() for f in frames)), raw=raw) as source:
        assert source.fps == 10
        assert [(number_of(f), source.seconds) for f in source] == [
            (n, pytest.approx(n / 10)) for n in range(4)
        ]


@pytest.mark.parametrize("raw", ["", "64x48", "0x4@1", "4x4@0", "axb@3", "4x4@1:no_such_format"])
def test_raw_formats_that_are_none(tmp_path: Path, raw: str) -> None:
    (tmp_path / "a.rgb").write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=r"WxH@FPS|not a video"):
        open_video(tmp_path / "a.rgb", raw=raw)


@posix
def test_a_pipe_that_stalls(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    content = write_clip(tmp_path / "a.ts", 20).read_bytes()
    writing = threading.Event()

    def feed() -> None:
        with (tmp_path / "fifo").open("wb") as file:
            file.write(content)
            file.flush()
            writing.wait(20)

    thread = threading.Thread(target=feed)
    thread.start()
    with open_video(tmp_path / "fifo", timeout=0.3) as source:
        numbers = []
        with pytest.raises(OSError, match=r"fifo: no data for 0.3 s; 20 frames came before"):
            for frame in source:
                numbers.append(number_of(frame))
    writing.set()
    thread.join()
    assert numbers == list(range(20))


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
    assert (source.is_live, source.frame_count, source.path) == (True, None, None)
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
    with pytest.raises(ValueError, match="no camera 97; .*; try 0 or a file"):
        open_video(index)
    assert capfd.readouterr().err == ""


def test_other_cameras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_camera_indices", lambda: [3, 97])
    with pytest.raises(ValueError, match="no camera 97; found 3; try"):
        open_video(97)


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


def test_opencv_is_quiet_for_a_while() -> None:
    log = getattr(cv2.utils, "logging", cv2)
    before = log.getLogLevel()
    with pytest.raises(OSError), quiet_opencv():
        assert log.getLogLevel() == 0
        raise OSError
    assert log.getLogLevel() == before != 0


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
        assert source.frame_count
        assert source.image_hw == (720, 1280)
        frames = iter(source)
        assert {next(frames).shape for _ in range(3)} == {(720, 1280, 3)}
