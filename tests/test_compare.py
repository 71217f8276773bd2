"""Models side by side, as a user would ask for it."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
from support.tiny import SETTINGS, make_dataset
from test_mask_rcnn import NAME, SMALL
from test_scripts import script

from data.classes import SHAPE_CLASSES
from data.options import DEFAULT_OPTIONS, DataOptions
from yolact import build_model, get_config
from yolact.checkpoint import read_checkpoint, save_checkpoint
from yolact.cli.common import run_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of both kinds under the same name, and a dataset."""
    folder = tmp_path_factory.mktemp("compare")
    make_dataset(folder / "scenes", train=1, val=4)
    for preset, settings in (("yolact_resnet18", SETTINGS), (NAME, SMALL)):
        more = ("detect.max_detections=5", f"dataset={folder / 'scenes'}")
        config = get_config(preset).override(*settings, *more)
        config = config.with_classes(SHAPE_CLASSES.names)
        save_checkpoint(folder / preset / "best.pth", build_model(config), config)
    return folder


@pytest.mark.parametrize(("name", "size"), [("m.onnx", 3), ("m.xml", 7)])
def test_a_file_of_weights_belongs_to_its_own_form(tmp_path: Path, name: str, size: int) -> None:
    (tmp_path / name).write_bytes(bytes(3))
    (tmp_path / "m.bin").write_bytes(bytes(4))
    checkpoint = SimpleNamespace(path=tmp_path / name)
    assert script("compare")["weights_size"](checkpoint, None) == size


@pytest.mark.parametrize("flags", [[], ["--detect", "--max_images=2", "--speed_images=1"]])
def test_table_file_and_plot(
    folder: Path, tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    models = [str(folder / name / "best.pth") for name in ("yolact_resnet18", NAME)]
    args = [*models, f"--out={tmp_path}", "--device=cpu", "--engine=eager", *flags]
    assert run_command(script("compare")["main"], args) == 0
    out = capsys.readouterr().out
    assert ("box AP on 2 images of" if flags else "mask AP on 4 images of") in out
    with (tmp_path / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == models  # the names alone would not tell
    for row in rows:
        assert row["model"] in out
        assert 0 <= float(row["AP"]) <= float(row["AP50"]) <= 100
        assert float(row["ms"]) * float(row["fps"]) == pytest.approx(1000, rel=0.1)
        assert min(float(row[key]) for key in ("M parameters", "weights MB", "GFLOP")) > 0
        assert row["peak MB"] == ""  # known on a GPU alone
        assert row["engine"].startswith("eager, ")
    assert cv2.imread(str(tmp_path / "compare.png")).std() > 0


def test_all_are_scored_and_timed_as_the_first_takes_the_data(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was trained with --val may be scored on what it was not trained on."""
    checkpoint = read_checkpoint(folder / "yolact_resnet18" / "best.pth")
    config = checkpoint.preset().override("data.crowd=objects")
    save_checkpoint(tmp_path / "own.pth", build_model(config), config)
    compare = script("compare")
    seen: list[DataOptions] = []
    opened = compare["open_dataset"]

    def noting(*given: Any, options: DataOptions = DEFAULT_OPTIONS) -> Any:
        seen.append(options)
        return opened(*given, options=options)

    monkeypatch.setitem(compare["main"].__globals__, "open_dataset", noting)
    models = [str(tmp_path / "own.pth"), str(folder / "yolact_resnet18" / "best.pth")]
    flags = [f"--out={tmp_path}", "--device=cpu", "--engine=eager", "--max_images=1"]
    assert run_command(compare["main"], [*models, *flags]) == 0
    assert [options.crowd for options in seen] == ["objects"] * 3


@pytest.mark.parametrize(
    ("vals", "flags", "expected", "told"),
    [
        (("", "0.3"), [], "", "trained without --val and --val=0.3: the images are those of the"),
        (("0.3", ""), [], "0.3", "trained --val=0.3 and without --val"),
        ((None, "0.3"), [], "0.3", ""),
        (("0.3", None), [], "0.3", ""),
        (("0.3", "0.3"), [], "0.3", ""),
        (("", "0.3"), ["--val=0.2"], "0.2", ""),
        ((None, None), [], "", ""),
    ],
)
def test_the_images_that_a_model_held_out_are_scored(
    vals: tuple[str | None, str | None],
    flags: list[str],
    expected: str,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In whatever order the models are given; None is one that was trained on other data."""
    compare, config = script("compare"), get_config("yolact_resnet18")
    trained = [
        config if val is None else config.override("dataset=mine", f"data.val={val}")
        for val in vals
    ]
    args = compare["parse_arguments"](["a.pth", "b.pth", "--dataset=./mine", *flags])
    assert compare["shared_options"](args, config, trained).val == expected
    assert told in caplog.text
    assert bool(caplog.messages) == bool(told)


def test_learned_images_are_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As eval.py does."""
    alone = folder / "scenes" / "annotations" / "instances_val.json"
    config = read_checkpoint(folder / "yolact_resnet18" / "best.pth").preset()
    save_checkpoint(tmp_path / "own.pth", build_model(config), config.override(f"dataset={alone}"))
    flags = [f"--out={tmp_path}", "--device=cpu", "--engine=eager", "--speed_images=1"]
    assert run_command(script("compare")["main"], [str(tmp_path / "own.pth"), *flags]) == 0
    assert f"{alone}: the AP is of images that the model learned" in caplog.text


def test_other_classes_are_told_and_no_truth_has_no_score(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = read_checkpoint(folder / "yolact_resnet18" / "best.pth")
    config = checkpoint.preset().with_classes(("circle", "star"))
    save_checkpoint(tmp_path / "two.pth", build_model(config), config)
    models = [str(folder / "yolact_resnet18" / "best.pth"), str(tmp_path / "two.pth")]
    flags = [f"--out={tmp_path}", "--device=cpu", "--engine=eager", "--max_images=0"]
    assert run_command(script("compare")["main"], [*models, *flags]) == 0
    assert "the models know other classes" in caplog.text
    assert (tmp_path / "compare.png").is_file()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["nothing.pth"], 1, "no such checkpoint file"),
        (["maskrcnn_resnet101_fpn"], 1, "a preset without trained weights"),
        (["yolact_resnet18_shapes", "--dataset=typed"], 1, "a data.yaml that exists\n"),
        (["x.pth", "--speed_images=0"], 2, "--speed_images=0: expected at least 1"),
    ],
)
def test_refused(
    flags: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(script("compare")["main"], flags) == code
    assert message in capsys.readouterr().err
