"""What Windows, macOS and lean builds of PyTorch do otherwise, by doubles on any system."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.evaluate import evaluate

from data import files
from data.video.writer import VideoWriter
from yolact.files import write_text

ROOT = Path(__file__).resolve().parents[1]
MPS = torch.device("mps")
WINDOWS = SimpleNamespace(platform="win32")
MAC = SimpleNamespace(platform="darwin")
HELD = PermissionError(errno.EACCES, "The process cannot access the file")


# --- files of Windows ----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which files are open")
@pytest.mark.usefixtures("in_evaluation_place")
@pytest.mark.parametrize("flags", [(), ("--image=scenes/val/000001.jpg:out.png", "--save_csv")])
def test_no_file_is_deleted_that_is_open(
    flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unlink, replace = Path.unlink, Path.replace

    def refuse(path: Path) -> None:
        opened = Path("/proc/self/fd").iterdir()
        if path.absolute() in {each.readlink() for each in opened if each.is_symlink()}:
            raise HELD

    def unlink_closed(path: Path, missing_ok: bool = False) -> None:
        refuse(path)
        unlink(path, missing_ok)

    def replace_closed(path: Path, target: Path) -> Path:
        refuse(path)
        refuse(target)
        return replace(path, target)

    for module in (files, sys.modules["yolact.files"]):
        monkeypatch.setattr(module, "sys", WINDOWS)
    monkeypatch.setattr(Path, "unlink", unlink_closed)
    monkeypatch.setattr(Path, "replace", replace_closed)
    assert evaluate(*flags) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("platform", "refusals", "is_written"),
    [
        (WINDOWS, 0, True),
        (WINDOWS, 3, True),
        (WINDOWS, 99, False),
        (MAC, 1, False),
    ],
)
@pytest.mark.parametrize("kind", ["text", "video"])
def test_a_file_that_a_scanner_holds_is_waited_for(
    kind: str,
    platform: SimpleNamespace,
    refusals: int,
    is_written: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, waits, replace = [HELD] * refusals, list[float](), Path.replace

    def replace_later(path: Path, target: Path) -> Path:
        if left:
            raise left.pop()
        return replace(path, target)

    monkeypatch.setattr(files, "sys", platform)
    monkeypatch.setattr(files, "time", SimpleNamespace(sleep=waits.append))
    monkeypatch.setattr(Path, "replace", replace_later)
    target = tmp_path / f"{kind}.mp4"
    try:
        if kind == "text":
            write_text(target, "text")
        else:
            with VideoWriter(target, 5, (16, 16)) as writer:
                writer.write(np.zeros((16, 16, 3), np.uint8))
    except OSError:
        assert not is_written
    assert target.exists() is is_written
    assert list(tmp_path.iterdir()) == [target] * is_written  # no half file
    assert sum(waits) < 2
