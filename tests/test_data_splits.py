"""The splits of a dataset, in every spelling of their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.layouts import COCO, LABELME, YAML, places, write

from data.catalog import open_dataset, resolve_dataset
from data.formats.splits import split_of


def layout(*files: str) -> dict[str, str]:
    """Files of COCO, and of labelme where they are called after an image."""
    return {
        file: LABELME if Path(file).stem == "a" else COCO if file.endswith(".json") else ""
        for file in files
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (  # as CVAT names its tasks
            (
                *("annotations/instances_Train.json", "annotations/instances_Validation.json"),
                *("images/Train/a.png", "images/Validation/b.png"),
            ),
            ("images/Train", "annotations/instances_Train.json")
            + ("images/Validation", "annotations/instances_Validation.json"),
        ),
        (
            ("train/_annotations.coco.json", "val/_annotations.coco.json", "test/x_test.json"),
            ("train", "train/_annotations.coco.json", "val", "val/_annotations.coco.json"),
        ),
        (
            (
                "annotations/instances_train.json",
                "annotations/instances_valid.json",
                "images/a.jpg",
            ),
            ("images", "annotations/instances_train.json")
            + ("images", "annotations/instances_valid.json"),
        ),
        (
            (
                *("annotations_train2017.json", "annotations_val2017.json"),
                *("train2017/a.jpg", "val2017/a.jpg", "train_masks/a.png"),
            ),
            ("train2017", "annotations_train2017.json", "val2017", "annotations_val2017.json"),
        ),
        (
            ("TRAIN.json", "Dev.json", "images/training/a.jpg", "images/dev/b.jpg"),
            ("images/training", "TRAIN.json", "images/dev", "Dev.json"),
        ),
        (
            ("trn/Annotations/coco.json", "trn/Images/a.jpg", "validation/labels.json"),
            ("trn/Images", "trn/Annotations/coco.json", "validation", "validation/labels.json"),
        ),
        (
            (
                *("annotations/instances_train.json", "annotations/captions_train.json"),
                *("annotations/person_keypoints_train.json", "train/b.jpg"),
            ),
            ("train", "annotations/instances_train.json", None, None),
        ),
        (
            ("labels/Training/a.json", "labels/Valid/a.json", "images/Training/a.jpg")
            + ("images/Valid/a.jpg",),
            ("images/Training", "labels/Training", "images/Valid", "labels/Valid"),
        ),
        (
            ("train/images/b.jpg", "train/labels/a.json", "Test/labels/a.json"),
            ("train/images", "train/labels", None, None),
        ),
        (("instances_trainval.json", "images/b.jpg"), ("images", "instances_trainval.json") * 2),
    ],
)
def test_splits_in_every_spelling(
    tmp_path: Path, files: tuple[str, ...], expected: tuple[str | None, ...]
) -> None:
    write(tmp_path, layout(*files))
    assert places(resolve_dataset(str(tmp_path))) == tuple(p and tmp_path / p for p in expected)


@pytest.mark.parametrize("train", ["images/Train", "Training/images"])
@pytest.mark.parametrize("val", ["images/VALID", "dev/images"])
def test_splits_of_yolo_in_every_spelling(tmp_path: Path, train: str, val: str) -> None:
    write(tmp_path, {"data.yaml": YAML, f"{train}/a.jpg": "", f"{val}/a.jpg": ""})
    paths = resolve_dataset(str(tmp_path))
    assert places(paths)[::2] == (tmp_path / train, tmp_path / val)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("", None),
        ("instances_default", None),
        ("straining_valve_testament", None),
        ("trainval", None),
        ("train_val", None),
        ("instances_Train", "train"),
        ("train2017", "train"),
        ("TrainSet", "train"),
        ("my-validation-01", "val"),
        ("DEV", "val"),
        ("image_info_test-dev2017", "test"),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize("name", ["c03_layout_cvat", "c03_layout_val_ann"])
def test_splits_of_exports(cases_root: Path, name: str) -> None:
    train = open_dataset(str(cases_root / name), "train")
    val = open_dataset(str(cases_root / name), "val", train.categories)
    names = [[data.image_info(i)["file_name"] for i in range(3)] for data in (train, val)]
    assert names == [["s00.png", "s01.png", "s02.png"], ["s10.png", "s11.png", "s12.png"]]
    for data in (train, val):
        assert [len(data.sample(index).labels) for index in range(3)] == [2, 2, 2]


def test_splits() -> None:
    paths = resolve_dataset("coco2017_testdev")
    assert not paths.has("train")
    assert paths.has("val")
    with pytest.raises(ValueError, match="'coco2017_testdev' has no train split"):
        paths.split("train")
    assert paths.split("val").images == Path("data/coco/test2017")
    assert not paths.is_shared
