"""How a dataset is taken, from the flags through training to evaluation."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.tiny import FLAGS, train_flags

import eval as eval_script
import train
from data.options import DataOptions
from scripts import anchors, check_dataset
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import run_command
from yolact.cli.evaluate import validation_set
from yolact.cli.from_flags import choose_model
from yolact.cli.train_flags import parse_arguments
from yolact.training.setup import open_training_data, set_up

SQUARE = [[10, 10, 40, 10, 40, 40, 10, 40]]


def write(folder: Path, *objects: dict[str, Any], images: int = 6) -> Path:
    """Write images of noise, each with the same objects."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(1, images + 1):
        noise = np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), noise)
        for entry in objects:
            place = {"id": len(entries) + 1, "image_id": number, "category_id": 1}
            entries.append({**place, **entry})
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": 60, "width": 80}
            for number in range(1, images + 1)
        ],
        "annotations": entries,
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def trained(folder: Path, out: Path, *flags: str, iterations: int = 1) -> int:
    return run_command(train.main, train_flags(folder, out, iterations, *flags))


CROWD = {"segmentation": SQUARE, "iscrowd": 1}


@pytest.mark.parametrize(
    ("objects", "flags", "told"),
    [
        ((), (), "label the images"),
        ((CROWD,), (), "all 6 are marked as crowds (iscrowd 1); .*--crowd=objects"),
        (({"bbox": [1, 1, 9, 9], "iscrowd": 1},), (), "--crowd=objects"),
        (({"bbox": [1, 1, 9, 9]},), ("--boxes_only=ignore",), "--crowd=objects"),
    ],
)
def test_nothing_to_learn_is_an_error(
    tmp_path: Path,
    objects: tuple[dict[str, Any], ...],
    flags: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / "data", *objects)
    assert trained(tmp_path / "data", tmp_path, *flags) == 1
    error = capsys.readouterr().err
    assert "error: not one object to learn" in error
    assert told.split(" .*")[0] in error
    assert told.split(" .*")[-1] in error
    assert run_command(check_dataset.main, [str(tmp_path / "data"), *flags]) == 1
    assert "not one object to learn: train" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.pth"))


def test_nothing_is_left_to_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "data", {"bbox": [1, 1, 9, 9]})
    assert trained(tmp_path / "data", tmp_path, "--boxes_only=skip") == 1
    assert "6 images with boxes alone are skipped; --boxes_only=use" in capsys.readouterr().err


def test_crowds_among_objects_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(write(tmp_path, {"segmentation": SQUARE}, {**CROWD, "bbox": [5, 5, 50, 50]}))
    assert run_command(check_dataset.main, [folder]) == 1
    assert "many crowds, which are not learned: train, 6 of 12" in capsys.readouterr().out
    assert run_command(check_dataset.main, [folder, "--crowd=objects", "--shown=99"]) == 1
    out = capsys.readouterr().out
    assert "crowds, which" not in out
    assert "12 objects" in out


def test_crowds_of_an_export(
    cases_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cases_root / "c02_cvat_crowd1"
    assert trained(folder, tmp_path) == 1
    assert run_command(check_dataset.main, [str(folder)]) == 1
    assert "--crowd=objects takes them as such" in capsys.readouterr().out
    assert run_command(check_dataset.main, [str(folder), "--crowd=objects"]) == 0
    assert "4 images, 8 objects" in capsys.readouterr().out


def test_unvalidated_training_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path / "data" / "train", {"segmentation": SQUARE})
    write(tmp_path / "flat", {"segmentation": SQUARE})

    def start(folder: str, *flags: str) -> None:
        argv = train_flags(tmp_path / folder, tmp_path, 1, "--validation_size=5", *flags)
        set_up(*parse_arguments(None, argv)).close()

    start("data")
    assert "no validation: dataset 'data' has no val split; --val=0.2 holds out" in caplog.text
    caplog.clear()
    start("flat")
    assert "AP will be of training images; --val=0.2 holds out" in caplog.text
    caplog.clear()
    start("flat", "--val=0.34")
    assert "2 images to validate on (--val=0.34)" in caplog.text
    assert "unused" not in caplog.text
    write(tmp_path / "data" / "val", {"segmentation": SQUARE})
    start("data", "--val=0.34")
    assert "data has a val split, which --val leaves unused" in caplog.text
    assert "--val=0.2" not in caplog.text


