"""Faults of disks, files and other processes during training: told, and nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import make_dataset
from support.tiny import train_flags as flags
from test_run import make_saver, names

import train
from data.files import locked_part, part_name, remove_stale_parts
from data.video.writer import VideoWriter
from yolact import distributed
from yolact.checkpoint import read_checkpoint, write_atomically
from yolact.cli.common import run_command
from yolact.drawing.plots import draw_curves, save_figure
from yolact.errors import UsageError
from yolact.files import RunLock, write_json, write_picture, write_text
from yolact.results.journal import Journal
from yolact.runs.names import find_checkpoints
from yolact.training.log import TrainingLog, read_log
from yolact.training.options import TrainOptions
from yolact.training.record import write_results
from yolact.training.saver import lock_run

HOLD = (
    "import sys, time; from pathlib import Path; from yolact.files import RunLock;"
    "held = RunLock(Path(sys.argv[1]), 'toy', 'held'); print('held', flush=True); time.sleep(60)"
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains as "toy"."""
    code = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
@pytest.mark.parametrize("other", [[], ["--save_folder"], ["--log_folder"]])
def test_a_second_training_of_one_name_is_refused(
    dataset: Path,
    tmp_path: Path,
    other: list[str],
    holder: subprocess.Popen[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of one folder of checkpoints, or of logs."""
    elsewhere = [f"{flag}={tmp_path / 'other'}" for flag in other]
    assert run_command(train.main, flags(dataset, tmp_path, 1, "--name=toy", *elsewhere)) == 2
    assert not list(tmp_path.glob("other/.*"))
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert "--name=toy: another process trains under this name" in line
    assert not list(tmp_path.glob("*.pth"))
    RunLock(tmp_path, "other", "").close()
    holder.kill()
    holder.wait()
    RunLock(tmp_path, "toy", "").close()
    assert not (tmp_path / ".toy.lock").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_lets_everybody_in(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.lockf", refuse)
    RunLock(tmp_path, "toy", "").close()
    assert names(tmp_path) == []


def test_a_lock_is_taken_one_at_a_time(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="it is taken"):
            RunLock(tmp_path, "toy", "it is taken")
    assert holder.poll() is None


def test_log_without_room_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full for a while."""
    path = tmp_path / "logs" / "toy.log"
    log = TrainingLog(path, {})
    log.start({}, ["cpu"])
    step: Any = {"epoch": 0, "learning_rate": 0.1, "elapsed": 1.0}
    log.train({"box": 1.0}, iteration=1, **step)
    kept = path.rename(tmp_path / "kept.log")
    path.mkdir()  # no longer to be written
    for iteration in (2, 3):
        log.train({"box": 1.0}, iteration=iteration, **step)
    path.rmdir()
    kept.rename(path)
    with path.open("a") as file:
        file.write('{"type": "tr')  # as far as there was room
    for iteration in (4, 5):
        log.train({"box": 1.0}, iteration=iteration, **step)
    events = [event["data"].get("iter") for event in read_log(path)]
    assert events == [None, 1, 4, 5]
    assert caplog.text.count("toy.log is not up to date") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_a_full_disk_is_called_so(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "toy_1_2.pth"
    write_atomically(path, {"weight": torch.ones(3)})
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: opened(Path("/dev/full"), mode))
    with pytest.raises(OSError, match=r"cannot write .*toy_1_2\.pth: disk full"):
        write_atomically(path, {"weight": torch.ones(size)})
    monkeypatch.undo()
    assert read_checkpoint(path).model["weight"].tolist() == [1, 1, 1]
    assert names(tmp_path) == ["toy_1_2"]


LONG = "a" * 30_000


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, LONG),
        lambda path: write_json(path, {"a": LONG}),
        lambda path: write_results(path, [{LONG: 1.0}]),
        lambda path: TrainingLog(path, {}).start({"a": LONG}, []),
        lambda path: Journal(path, {}).note("a", LONG),
        lambda path: save_figure(draw_curves("", {}), path),
    ],
)
def test_a_full_disk_is_told_with_the_file(tmp_path: Path, write: Any) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "file.png"
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{path}'"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_run_without_room_for_its_report_is_finished(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("yolact.training.validation.write_report", full)
    more = ["--validation_size=1", "--set=train.max_iterations=1"]
    given = [flag for flag in flags(dataset, tmp_path, 1, *more) if flag != "--no_report"]
    assert run_command(train.main, given) == 0
    assert f"no report in {tmp_path / 'yolact_resnet18' / 'report'}: " in caplog.text
    assert "yolact_resnet18_1_1.pth" in capsys.readouterr().out


