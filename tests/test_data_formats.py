from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.foreign_formats import (
    SQUARES,
    TRIANGLE,
    drawn,
    opened,
    two_images,
    write_all,
    write_images,
    write_labelme,
    write_via,
)

from data.annotations.coco import CocoInstances
from data.catalog import has_one_split, open_dataset
from data.classes import Categories

FORMATS = ("yolo", "labelme", "via")


def objects_of(dataset: CocoInstances, index: int) -> list[tuple[str, NDArray[np.uint8]]]:
    image_hw = (dataset.image_info(index)["height"], dataset.image_info(index)["width"])
    names = dict(zip(dataset.categories.category_ids, dataset.categories.names, strict=True))
    parts = dataset.annotations(index)
    return [(names[p["category_id"]], drawn(p["segmentation"], image_hw)) for p in parts]


@pytest.mark.parametrize("name", FORMATS)
def test_no_objects(tmp_path: Path, name: str) -> None:
    empty = two_images() | {"annotations": []}
    folder = write_all(empty, write_images(tmp_path / "images"), tmp_path)[name]
    with pytest.raises(ValueError, match="nothing can be used: there are no objects"):
        open_dataset(str(folder), "train")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_masks(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_all(two_images(), write_images(tmp_path / "images"), tmp_path)[name]
    dataset = opened(folder, "train")
    assert dataset.categories.names == ("cat", "dog")
    assert [dataset.image_info(i)["file_name"] for i in range(2)] == ["a.png", "b.png"]
    ((dog, mask),) = objects_of(dataset, 0)
    assert dog == "dog"
    assert (mask == drawn([TRIANGLE])).all()
    cats = [mask for label, mask in objects_of(dataset, 1) if label == "cat"]
    if name == "via":
        assert all((cat == drawn([part])).all() for cat, part in zip(cats, SQUARES, strict=True))
    else:  # YOLO's bridge may add pixels
        (cat,) = cats
        assert (cat & drawn(SQUARES)).sum() == drawn(SQUARES).sum()
        assert cat.sum() <= drawn(SQUARES).sum() + (30 if name == "yolo" else 0)
    assert not caplog.records
    with pytest.raises(ValueError, match="no val split"):
        open_dataset(str(folder), "val")


@pytest.mark.parametrize("name", FORMATS)
def test_real_masks(tmp_path: Path, data_root: Path, name: str) -> None:
    source = data_root / "coco_small"
    content = json.loads((source / "annotations" / "instances_val.json").read_text())
    content["images"] = content["images"][:12]
    chosen = {image["id"] for image in content["images"]}
    content["annotations"] = [
        entry
        for entry in content["annotations"]
        if entry["image_id"] in chosen and not entry["iscrowd"] and len(entry["segmentation"]) == 1
    ]
    dataset = opened(write_all(content, source / "val", tmp_path)[name], "train")
    classes = {entry["id"]: entry["name"] for entry in content["categories"]}
    index_of = {dataset.image_info(i)["file_name"]: i for i in range(len(dataset))}
    compared = 0
    for image in content["images"]:
        expected = [e for e in content["annotations"] if e["image_id"] == image["id"]]
        if not expected:
            continue
        found = objects_of(dataset, index_of[image["file_name"]])
        assert [label for label, _ in found] == [classes[e["category_id"]] for e in expected]
        for entry, (_, mask) in zip(expected, found, strict=True):
            truth = drawn(entry["segmentation"], (image["height"], image["width"]))
            assert (mask & truth).sum() >= 0.98 * (mask | truth).sum() - 1
            compared += 1
    assert compared > 50


def test_classes_are_those_of_the_training_split(tmp_path: Path) -> None:
    write_labelme(two_images(), write_images(tmp_path / "train"))
    only_dogs = two_images()
    only_dogs["annotations"] = only_dogs["annotations"][:1]
    write_labelme(only_dogs, write_images(tmp_path / "val"))
    train = opened(tmp_path, "train")
    val = opened(tmp_path, "val", train.categories)
    assert val.categories.names == train.categories.names == ("cat", "dog")
    assert val.sample(0).labels.tolist() == [1]
    assert opened(tmp_path, "val").categories.names == ("dog",)
    assert opened(tmp_path, "val", Categories.from_names(["Dog"])).sample(0).labels.tolist() == [0]


@pytest.mark.parametrize(
    ("write", "subfolder"), [(write_labelme, ""), (write_via, ""), (write_labelme, "annotations")]
)
def test_a_flat_folder_serves_both(tmp_path: Path, write: Any, subfolder: str) -> None:
    write_images(tmp_path / "images" if subfolder else tmp_path)
    (tmp_path / subfolder).mkdir(exist_ok=True)
    write(two_images(), tmp_path / subfolder)
    assert len(opened(tmp_path, "train")) == len(opened(tmp_path, "val")) == 2
    assert has_one_split(str(tmp_path))