@pytest.mark.parametrize(
    ("objects", "told"),
    [
        (({"segmentation": SQUARE},), "6 of 6 outlines are rectangles, and masks will be learned"),
        (({"segmentation": SQUARE}, {"bbox": [1, 1, 30, 30]}), "6 of 6 outlines are rectangles"),
        (({"segmentation": SQUARE}, {"segmentation": [[1, 1, 40, 1, 9, 9]]}), ""),
        (({"bbox": [1, 1, 30, 30]},), ""),
    ],
)
def test_masks_drawn_as_boxes_are_told(
    tmp_path: Path,
    objects: tuple[dict[str, Any], ...],
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config, *_ = parse_arguments(None, train_flags(write(tmp_path, *objects), tmp_path, 1))
    open_training_data(config, None, False)
    assert ("rectangles" in caplog.text) == bool(told)
    assert told in caplog.text


@pytest.mark.parametrize("flags", [[], ["--val=0.34"]])
def test_a_dataset_is_told_of_once(
    tmp_path: Path, flags: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Though it is opened for training and for validation, and with the classes of a model."""
    caplog.set_level(logging.INFO)
    wrong = {"segmentation": SQUARE, "category_id": 9}
    write(tmp_path / "data", {"segmentation": SQUARE}, wrong, {"bbox": [5, 5, 9, 9], **CROWD})
    cv2.imwrite(str(tmp_path / "data" / "1.png"), np.full((60, 80), 999, np.uint16))
    for _ in range(2):
        argv = train_flags(tmp_path / "data", tmp_path, 1, "--validation_size=5", *flags)
        set_up(*parse_arguments(None, argv)).close()
        for told in ("more than 8 bits in 1 image: each", "left out 6 of 18 annotations"):
            assert caplog.text.count(told) == 1
        caplog.clear()


def test_the_same_images_validate_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint keeps how its data were taken; they apply to no other dataset."""
    folder = write(tmp_path / "data", {"bbox": [1, 1, 30, 30]}, CROWD)
    flags = ("--val=0.34", "--crowd=objects", "--boxes_only=use")
    assert trained(folder, tmp_path, *flags) == 0
    (path,) = tmp_path.glob("*.pth")
    expected = DataOptions("0.34", "objects", "use")
    assert read_checkpoint(path).preset().data == expected
    capsys.readouterr()

    def chosen(*more: str) -> Any:
        args = eval_script.parse_arguments(None, [f"--trained_model={path}", *more])
        return choose_model(args)[1]

    assert chosen().data == chosen(f"--dataset={folder}").data == expected
    assert len(validation_set(chosen())) == 2
    assert [len(validation_set(chosen()).sample(i).labels) for i in (0, 1)] == [2, 2]
    other = write(tmp_path / "other", {"segmentation": SQUARE}, images=3)
    assert chosen(f"--dataset={other}").data == DataOptions()
    assert len(validation_set(chosen(f"--val={other}"))) == 3
    resumed = train_flags(folder, tmp_path, 2, f"--resume={path}")
    assert parse_arguments(None, resumed)[0].data == expected
    assert run_command(train.main, [*resumed, "--val=0.5"]) == 2
    assert "--val=0.5: --resume keeps to 0.34" in capsys.readouterr().err
    assert run_command(train.main, [*resumed, "--val=0.34"]) == 0
    started = train_flags(folder, tmp_path, 1, f"--weights={path}")
    started = [flag for flag in started if not flag.startswith(("--config", "--dataset"))]
    assert parse_arguments(None, started)[0].data == expected  # the same dataset
    started = [*started, f"--dataset={other}", "--val=0.5"]
    assert parse_arguments(None, started)[0].data == DataOptions("0.5")


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--val=0"], 2, "--val=0: expected a share above 0 and below 1, or a dataset"),
        (["--val=1.5"], 2, "--val=1.5: expected a share"),
        (["--set=data.val=2"], 2, "val=2: expected a share"),
        (["--set=data.crowd=x"], 2, "data.crowd='x': expected one of ignore, objects"),
        (["--val=nowhere"], 1, "no dataset 'nowhere'"),
    ],
)
def test_flags_that_make_no_sense(
    tmp_path: Path, flags: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "data", {"segmentation": SQUARE})
    assert trained(tmp_path / "data", tmp_path, "--validation_size=5", *flags) == code
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_one_image_is_too_few_to_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "data", {"segmentation": SQUARE}, images=1)
    assert trained(tmp_path / "data", tmp_path, "--validation_size=5", "--val=0.2") == 2
    assert "--val=0.2: no image to validate on; label more" in capsys.readouterr().err


def test_boxes_alone_are_trained_on_and_scored(
    cases_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cases_root / "c08_boxonly_missing"
    flags = train_flags(folder, tmp_path, 1)
    flags = [flag for flag in flags if flag not in ("--validation_size=-1", "--no_report")]
    assert run_command(train.main, [*flags, "--val=0.34"]) == 0
    assert "objects have no outline: of these box and class are learned" in caplog.text
    assert (tmp_path / "yolact_resnet18" / "report" / "index.html").is_file()
    assert (tmp_path / "yolact_resnet18" / "train_pictures.jpg").is_file()


def test_anchors_of_what_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, CROWD)
    flags = [str(tmp_path), "--config=yolact_resnet18", *FLAGS[1:2]]
    assert run_command(anchors.main, flags) == 1
    assert "has no objects to fit anchors to" in capsys.readouterr().err
    assert run_command(anchors.main, [*flags, "--crowd=objects", "--val=0.34"]) == 0
    assert "val: 2 objects" in capsys.readouterr().out