@pytest.mark.parametrize("full", [range(1, 3), range(1, 9), range(2, 9)])
def test_training_outlasts_a_full_disk(
    full: range,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    save, calls = torch.save, []

    def sometimes(content: object, file: Any) -> None:
        calls.append(file)
        if len(calls) in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", sometimes)
    code = run_command(train.main, flags(dataset, tmp_path, 4, "--save_interval=1"))
    kept = [path.stem.rpartition("_")[2] for path in find_checkpoints(tmp_path, None)]
    lasts = full.stop == 9
    assert code == (1 if lasts else 0)
    assert kept == [str(n) for n in range(1, 5) if n not in full]
    assert "disk full" in caplog.text
    assert ("disk full" in capsys.readouterr().err) >= lasts
    assert caplog.text.count("training goes on") == len([n for n in range(1, 4) if n in full])
    first = min(tmp_path.glob("*.pth"), default=None)
    newest = f"the newest checkpoint is {first}" if first else "there is no checkpoint"
    assert (newest in caplog.text) == lasts
    for path in tmp_path.glob("*.pth"):
        read_checkpoint(path)


def test_the_last_checkpoint_is_written_once(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no validation has found another score threshold."""
    save, written = torch.save, []
    monkeypatch.setattr(torch, "save", lambda *given: (written.append(1), save(*given)))
    assert run_command(train.main, flags(dataset, tmp_path, 2, "--save_interval=2")) == 0
    assert len(written) == 1


def test_best_weights_without_room_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saver = make_saver(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "x")))
        saver.save_best(20.0)
    assert "toy_best.pth: disk full" in caplog.text
    assert names(tmp_path) == []
    saver.save_best(10.0)
    assert read_checkpoint(saver.best).training["best_ap"] == 10


@pytest.mark.parametrize("start", ["train", "picture", "video"])
@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_half_written_files_of_killed_runs_are_swept(tmp_path: Path, start: str) -> None:
    """By whatever writes into their folder next, unless somebody still writes them."""
    of_file, of_video = part_name("toy_1_20.pth"), part_name("1a2b3c4d", ".mp4")
    written, elsewhere = part_name("other.png"), ".toy.pth.17-00000000.part"
    others = [written, elsewhere, ".toy.pth.part", "toy.pth.17.part", f"{of_file}s"]
    for name in (of_file, of_video, *others):
        (tmp_path / name).touch()
    (tmp_path / part_name("folder")).mkdir()
    with locked_part(tmp_path / written):
        if start == "train":
            lock_run(TrainOptions("toy", save_folder=tmp_path, log_folder=tmp_path)).close()
        elif start == "picture":
            write_picture(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
            (tmp_path / "a.png").unlink()
        else:
            VideoWriter(tmp_path / "a.mp4", 25, (48, 64)).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*others, part_name("folder")]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_file_that_another_process_writes_is_not_swept(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from yolact.files import whole_file;"
        "w = whole_file(Path(sys.argv[1])); p = w.__enter__(); p.write_text('half');"
        "print(p, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        part = Path(process.stdout.readline().strip())
        remove_stale_parts(tmp_path)
        assert part.read_text() == "half"
        process.kill()
    remove_stale_parts(tmp_path)
    assert not part.exists()


def test_nothing_to_sweep(tmp_path: Path) -> None:
    remove_stale_parts(tmp_path / "absent")
    remove_stale_parts(tmp_path)


@pytest.mark.parametrize(
    ("resumed", "keep_latest", "interval", "kept"),
    [
        ("toy_8_20", True, 0, ["toy_10_25", "toy_4_10"]),
        ("toy_12_30", True, 0, ["toy_10_25", "toy_4_10", "toy_8_20"]),
        ("toy_8_20", True, 20, ["toy_10_25", "toy_4_10", "toy_8_20"]),
        ("toy_8_20", False, 0, ["toy_10_25", "toy_12_30", "toy_4_10", "toy_8_20"]),
        ("other_8_20", True, 0, ["toy_10_25", "toy_12_30", "toy_4_10", "toy_8_20"]),
        ("toy_9_22_interrupt", True, 0, ["toy_10_25", "toy_4_10"]),
        ("toy_best", True, 0, ["toy_10_25", "toy_12_30", "toy_4_10", "toy_8_20"]),
    ],
)
def test_a_resumed_run_replaces_what_it_went_on_from(
    tmp_path: Path, resumed: str, keep_latest: bool, interval: int, kept: list[str]
) -> None:
    others = ["other_1_90", "toy_2_1_90", "toy_best"]
    for name in ("toy_4_10", "toy_8_20", "toy_12_30", *others):
        (tmp_path / f"{name}.pth").touch()
    saver = make_saver(tmp_path, keep_latest, interval)
    saver.resume_from(tmp_path / f"{resumed}.pth")
    assert len(names(tmp_path)) == 6  # nothing goes before there is something newer
    saver.learner.progress.iteration = 25
    saver.save()
    assert names(tmp_path) == sorted([*kept, *others])


def test_only_the_first_of_several_processes_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For only it knows that what takes the place of a file is written."""
    files = ["toy_4_10", "toy_6_15_interrupt"]
    for name in files:
        (tmp_path / f"{name}.pth").touch()
    saver = make_saver(tmp_path, keep_latest=True)
    saver.learner.progress.iteration = 20
    for rank, kept in ((1, files), (0, ["toy_8_20", "toy_8_20_interrupt"])):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        saver.resume_from(tmp_path / "toy_4_10.pth")
        saver.save_interrupted()
        saver.save()
        saver = make_saver(tmp_path, keep_latest=True)
        saver.learner.progress.iteration = 20
        assert names(tmp_path) == kept


@pytest.mark.parametrize(
    ("iteration", "keep_latest", "told"),
    [(0, False, True), (20, False, True), (30, False, False), (20, True, False), (0, True, True)],
)
def test_a_run_tells_of_checkpoints_that_are_further(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    iteration: int,
    keep_latest: bool,
    told: bool,
) -> None:
    """For after a crash `latest` would mean them."""
    saver = make_saver(tmp_path / "absent", keep_latest)
    saver.warn_of_later_checkpoints()
    for name in ("toy_8_20", "toy_12_30", "other_40_90"):
        (tmp_path / f"{name}.pth").touch()
    saver = make_saver(tmp_path, keep_latest)
    saver.learner.progress.iteration = iteration
    if iteration:
        saver.resume_from(tmp_path / "toy_8_20.pth")
    saver.warn_of_later_checkpoints()
    assert ("toy_12_30.pth is of steps further on" in caplog.text) == told
    assert "other" not in caplog.text
