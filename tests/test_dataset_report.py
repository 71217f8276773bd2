from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.foreign_formats import two_images, write_images
from support.plain import plain_target

from data.annotations.coco import CocoInstances
from data.augment.transform import TrainTransform
from data.loader import TrainingData
from data.shapes.scenes import ShapeScenes
from yolact import get_config
from yolact.training.dataset_report import describe_dataset, measure_objects
from yolact.training.pictures import picture_of_training_data, training_data

CONFIG = get_config("yolact_resnet18")


def dataset(folder: Path, content: dict[str, Any]) -> CocoInstances:
    return CocoInstances(write_images(folder), folder / "two.json", content=content)


def test_no_objects(tmp_path: Path) -> None:
    empty = dataset(tmp_path, two_images() | {"annotations": []})
    assert measure_objects(empty).boxes.shape == (0, 4)
    text = describe_dataset(empty, CONFIG, "val")
    assert text == (
        "val: 2 images, 0 objects (0 at most in one image), 0 crowds, 2 classes, "
        "2 images without objects"
    )
    none = dataset(tmp_path, two_images() | {"annotations": [], "images": []})
    assert describe_dataset(none, CONFIG).startswith("train: 0 images, 0 objects")


def test_what_is_measured(tmp_path: Path) -> None:
    content = two_images()
    content["annotations"].append(content["annotations"][0] | {"id": 9, "iscrowd": 1})
    found = measure_objects(dataset(tmp_path, content))
    assert found.labels.tolist() == [1, 0, 1]
    assert found.images.tolist() == [0, 1, 1]
    assert found.num_crowds == 1
    # the triangle, x 10..50 of 60 and y 5..35 of 40
    assert found.boxes[0].tolist() == pytest.approx([0.5, 0.5, 40 / 60, 30 / 40], abs=0.02)
    assert found.areas[0].item() == pytest.approx(600 / 2400, rel=0.05)


def test_large_datasets_are_sampled() -> None:
    scenes = ShapeScenes(50, 64)
    found = measure_objects(scenes, max_images=5)
    assert (found.num_images, found.total_images) == (5, 50)
    whole = measure_objects(scenes)
    assert whole.num_images == 50
    ends = {tuple(box) for box in found.boxes.tolist()} & {tuple(b) for b in whole.boxes.tolist()}
    assert len(ends) == len(found.boxes)


def test_the_text(tmp_path: Path) -> None:
    text = describe_dataset(dataset(tmp_path, two_images()), CONFIG)
    lines = text.splitlines()
    assert lines[0].startswith("train: 2 images, 3 objects (2 at most in one image), 0 crowds")
    table = [line.split() for line in lines]
    assert ["dog", "2", "2"] in table
    assert ["cat", "1", "1"] in table
    # the cat's two squares are 164 of 2400 pixels, so 105 x 105 px at 400 x 400
    assert [row[:2] for row in table if row[0] in ("small", "medium", "large")] == [
        ["small", "0"],
        ["medium", "0"],
        ["large", "3"],
    ]
    assert ["all", "3", "100.0%", "100.0%"] in table


def test_classes_are_summed_up(tmp_path: Path) -> None:
    names = [f"class\n{i}" + "x" * 50 * (i == 7) for i in range(40)]
    content = two_images() | {"categories": [{"id": i, "name": n} for i, n in enumerate(names)]}
    first = content["annotations"][0]
    content["annotations"] = [first | {"id": i + 1, "category_id": i} for i in range(25)]
    text = describe_dataset(dataset(tmp_path, content), CONFIG)
    assert "and 5 more of at most 1 object" in text
    assert "without objects: class?25, class?26" in text
    assert "and 7 more" in text
    assert max(map(len, text.splitlines())) < 140


def test_anchors_that_miss(tmp_path: Path) -> None:
    content = two_images()
    thin = [[1.0, 20.0, 59.0, 20.0, 59.0, 21.0, 1.0, 21.0]]
    content["annotations"] = [content["annotations"][0] | {"segmentation": thin}]
    config = CONFIG.override("model.image_size=64")
    text = describe_dataset(dataset(tmp_path, content), config)
    assert "0.0%" in text
    assert "1 object narrower than 4 px" in text
    assert "yolact anchors" in text


def test_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "images"
    content = two_images()
    train = dataset(folder, content)
    path = tmp_path / "pictures" / "train.jpg"

    def plain(sample: Any, rng: np.random.Generator) -> Any:
        return plain_target(sample, 128)

    assert picture_of_training_data(TrainingData(train, plain, 0), path, count=2) == path
    both = cv2.imread(str(path))
    assert both.shape[1] > 2 * 128
    grey = [int(cv2.imread(str(folder / name))[0, 0, 0]) for name in ("a.png", "b.png")]
    tinted = np.abs(both.astype(int)[..., None] - [*grey, 255]).min(axis=3).max(axis=2) > 30
    assert 0.1 < tinted.mean() < 0.6  # where the triangles are

    (folder / "a.png").write_text("broken")
    picture_of_training_data(TrainingData(train, TrainTransform(64), 0), path)
    assert "not drawn" in caplog.text
    assert cv2.imread(str(path)).shape[1] < 2 * 64
    (folder / "b.png").unlink()
    with pytest.raises(ValueError, match="no image"):
        picture_of_training_data(TrainingData(train, TrainTransform(64), 0), path)


def test_the_picture_shows_what_is_pasted(tmp_path: Path) -> None:
    scenes, pasted = ShapeScenes(6, 64), []
    for copies in ("0", "2"):
        config = CONFIG.override("model.image_size=64", f"augment.copy_paste={copies}")
        path = picture_of_training_data(training_data(scenes, config), tmp_path / "a.jpg", count=4)
        pasted.append(path.read_bytes())
    assert pasted[0] != pasted[1]


def test_the_same_seed_gives_the_same_picture(tmp_path: Path) -> None:
    scenes, transform = ShapeScenes(6, 64), TrainTransform(64)
    paths = [tmp_path / f"{name}.jpg" for name in "abc"]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        picture_of_training_data(TrainingData(scenes, transform, seed), path, count=4)
    a, b, c = (path.read_bytes() for path in paths)
    assert a == b != c


def test_real_data(data_root: Path) -> None:
    folder = data_root / "coco_small"
    content = json.loads((folder / "annotations" / "instances_val.json").read_text())
    real = CocoInstances(folder / "val", folder / "val.json", content=content)
    found = measure_objects(real)
    assert len(found.labels) == 1239
    assert found.num_crowds == 16
    side = (found.boxes[:, 2:] > 0).all() and found.boxes.max() <= 1
    assert side
    assert (found.areas <= found.boxes[:, 2:].prod(dim=1) * 1.05 + 1e-4).all()
