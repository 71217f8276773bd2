"""The command that converts datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.foreign_formats import opened
from support.odd_masks import HW
from support.whole_datasets import square, write_coco

from data.conversion import convert_dataset
from yolact.cli.main import main

OBJECTS = [("cat", [square(3, 4, 10)])]


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Results on standard output, what was left out in the log, which is standard error."""
    source = write_coco(tmp_path / "in", {"": {"a.png": (HW, []), "b.png": (HW, OBJECTS)}})
    content = json.loads((source / "annotations.json").read_text())
    crowds = [content["annotations"][0] | {"id": i, "iscrowd": 1} for i in range(2, 26)]
    content["annotations"] += crowds
    (source / "annotations.json").write_text(json.dumps(content))
    target = tmp_path / "out"
    assert main(["convert", str(source), str(target), "--format=labelme", "--images=link"]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    lines = [record.getMessage() for record in caplog.records]
    what = "a crowd, which this format cannot tell"
    assert [line.startswith(f"left out: {what}: b.png;") for line in lines[:-1]] == [True] * 20
    assert lines[-1] == f"in all: {what} (24), such as b.png"
    assert len(opened(target, "train")) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=excel"], "invalid choice: 'excel'"),
        (["--format"], "expected one argument"),
        (["--format=yolo", "--images=move"], "invalid choice: 'move'"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["convert", "in", "out", *flags])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_folders_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_coco(tmp_path / "in", {"": {"a.png": (HW, OBJECTS)}})
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "mine.txt").write_text("kept")
    file.write_text("")
    for target, message, code in (
        (full, "full is not empty: name another folder, or add --overwrite", 2),
        (file, "file is a file: name a folder to write", 2),
        (source, "in is in the dataset itself: name another folder to write", 2),
        (source / "new", "new is in the dataset itself: name another folder to write", 2),
        (tmp_path / "new", "no dataset", 1),
    ):
        name = "absent" if code == 1 else str(source)
        assert main(["convert", name, str(target), "--format=yolo", "--images=none"]) == code
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert message in err
    own = [str(source / "annotations.json"), str(source), "--format=coco", "--overwrite"]
    assert main(["convert", *own]) == 2
    assert "in is in the dataset itself: " in capsys.readouterr().err
    assert main(["convert", str(source), str(full), "--format=yolo", "--overwrite"]) == 0
    assert (full / "mine.txt").read_text() == "kept"
    for name in (source, source / "annotations.json"):
        assert main(["convert", str(name), str(tmp_path / "a.pth")]) == 2
        assert "is no checkpoint: to convert a dataset, add --format=" in capsys.readouterr().err


def test_the_help_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--format=yolo", "--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: yolact convert ")
    assert "  yolact convert my_data out --format=labelme\n" in out


def test_generated_scenes_have_no_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="generated scenes have no files"):
        convert_dataset("shapes", tmp_path, "coco")
