"""Folder runs that are stopped, or go wrong, and go on with --resume."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.odd_masks import odd_detections
from support.tiny import make_dataset, save_tiny

import eval as eval_script
from yolact import ResultFolder
from yolact.cli import predict as predict_room
from yolact.cli.common import run_command
from yolact.errors import UsageError
from yolact.files import RunLock
from yolact.predictor import Predictor
from yolact.results import journal
from yolact.results.journal import Journal, read_settings

THRESHOLDS = ("--score_threshold=0", "--top_k=2")
ALL = [f"--save_{kind}" for kind in ("json", "csv", "coco", "txt", "masks", "crops", "cutouts")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five images in "in", a checkpoint, and the results of an unbroken run."""
    folder = tmp_path_factory.mktemp("place")
    make_dataset(folder / "scenes", 1, 5)
    (folder / "in").mkdir()
    for image in (folder / "scenes" / "val").glob("*.jpg"):
        shutil.copy(image, folder / "in")
    save_tiny(folder / "tiny.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert predict(*ALL) == 0
    return folder


@pytest.fixture(scope="module")
def predictor(place: Path) -> Predictor:
    return Predictor.from_checkpoint(str(place / "tiny.pth"), device="cpu", engine="eager")


@pytest.fixture(autouse=True)
def in_place(
    place: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.setattr(eval_script, "load_predictor", lambda *_: predictor)
    (tmp_path / "tiny.pth").symlink_to(place / "tiny.pth")
    shutil.copytree(place / "in", tmp_path / "in", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


def predict(*flags: str) -> int:
    shared = ["--trained_model=tiny.pth", "--device=cpu", "--engine=eager"]
    return run_command(eval_script.main, [*shared, *THRESHOLDS, "--images=in:out", *flags])


def content(folder: Path) -> dict[str, bytes]:
    """All that a user sees, by name."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def stop_after(monkeypatch: pytest.MonkeyPatch, images: int, error: BaseException) -> list[int]:
    """Let the network run for so many images, then raise; the list grows by one for each."""
    runs: list[int] = []
    real = Predictor.segment

    def segment(self: Predictor, pictures: Any, thresholds: Any) -> Any:
        if len(runs) >= images:
            raise error
        runs.append(len(pictures))
        return real(self, pictures, thresholds)

    monkeypatch.setattr(Predictor, "segment", segment)
    return runs


@pytest.mark.parametrize(
    ("done", "error"),
    [
        (0, KeyboardInterrupt(15)),
        (2, RuntimeError("a mistake of ours")),
        (4, KeyboardInterrupt(15)),
    ],
)
def test_a_run_that_is_stopped_goes_on(
    place: Path,
    done: int,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    with monkeypatch.context() as patch:
        stop_after(patch, done, error)
        if isinstance(error, KeyboardInterrupt):
            assert predict(*ALL) == 143
        else:
            with pytest.raises(RuntimeError):
                predict(*ALL)
    assert f"{done} images done, 0 there already, {5 - done} not; --resume goes on" in caplog.text
    runs = stop_after(monkeypatch, 99, error)
    assert predict(*ALL, "--resume") == 0
    assert sum(runs) == 5 - done
    assert f"{5 - done} images done, {done} there already, 0 not" in caplog.text
    assert content(Path("out")) == content(place / "out")
    assert predict(*ALL, "--resume") == 0
    assert sum(runs) == 5 - done
    assert content(Path("out")) == content(place / "out")


def test_an_image_that_moves_the_name_of_another() -> None:
    """A new image takes the plain name of a stem; the old one's files get the other name."""
    assert predict("--save_json") == 0
    with Image.open("in/000002.jpg") as picture:
        picture.rotate(90).save("in/000002.bmp")
    assert predict("--save_json", "--resume") == 0
    found = content(Path("out"))
    shutil.rmtree("out")
    assert predict("--save_json") == 0
    assert found == content(Path("out"))
    assert {"000002.png", "000002_jpg.png"} <= set(found)


def test_an_image_without_a_path_is_never_taken_as_done() -> None:
    source = "in/000001.jpg"
    for _ in range(2):
        with ResultFolder("out", ["csv"], settings={"a": 1}, resume=True) as folder:
            assert folder.missing(["", source]) == ["", source][: 2 if _ == 0 else 1]
            folder.add(odd_detections(), "array")
            folder.add(replace(odd_detections(), source=source), "path")


def lose_a_picture() -> None:
    Path("out/000002.png").unlink()


def cut_a_file() -> None:
    os.truncate("out/json/000002.json", 10)


def touch_an_image() -> None:
    os.utime("in/000002.jpg", (1, 1))


def cut_the_last_line() -> None:
    os.truncate("out/.detections.progress", Path("out/.detections.progress").stat().st_size - 5)


def spoil_a_line() -> None:
    path = Path("out/.detections.progress")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"\0" * 50 + b"\n", *lines[4:]]))


