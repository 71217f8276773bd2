"""Names of videos to write, and signals that end a run."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.fake_video import FakeSource, draw, predict
from support.numbered_clip import picture, read_numbers, write_clip

from data.video.writer import VideoWriter, free_name
from yolact.cli.common import run_command
from yolact.cli.main import script_arguments
from yolact.cli.output_names import images_and_pictures, source_and_video
from yolact.cli.process import signals_as_keyboard_interrupt
from yolact.results.detections import Detections
from yolact.video.pipeline import run_video


@pytest.fixture(autouse=True)
def in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def nowhere() -> bool:
    return False


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("clip.mp4", "clip.mp4"),
        ("a/frames/%06d.png", "frames.mp4"),
        ("-", "stdin.mp4"),
        ("/dev/stdin", "stdin.mp4"),
        ("0", "0.mp4"),
        ("rtsp://me:secret@camera:554", "video.mp4"),
        ("rtsp://me:secret@camera:554/live.sdp?password=secret", "live.mp4"),
        ("http://host/a%2Fb%20c.mkv", "a_b_c.mp4"),
        ("http://host/%2E%2E%2F", "video.mp4"),
    ],
)
def test_the_name_that_nobody_chose(source: str, name: str) -> None:
    assert source_and_video(source, nowhere) == (source, Path("results") / name)


def test_an_earlier_result_stays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Path("results").mkdir()
    assert source_and_video("clip.mp4", nowhere)[1] == Path("results/clip.mp4")
    assert not caplog.messages
    for number, name in ((2, "clip.mp4"), (3, "clip_2.mp4")):
        (Path("results") / name).touch()
        video = source_and_video("clip.mp4", nowhere)[1]
        assert video == Path(f"results/clip_{number}.mp4")
    told = "results/clip.mp4 is there already: the video is written as results/clip_"
    assert caplog.messages == [f"{told}{number}.mp4" for number in (2, 3)]
    assert source_and_video("clip.mp4:results/clip.mp4", nowhere)[1] == Path("results/clip.mp4")
    assert source_and_video("clip.mp4", nowhere, overwrite=True)[1] == Path("results/clip.mp4")


@pytest.mark.parametrize("target", ["clip.mp4", "./x/../clip.mp4", "link.mp4", "hard.mp4"])
def test_the_source_is_replaced_only_if_wanted(target: str) -> None:
    write_clip(Path("clip.mp4"), 3)
    Path("x").mkdir()
    Path("link.mp4").symlink_to("clip.mp4")
    Path("hard.mp4").hardlink_to("clip.mp4")
    with pytest.raises(ValueError, match="own result: name another output, or add --overwrite"):
        source_and_video(f"clip.mp4:{target}", nowhere)
    assert source_and_video(f"clip.mp4:{target}", nowhere, True) == ("clip.mp4", Path(target))


@pytest.mark.parametrize(("number", "name"), [(1, "a"), (2, "a"), (3, "a"), (2, "n" * 251)])
def test_free_names(tmp_path: Path, number: int, name: str) -> None:
    for taken in [name, *(f"{name[:200]}_{n}" for n in range(2, number))][: number - 1]:
        (tmp_path / f"{taken}.mp4").touch()
    free = free_name(tmp_path / f"{name}.mp4")
    assert free.name == (f"{name[:200]}_{number}.mp4" if number > 1 else f"{name}.mp4")


def test_an_image_from_the_web_among_images() -> None:
    address = "http://me:secret@host:80/a/b.jpg"
    assert images_and_pictures(f"{address}:out") == (
        Path("out"),
        [(address, Path("out/b.png"))],
    )


@pytest.mark.parametrize(
    ("source", "flag"),
    [
        ("-", "--video"),
        ("-:out.mp4", "--video"),
        ("/dev/stdin", "--video"),
        ("/dev/null", "--video"),
        ("fifo", "--video"),
        ("frames/%06d.png", "--video"),
        ("frames/%d.jpg:out.mp4", "--video"),
        ("50%d.mp4", "--video"),
        ("taken_%d.png", "--image"),  # a file of that very name
    ],
)
def test_what_stands_for_a_video(source: str, flag: str) -> None:
    os.mkfifo("fifo")
    Path("taken_%d.png").touch()
    assert script_arguments("predict", [source]) == [f"{flag}={source}"]


def test_long_names() -> None:
    longest = Path(f"{'n' * 251}.mp4")
    write_clip(longest, 3)
    assert read_numbers(longest) == [0, 1, 2]
    for name in (f"{'n' * 252}.mp4", f"{'ü' * 126}.mp4"):
        with pytest.raises(ValueError, match="cannot write .*: File name too long"):
            VideoWriter(name, 25, (48, 64))
    assert names(Path()) == [longest.name]


def test_two_runs_into_one_file(caplog: pytest.LogCaptureFixture) -> None:
    one, other = (VideoWriter("a.mp4", 25, (48, 64)) for _ in range(2))
    for number in range(6):
        one.write(picture(number))
        other.write(picture(number + 10))
    one.close()
    other.write(picture(16))
    other.close()
    assert (one.path, other.path) == (Path("a.mp4"), Path("a_2.mp4"))
    assert read_numbers(one.path) == list(range(6))
    assert read_numbers(other.path) == list(range(10, 17))
    assert caplog.messages == ["a.mp4 was written by another run: this is a_2.mp4"]
    assert names(Path()) == ["a.mp4", "a_2.mp4"]


def test_a_file_replaced_by_its_own_result() -> None:
    path = write_clip(Path("a.mp4"), 5)
    from data.video.reader import open_video

    with open_video(path) as source, VideoWriter(path, 25, source.image_hw) as writer:
        for frame in source:
            writer.write(255 - frame, source.seconds)
    assert read_numbers(path) == [24 - number for number in range(5)]
    assert names(Path()) == ["a.mp4"]


def after(frames: int, act: Callable[[], None]) -> Callable[[int, Detections], None]:
    """Act once, at the first frame of a position or behind it: a live source drops some."""
    acts = [act]

    def on_frame(position: int, _: Detections) -> None:
        if position >= frames and acts:
            acts.pop()()

    return on_frame


ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.parametrize("number", [*ENDING, signal.SIGINT])
@pytest.mark.parametrize("live", [False, True])
def test_signals_end_a_run_as_ctrl_c_does(
    number: int, live: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = set(threading.enumerate())
    before = [signal.getsignal(each) for each in ENDING]

    def main(_: object) -> None:
        source = FakeSource(50_000, live=live, fps=500)
        on_frame = after(20, lambda: os.kill(os.getpid(), number))
        run_video(source, predict, draw, output=Path("a.mp4"), display=False, on_frame=on_frame)

    assert run_command(main, []) == 128 + number
    assert capsys.readouterr().err == "stopped\n"
    assert len(read_numbers(Path("a.mp4"))) >= 5
    assert names(Path()) == ["a.mp4"]
    assert set(threading.enumerate()) <= threads
    assert [signal.getsignal(each) for each in ENDING] == before


@pytest.mark.parametrize("number", ENDING)
def test_only_the_first_signal_counts(number: int) -> None:
    ends = []
    with pytest.raises(KeyboardInterrupt), signals_as_keyboard_interrupt():
        try:
            os.kill(os.getpid(), number)
        finally:
            for each in ENDING:
                os.kill(os.getpid(), each)
            ends.append("written")
    assert ends == ["written"]


def test_what_is_ignored_stays_so() -> None:
    number = ENDING[-1]
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with signals_as_keyboard_interrupt():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


def test_no_password_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: object) -> None:
        raise OSError("cannot read rtsp://me:secret@camera/live")

    assert run_command(main, []) == 1
    assert capsys.readouterr().err == "error: cannot read rtsp://me:***@camera/live\n"


def test_images_of_a_folder_become_a_video() -> None:
    Path("shots").mkdir()
    for number in range(4):
        cv2.imwrite(f"shots/{number}.png", np.full((49, 65, 3), 10 * number + 8, np.uint8))
    from data.video.reader import open_video

    with open_video("shots") as source, VideoWriter("a.mp4", 30, source.image_hw) as writer:
        for frame in source:
            writer.write(frame, source.seconds)
    assert read_numbers(Path("a.mp4")) == [0, 1, 2, 3]
