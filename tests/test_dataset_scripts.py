"""check_dataset.py and anchors.py, run as a user would."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.foreign_formats import two_images, write_images, write_labelme
from support.tiny import make_dataset

from yolact import get_config
from yolact.cli.common import run_command

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def main_of(name: str) -> Any:
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))["main"]


def test_check_a_good_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_dataset(tmp_path / "scenes")
    picture = tmp_path / "train.jpg"
    flags = [str(folder), "--config=yolact_resnet18", f"--picture={picture}"]
    assert run_command(main_of("check_dataset"), [*flags, "--set", "model.image_size=64"]) == 0
    out, err = capsys.readouterr()
    assert "train: 4 images" in out
    assert "val: 3 images" in out
    assert out.count("size at 64 x 64") == 2
    assert "problems in train: none\nproblems in val: none\nproblems in train and val: none" in out
    assert out.endswith(f"{picture}\n")
    assert err == ""
    assert picture.stat().st_size > 1000


def test_check_a_bad_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_dataset(tmp_path / "scenes")
    file = folder / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"] += [{"id": 900 + i} for i in range(12)]
    file.write_text(json.dumps(content))
    next((folder / "val").iterdir()).unlink()
    assert run_command(main_of("check_dataset"), [str(folder), "--shown=3"]) == 1
    out, err = capsys.readouterr()
    assert "problems in train: 12\n" in out
    assert "unknown image_id: 9 more" in out
    assert "problems in val: 1\n  a missing image" in out
    assert "error: " in err
    assert "has 13 problems" in err


def test_check_a_flat_folder_of_labelme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelme(two_images(), write_images(tmp_path))
    write_images(tmp_path, ("d.png",))
    assert run_command(main_of("check_dataset"), [str(tmp_path)]) == 0
    out, _ = capsys.readouterr()
    assert "no validation split" in out
    assert "problems in train: none\nworth a look in train: " in out
    assert "  images without a JSON file: 1, such as d.png; they are not used" in out
    (tmp_path / "c.json").write_text("{")
    assert run_command(main_of("check_dataset"), [str(tmp_path)]) == 1


@pytest.mark.parametrize("content", ["[]", "{", '{"images": 5}', ""])
def test_check_what_cannot_be_read(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "annotations.json").write_text(content)
    assert run_command(main_of("check_dataset"), [str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "problems in train: " in out
    assert err.count("\n") == 1


@pytest.mark.parametrize("script", ["check_dataset", "anchors"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["nowhere"], 1), (["shapes", "--config=none"], 2), (["shapes", "--set", "model.x=1"], 2)],
)
def test_wrong_usage(
    script: str, arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main_of(script), arguments) == code
    assert capsys.readouterr().err.startswith("error: ")


def test_anchors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_dataset(tmp_path / "scenes", train=30)
    flags = [str(folder), "--config=yolact_base", "--scales=2", "--ratios=2"]
    flags += ["--set", "model.anchor_scales=((9,),(9,),(9,),(9,),(9,))"]
    assert run_command(main_of("anchors"), flags) == 0
    out, _ = capsys.readouterr()
    before, after, *_ = map(float, re.findall(r"recall at IoU 0.5: +([\d.]+)%", out))
    assert after > before
    settings = shlex.split(out.splitlines()[-1])
    assert settings[::2] == ["--set"] * 3
    model = get_config("yolact_base").override(*settings[1::2]).model
    assert (len(model.anchor_scales[0]), len(model.anchor_ratios)) == (2, 2)
    assert not model.square_anchors


def test_anchors_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main_of("anchors"), ["shapes", "--scales=0"]) == 2
    assert "--scales=0" in capsys.readouterr().err
    content = two_images() | {"annotations": []}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    write_images(tmp_path)
    assert run_command(main_of("anchors"), [str(tmp_path)]) == 1
    assert "no objects" in capsys.readouterr().err