@pytest.mark.parametrize(
    "harm", [lose_a_picture, cut_a_file, touch_an_image, cut_the_last_line, spoil_a_line]
)
def test_only_what_is_whole_is_taken_as_done(
    place: Path, harm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict(*ALL) == 0
    harm()
    runs = stop_after(monkeypatch, 99, RuntimeError())
    assert predict(*ALL, "--resume") == 0
    assert runs == [1]
    found, expected = content(Path("out")), content(place / "out")
    lines = [text.pop("detections.csv").splitlines() for text in (found, expected)]
    assert sorted(lines[0]) == sorted(lines[1])
    both = [json.loads(text.pop("detections_coco.json")) for text in (found, expected)]
    assert len(both[0]["annotations"]) == len(both[1]["annotations"])
    assert found == expected


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--score_threshold=0.1", "--score_threshold=0.0, not 0.1"),
        ("--save_txt", "files=[], not ['txt']"),
        ("--trained_model=other.pth", "--trained_model=SHA-256 "),
        ("--set=detect.nms=greedy", "--set detect.nms="),
    ],
)
def test_other_settings_are_refused_or_begun_anew(
    flag: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load("tiny.pth", weights_only=True)
    torch.save(checkpoint | {"other": 1}, "other.pth")
    assert predict() == 0
    before = content(Path("out"))
    assert predict("--resume", flag) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"out holds results of a run with {said}" in error
    assert "begin anew without --resume" in error
    assert content(Path("out")) == before
    assert predict(flag) == 0


def test_what_was_measured_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether bfloat16 pays is measured, and can come out otherwise on a busy machine."""
    fast = iter((True, False))
    monkeypatch.setattr("yolact.engines.choose.is_fast", lambda *_: next(fast))
    assert predict() == 0
    assert predict("--resume") == 0
    assert predict("--resume", "--precision=float32") == 1


def test_resume_of_nothing_begins(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("--resume") == 0
    assert len(content(Path("out"))) == 5
    Path("out/.detections.progress").write_bytes(b"no record\n")
    assert predict("--resume") == 0
    assert predict("--resume", "--json", "--no_picture") == 2
    assert "--resume: not with --json" in capsys.readouterr().err


def edit(journal: Path, key: str, entry: Any) -> None:
    """Replace what a record notes under a key; a mapping replaces the values of its names."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line.get("key") == key:
            is_part = isinstance(entry, dict) and isinstance(line["entry"], dict)
            line["entry"] = {**line["entry"], **entry} if is_part else entry
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("", None),
        ("", {"classes": 5}),
        ("", {"csv": [[]]}),
        ("in/000005.jpg", "words"),
        ("in/000005.jpg", {"files": ["a"]}),
        ("in/000005.jpg", {"files": {"\0": None, "\ud800": 1}}),
        ("in/000005.jpg", {"stamp": 1}),
        ("in/000005.jpg", {"name": None}),
        ("in/000005.jpg", {"collected": {}}),
        ("in/000005.jpg", {"collected": {"csv": 1, "jsonl": 2, "coco": 3}}),
        (
            "in/000005.jpg",
            {
                "collected": {
                    "csv": "",
                    "jsonl": "",
                    "coco": {"file_name": "a", "height": 1, "width": 1e999, "objects": [5]},
                }
            },
        ),
    ],
)
def test_a_record_that_somebody_changed(place: Path, key: str, entry: Any) -> None:
    """What makes no sense is done again."""
    assert predict(*ALL, "--resume") == 0
    edit(Path("out/.detections.progress"), key, entry)
    assert predict(*ALL, "--resume") == 0
    assert content(Path("out")) == content(place / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and links")
@pytest.mark.parametrize("name", [".detections.progress", ".detections.lock"])
@pytest.mark.parametrize("kind", ["pipe", "link", "dead link"])
def test_a_record_that_is_no_file_is_replaced(place: Path, name: str, kind: str) -> None:
    """Nothing waits for a pipe, and nothing is written through a link."""
    Path("out").mkdir()
    other, target = Path("other"), Path("out") / name
    if kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(other.absolute())
    if kind == "link":
        assert predict() == 0
        shutil.copy("out/.detections.progress", other)
        before = other.read_bytes()
    assert predict("--resume") == 0
    assert target.is_file() is (name != ".detections.lock")
    assert not target.is_symlink()
    assert other.read_bytes() == before if kind == "link" else not other.exists()


def test_a_line_without_an_end_ends_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_LONGEST", 50)
    path = tmp_path / "record"
    with Journal(path, {"a": 1}) as first:
        first.note("b", 2)
    with path.open("ab") as file:
        file.truncate(10_000)
    with Journal(path, {"a": 1}, resume=True) as again:
        assert dict(again) == {"b": 2}
    assert read_settings(path) == {"a": 1}


def test_what_failed_is_tried_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path("in/000003.jpg").read_bytes()
    Path("in/000003.jpg").write_bytes(whole[:100])
    Path("out/000005.png").mkdir(parents=True)  # where a picture is to be
    assert predict("--save_csv") == 1
    assert "2 of 5 images could not be read or written" in capsys.readouterr().err
    Path("in/000003.jpg").write_bytes(whole)
    Path("out/000005.png").rmdir()
    runs = stop_after(monkeypatch, 99, RuntimeError())
    assert predict("--save_csv", "--resume") == 0
    assert sum(runs) == 2
    assert len(Path("out/detections.csv").read_text().splitlines()) == 1 + 5 * 2


@pytest.mark.parametrize("what", ["picture", "json", "progress"])
def test_a_full_disk_ends_the_run_and_it_goes_on(
    place: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    count = iter(range(99))

    def fails_at_the_third(*given: Any, **more: Any) -> Any:
        if next(count) == 2:
            raise full
        return real(*given, **more)

    owner, name = {
        "picture": (predict_room, "write_picture"),
        "json": (predict_room.ResultFolder, "write"),
        "progress": (Journal, "note"),
    }[what]
    real = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails_at_the_third)
        assert predict(*ALL) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert predict(*ALL, "--resume") == 0
    assert content(Path("out")) == content(place / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_second_run_into_a_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    locks = []

    def refuse(file: Any, how: int) -> None:
        locks.append(how)
        raise OSError(errno.EAGAIN, "held")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.raises(UsageError, match=r"out: another run writes detections there; stop it"):
        RunLock(Path(), "x", "out: another run writes detections there; stop it")
    assert predict() == 2
    assert len(locks) == 2
    assert not list(Path("out").glob("*.png"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_without_locks_it_works_all_the_same(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.lockf", refuse)
    monkeypatch.setattr("fcntl.flock", refuse)
    assert predict() == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        ".detections.progress",
        *(f"00000{n}.png" for n in range(1, 6)),
    ]


def test_a_folder_that_cannot_be_written_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for root, who may write anywhere."""

    def read_only(*_: object, **more: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "out")

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert predict() == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: [Errno 30] Read-only file system: 'out'"
    )


def test_in_python(place: Path, predictor: Predictor) -> None:
    paths = sorted(Path("in").iterdir())
    for count, missing in ((3, 5), (5, 2), (5, 0)):
        with ResultFolder("made", ["json", "csv"], settings={"top_k": 2}, resume=True) as folder:
            todo = folder.missing(paths[:count] if missing == 5 else paths)
            assert len(todo) == min(missing, count)
            for found in predictor.stream(todo, score_threshold=0, top_k=2):
                folder.add(found, Path(found.source).stem)
    made, expected = content(Path("made")), content(place / "out")
    assert made == {name: expected[name] for name in made}
    assert len(made) == 6
    with pytest.raises(ValueError, match=r"made holds results of a run with top_k=2, not 3"):
        ResultFolder("made", ["json", "csv"], settings={"top_k": 3}, resume=True).__enter__()
    ResultFolder("made", ["json", "csv"], settings={"top_k": 3}).__enter__().__exit__(*[None] * 3)
