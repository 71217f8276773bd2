"""Frames from pipes, standard input and bare pixels."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
from support.numbered_clip import number_of, picture, write_clip
from support.recorded_clip import make, noisy

from data.images import Picture
from data.video.reader import open_video
from data.video.source import VideoSource, as_image

pytestmark = pytest.mark.usefixtures("no_thread_stays")
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
    path = make(tmp_path / "a.mp4", [noisy(n) for n in range(60)])
    content = path.read_bytes()
    assert content.index(b"moov") > 100_000  # beyond what libav keeps
    with open_video(fifo(content)) as source:
        assert len(list(source)) == 60


@contextmanager
def standard_input(file: int) -> Iterator[None]:
    before = os.dup(0)
    os.dup2(file, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


@posix
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_standard_input(tmp_path: Path, name: str, suffix: str) -> None:
    path = make(tmp_path / "a.mp4", [picture(n) for n in range(6)])  # with its index at the end
    if suffix != ".mp4":
        path = write_clip(tmp_path / f"a{suffix}", 6)
    with path.open("rb") as file, standard_input(file.fileno()), open_video(name) as source:
        assert [number_of(frame) for frame in source] == [0, 1, 2, 3, 4, 5]
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(path.read_bytes())

    thread = threading.Thread(target=feed)
    thread.start()
    with standard_input(reading), open_video(name) as source:
        os.close(reading)
        assert [number_of(frame) for frame in source] == [0, 1, 2, 3, 4, 5]
    thread.join()


@posix
def test_a_terminal_is_no_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda file: file == 0)
    with pytest.raises(ValueError, match="-: expected a video through a pipe"):
        open_video("-")


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
@pytest.mark.parametrize("way", [iter, lambda source: source.pictures()], ids=["images", "any"])
def test_a_pipe_that_stalls(
    tmp_path: Path, way: Callable[[VideoSource], Iterator[Picture]]
) -> None:
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
            for frame in way(source):
                numbers.append(number_of(as_image(frame)))
    writing.set()
    thread.join()
    assert numbers == list(range(20))
