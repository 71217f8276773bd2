"""Videos with frames that are broken, missing or at an end too early."""

import errno
import io
import re
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from support.numbered_clip import HW, read_numbers, write_clip
from support.recorded_clip import make, noisy

from data.video.container import ContainerSource, open_container
from data.video.reader import open_video
from data.video.writer import VideoWriter

pytestmark = pytest.mark.usefixtures("no_thread_stays")


def damaged(path: Path, start: float, stop: float) -> Path:
    content = bytearray(path.read_bytes())
    place = slice(round(len(content) * start), round(len(content) * stop))
    content[place] = bytes(place.stop - place.start)
    path.write_bytes(content)
    return path


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
    av.logging.set_level(av.logging.ERROR)  # as some torchvisions do
    with open_video(path) as source:
        delivered = len(list(source))
        assert delivered + source.broken_frames == 20
        assert source.broken_frames == 2
        assert source.seconds == pytest.approx(19 / 25, abs=0.002)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 2 broken frames were left out"
    ]


@pytest.mark.parametrize(
    ("suffix", "harm", "told"),
    [
        (".avi", "cut", "ends early, after 3."),
        (".avi", "hole", "ends early, after 4."),
        (".webm", "hole", r"broken frames were left out|frames are missing"),  # by libav's version
        (".ts", "hole", "frames are missing"),
        (".ts", "zeros", "frames are missing"),
        (".mp4", "hole", "broken frames were left out"),
        (".mkv", "", ""),
        (".ts", "", ""),
        (".avi", "", ""),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, suffix: str, harm: str, told: str) -> None:
    """Containers with an index, with a count of their frames, and with neither."""
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, 30, HW) as writer:
        for number in range(150):
            writer.write(noisy(number))
    content = path.read_bytes()
    first, last = len(content) // 2, len(content) * 6 // 10
    between = {"hole": b"", "zeros": bytes(last - first)}.get(harm, content[first:last])
    rest = b"" if harm == "cut" else content[last:]
    path.write_bytes(content[:first] + between + rest)
    with open_video(path) as source:
        frames = len(list(source))
    assert re.search(told, source.damage)
    assert (frames == 150) == (source.damage == "") == (harm == "")


@pytest.mark.parametrize(
    ("codecs", "sizes", "told"),
    [
        (("libx264", "libx264"), [HW, (96, 128)], ""),
        (("libx264", "mpeg4"), [HW], "22 broken frames were left out"),
    ],
)
def test_a_stream_that_changes_midway(
    tmp_path: Path, codecs: tuple[str, str], sizes: list[tuple[int, int]], told: str
) -> None:
    """Another size goes on; another codec in its place is told."""
    content = b""
    for codec, hw in zip(codecs, (HW, (96, 128)), strict=True):
        frames = [np.full((*hw, 3), 4 * number, np.uint8) for number in range(25)]
        content += make(tmp_path / "a.ts", frames, codec=codec).read_bytes()
    (tmp_path / "both.ts").write_bytes(content)
    with open_video(tmp_path / "both.ts") as source:
        shapes = [frame.shape[:2] for frame in source]
    assert list(dict.fromkeys(shapes)) == sizes
    assert source.damage == told
    assert len(shapes) + source.broken_frames >= 45


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


def test_a_disk_that_fails_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if content := super().read(size):
                return content
            raise OSError(errno.EIO, "disk gone")

    content = make(tmp_path / "a.mkv", [noisy(n) for n in range(60)]).read_bytes()
    with ContainerSource("a.mkv", open_container(Failing(content[:-2000]))) as source:
        assert len(list(source)) >= 58
    assert len(caplog.messages) == 1
    assert "a.mkv: ends early, after 2." in caplog.text
    assert "(disk gone)" in caplog.text


def test_a_damaged_file_ends(tmp_path: Path) -> None:
    path = damaged(write_clip(tmp_path / "clip.avi", 20), 0.33, 0.5)
    with open_video(path) as source:
        delivered = len(list(source))
        assert 0 < delivered + source.broken_frames <= 20


def written(path: Path, begin: float, codec: str = "mpeg4", **options: str) -> Path:
    """Write 50 frames at 25 a second, the first at a time, each by its number of bright rows."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, 25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number * 5, np.uint8))
            frame.pts, frame.time_base = number + round(begin * 25), Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("begin", [0, 3, 1000])
def test_a_file_that_begins_late_is_whole(tmp_path: Path, begin: float) -> None:
    with open_video(written(tmp_path / "late.mkv", begin)) as video:
        assert sum(1 for _ in video) == 50
        assert not video.damage


def test_frames_in_another_order_than_shown_have_their_times(tmp_path: Path) -> None:
    path = written(tmp_path / "b.avi", 0, "libx264", bf="3", preset="medium")
    with open_video(path) as video:
        times = [video.seconds for _ in video]
    assert np.diff(times) == pytest.approx(0.04, abs=1e-6)
