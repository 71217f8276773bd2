"""Video runs that are stopped go on with --resume: the file comes out as from an unbroken run."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.numbered_clip import read_numbers
from support.sound_clip import write_sound_clip
from support.tiny import save_tiny
from test_resume import content, edit, stop_after

import eval as eval_script
from data.shapes.clip import export_clip, shape_clip
from data.video.container import SoundOfFile
from data.video.encoder import Encoder, join
from data.video.reader import open_video
from data.video.writer import VideoWriter
from yolact.cli.common import run_command
from yolact.cli.predict import is_fatal
from yolact.predictor import Predictor
from yolact.video import parts

SAVED = ("--save_json", "--save_csv", "--save_coco", "--save_crops")
FRAMES = 11


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    save_tiny(folder / "tiny.pth")
    export_clip(folder / "clip.mp4", shape_clip(FRAMES, (48, 64)))
    write_sound_clip(folder / "sound.mp4", seconds=FRAMES / 25)
    return folder


@pytest.fixture(scope="module")
def predictor(place: Path) -> Predictor:
    return Predictor.from_checkpoint(str(place / "tiny.pth"), device="cpu", engine="eager")


@pytest.fixture(autouse=True)
def in_place(
    place: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    for name in ("tiny.pth", "clip.mp4", "sound.mp4"):
        (tmp_path / name).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(eval_script, "load_predictor", lambda *_: predictor)
    monkeypatch.setattr(parts, "LENGTH", 3)
    yield


def predict(*flags: str, source: str = "clip.mp4:out/b.mp4") -> int:
    shared = ["--trained_model=tiny.pth", "--device=cpu", "--engine=eager"]
    limits = ["--score_threshold=0", "--top_k=2", f"--video={source}"]
    return run_command(eval_script.main, [*shared, *limits, *flags])


def packets(path: Path) -> list[tuple[int | None, int | None, bytes]]:
    with av.open(path) as file:
        return [(p.pts, p.dts, bytes(p)) for p in file.demux(video=0) if p.size]


@pytest.mark.parametrize(
    ("flags", "done", "kept"),
    [
        ([], 0, 0),
        ([], 5, 3),
        ([], 10, 9),
        (["--video_multiframe=2"], 4, 4),
        (["--keyframes=2"], 4, 4),
        (["--no_picture"], 7, 6),
    ],
)
def test_a_video_goes_on_where_it_stopped(
    flags: list[str], done: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict(*SAVED, *flags, "--resume") == 0
    expected = content(Path("out"))
    assert ("b.mp4" in expected) == ("--no_picture" not in flags)
    shutil.rmtree("out")
    with monkeypatch.context() as patch:
        runs = stop_after(patch, done, KeyboardInterrupt(15))
        assert predict(*SAVED, *flags, "--resume") == 143
    assert not Path("out/b.mp4").exists()
    runs = stop_after(monkeypatch, 99, RuntimeError())
    assert predict(*SAVED, *flags, "--resume") == 0
    frames = -(-(FRAMES - kept) // 2) if "--keyframes=2" in flags else FRAMES - kept
    assert sum(runs) == frames
    assert content(Path("out")) == expected
    lines = [json.loads(line)["source"] for line in expected["b.jsonl"].decode().splitlines()]
    assert lines == [f"clip.mp4#{number}" for number in range(FRAMES)]
    assert predict(*SAVED, *flags, "--resume") == 0
    assert sum(runs) == frames  # there is nothing left to do
    assert not Path("out/.b.mp4.parts").exists()


def test_a_video_that_was_begun_anew_is_gone_on_with() -> None:
    assert predict("--resume") == 0
    assert predict("--resume", "--track") == 1
    assert predict("--track") == 0
    assert {path.name for path in Path("out").iterdir()} == {"b.mp4"}
    assert predict("--resume", "--track") == 0


def test_a_kill_at_the_very_end_leaves_no_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # after it, nothing else is done
        assert predict("--resume") == 0
    assert Path("out/.b.mp4.parts").is_dir()
    assert predict("--resume") == 0
    assert {path.name for path in Path("out").iterdir()} >= {"b.mp4", ".b.mp4.progress"}
    assert not Path("out/.b.mp4.parts").exists()


def test_parts_whose_frames_follow_each_other_fast_are_joined(tmp_path: Path) -> None:
    """AVI counts few ticks: frames in quick succession end later there than they say."""
    frames = [np.full((32, 32, 3), 5 * number, np.uint8) for number in range(12)]
    parts = []
    for number, start in enumerate((0.0, 0.2)):  # the first part lasts until 0.24 s
        parts.append((tmp_path / f"{number}.avi", start))
        with VideoWriter(parts[-1][0], 25, (32, 32)) as writer:
            for index in range(6):
                writer.write(frames[6 * number + index], index * 0.01)
    join(parts, tmp_path / "whole.avi", None)
    with open_video(tmp_path / "whole.avi") as video:
        found = [int(frame.mean()) for frame in video]
    assert len(found) == 12
    assert found == sorted(found)


@pytest.mark.skipif(sys.platform == "win32", reason="no links")
def test_a_link_in_place_of_the_parts_is_replaced() -> None:
    foreign = Path("elsewhere")
    foreign.mkdir()
    (foreign / f"{0:09}.mp4").write_text("mine")
    Path("out").mkdir(exist_ok=True)
    Path("out/.b.mp4.parts").symlink_to(foreign.absolute())
    assert predict("--resume") == 0
    assert (foreign / f"{0:09}.mp4").read_text() == "mine"
    assert Path("out/b.mp4").is_file()


def test_a_finished_video_that_nobody_named_is_not_made_again() -> None:
    for _ in range(2):
        assert predict("--resume", source="clip.mp4") == 0
    assert [path.name for path in Path("results").glob("*.mp4")] == ["clip.mp4"]


def test_sound_is_read_as_carefully_as_frames() -> None:
    """A list is not followed; a title in no encoding is no reason to lose the video."""
    Path("list.mp4").write_text("ffconcat version 1.0\nfile sound.mp4\n")
    titled = Path("titled.mkv")
    with av.open("sound.mp4") as source, av.open(str(titled), "w") as output:
        output.metadata["title"] = "XXXXXXXX"
        streams = {s.index: output.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    titled.write_bytes(titled.read_bytes().replace(b"XXXXXXXX", b"XXXX\xe9\xff\xe9X"))
    with ExitStack() as stack:
        assert SoundOfFile.open(stack, Path("list.mp4")) is None
        assert SoundOfFile.open(stack, titled) is not None
        assert SoundOfFile.open(stack, Path("clip.mp4")) is None


def test_a_full_disk_under_a_video_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Encoder, "write", full)
    with (
        pytest.raises(OSError, match="cannot write") as told,
        VideoWriter("a.mp4", 25, (32, 32)) as writer,
    ):
        writer.write(np.zeros((32, 32, 3), np.uint8))
    assert is_fatal(told.value)
    assert not is_fatal(OSError("cannot write this one"))


def test_a_joined_video_is_like_one_in_one_piece() -> None:
    for name, more in (("whole", []), ("parts", ["--resume"])):
        assert predict(*more, source=f"sound.mp4:{name}.mp4") == 0
    whole, joined = (av.open(f"{name}.mp4") for name in ("whole", "parts"))
    with whole, joined:
        for file in (whole, joined):
            assert len(file.streams.video) == len(file.streams.audio) == 1
        times = [[frame.time for frame in file.decode(video=0)] for file in (whole, joined)]
        assert times[0] == pytest.approx(times[1], abs=1e-3)
    heard = []
    for name in ("whole", "parts"):
        with av.open(f"{name}.mp4") as file:
            heard.append([p.pts for p in file.demux(audio=0) if p.size])
    assert abs(len(heard[0]) - len(heard[1])) <= 2
    assert heard[0][:5] == heard[1][:5]


def test_the_sound_of_a_recording_that_begins_midway() -> None:
    """Its first frames cannot be decoded, for want of a key frame."""
    write_sound_clip(Path("whole.ts"), seconds=2, key_every=20)
    content = Path("whole.ts").read_bytes()
    start = content.index(b"G", len(content) // 6 // 188 * 188)
    Path("late.ts").write_bytes(content[start:])
    heard = []
    for name, more in (("plain", []), ("parts", ["--resume"])):
        assert predict(*more, source=f"late.ts:{name}.mp4") == 0
        with av.open(f"{name}.mp4") as file:
            frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
        loud = np.abs(np.concatenate(frames, axis=1)).max(axis=0) > 0.2
        heard.append((int(loud.argmax()), loud.size))
    (first, size), (first_joined, size_joined) = heard
    assert first_joined == pytest.approx(first, abs=500)
    assert size_joined == pytest.approx(size, abs=2000)
    assert 0 < first < 48000  # the tone of the second second


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".ts", ".avi", ".mov"])
def test_other_files_are_joined_too(suffix: str) -> None:
    assert predict("--resume", "--display_masks=False", source=f"clip.mp4:a{suffix}") == 0
    with av.open(f"a{suffix}") as file:
        times = [frame.time for frame in file.decode(video=0)]
    assert np.diff(times) == pytest.approx([0.04] * (FRAMES - 1), abs=2e-3)


def test_ids_of_tracks_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects get new numbers where a run was stopped, and none gets another's."""
    flags = ["--track", "--save_json", "--resume"]
    with monkeypatch.context() as patch:
        stop_after(patch, 7, KeyboardInterrupt())
        assert predict(*flags) == 130
    assert predict(*flags) == 0
    lines = [json.loads(line) for line in Path("out/b.jsonl").read_text().splitlines()]
    ids = [{each["track_id"] for each in line["objects"]} for line in lines]
    before, after = set().union(*ids[:6]), set().union(*ids[6:])
    assert before
    assert after
    assert max(before) < min(after)


