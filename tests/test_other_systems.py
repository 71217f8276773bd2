"""What Windows, macOS and lean builds of PyTorch do otherwise, by doubles on any system."""

from __future__ import annotations

import errno
import ntpath
import os
import sys
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from support.evaluate import evaluate
from support.odd_masks import odd_detections
from support.tiny import make_dataset

from data import files
from data.annotations import paths
from data.annotations.locate import ImageFinder
from data.annotations.paths import relative_name, shared_folder
from data.formats.cvat import read_cvat
from data.formats.yolo import read_yolo
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


# --- drives of Windows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "folder", "name"),
    [
        (r"C:\photos\x.jpg", r"C:\out", "../photos/x.jpg"),
        (r"C:\photos\x.jpg", r"D:\out", "C:/photos/x.jpg"),
        (r"\\nas\photos\x.jpg", r"C:\out", "//nas/photos/x.jpg"),
    ],
)
def test_names_of_images_on_other_drives(
    path: str, folder: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absolute(PureWindowsPath):
        def absolute(self) -> PureWindowsPath:
            return self

    monkeypatch.setattr(paths, "os", SimpleNamespace(path=ntpath))
    monkeypatch.setattr(paths, "Path", Absolute)
    assert relative_name(path, folder) == name


@pytest.mark.parametrize(
    ("folders", "shared"),
    [
        ((r"C:\a\b", r"c:\a\d"), r"C:\a"),
        ((r"C:\a", r"D:\a", r"E:\a"), "images on C: and D: share no folder: put all on one drive"),
        ((r"\\nas\photos\a", r"C:\a"), r"images on \\nas\photos and C: share no folder"),
    ],
)
def test_drives_share_no_folder(
    folders: tuple[str, ...], shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "os", SimpleNamespace(path=ntpath))
    monkeypatch.setattr(paths, "Path", PureWindowsPath)
    places: Any = [PureWindowsPath(folder) for folder in folders]
    try:
        assert shared_folder(places) == PureWindowsPath(shared)
    except ValueError as error:
        assert shared in str(error)


def test_no_reader_or_writer_stumbles_over_another_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_drives(path: object, start: object) -> str:
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    make_dataset(tmp_path / "scenes", 1, 1)
    image = next((tmp_path / "scenes" / "train").iterdir())
    (image.with_suffix(".txt")).write_text("0 0.5 0.5 0.2 0.2\n")
    names = tmp_path / "data.yaml"
    names.write_text(f"train: {image.parent}\nval: {image.parent}\nnames: [circle]\n")
    cvat = tmp_path / "cvat.xml"
    found = odd_detections(source=str(image))
    cvat.write_text(found.to_cvat())
    finder = ImageFinder(tmp_path / "scenes" / "val", names)
    monkeypatch.setattr(os.path, "relpath", of_drives)
    assert found.to_labelme(tmp_path / "found.json")["imagePath"] == image.as_posix()
    assert finder.relative(image) == image.as_posix()
    read = [read_yolo(image.parent, names), read_cvat(image.parent, cvat)]
    for result in read:
        (listed,) = cast("Any", result.content["images"])
        assert listed["file_name"] == image.as_posix()