def cut_a_part() -> None:
    part = next(Path("out/.b.mp4.parts").glob("*3.mp4"))
    part.write_bytes(part.read_bytes()[:-10])


def lose_a_crop() -> None:
    next(Path("out/crops").glob("b_000004_*")).unlink()


def cut_the_notes() -> None:
    notes = Path("out/.b.progress")
    notes.write_bytes(b"".join(notes.read_bytes().splitlines(keepends=True)[:6]))


@pytest.mark.parametrize("harm", [cut_a_part, lose_a_crop, cut_the_notes])
def test_what_is_not_whole_is_made_again(harm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert predict(*SAVED, "--resume") == 0
    expected = content(Path("out"))
    shutil.rmtree("out")
    with monkeypatch.context() as patch:
        stop_after(patch, 10, KeyboardInterrupt())
        assert predict(*SAVED, "--resume") == 130
    harm()
    runs = stop_after(monkeypatch, 99, RuntimeError())
    assert predict(*SAVED, "--resume") == 0
    assert sum(runs) == FRAMES - 3
    assert content(Path("out")) == expected


@pytest.mark.parametrize(
    ("key", "entries"),
    [
        ("0", [{"end": 0}, {"end": -3}, {"end": "all"}, {"end": 10**15}]),
        ("3", [{"end": 3}, [3], {"tracks": 2**63}, {"seconds": 1e999}, {"seconds": 1e300}]),
        ("joined", [5, {"frames": "all"}, {"frames": 10**15}, {"damage": None}]),
    ],
)
def test_a_record_that_somebody_changed(
    key: str, entries: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes no sense is done again, in the end."""
    assert predict(*SAVED, "--resume") == 0
    expected, record = content(Path("out")), Path("out/.b.mp4.progress")
    if key != "joined":
        shutil.rmtree("out")
        with monkeypatch.context() as patch:
            stop_after(patch, 8, KeyboardInterrupt(15))
            assert predict(*SAVED, "--resume") == 143
    shutil.copytree("out", "before")
    for entry in entries:
        shutil.rmtree("out")
        shutil.copytree("before", "out")
        edit(record, key, entry)
        assert predict(*SAVED, "--resume") == 0, entry
        assert content(Path("out")) == expected, entry


def test_what_cannot_be_gone_on_with_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("--resume") == 0
    assert predict("--resume", "--track") == 1
    assert "out holds results of a run with --track=False, not True" in capsys.readouterr().err
    assert predict("--resume", source="-:b.mp4") == 1
    assert predict("--resume", source="clip.mp4:a.gif") == 2
    assert read_numbers(Path("out/b.mp4"))


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_damaged_video_is_told_and_kept(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    export_clip(Path("long.mkv"), shape_clip(60, (48, 64)))
    content = Path("long.mkv").read_bytes()
    Path("cut.mkv").write_bytes(content[: len(content) * 6 // 10])
    for _ in range(2):
        assert predict(*more, source="cut.mkv:out/c.mp4") == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: cut.mkv is damaged: ends early, after 1.")
        assert error.endswith("what could be read is kept")
    assert 20 < len(read_numbers(Path("out/c.mp4"))) < 45
