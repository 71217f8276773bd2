"""Whatever is a dataset keeps the protocol's promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.foreign_formats import two_images, write_images

from data.annotations.as_coco import coco_content
from data.annotations.coco import CocoInstances
from data.annotations.run_lengths import decode
from data.sample import Dataset
from data.shapes.scenes import ShapeScenes


def written(folder: Path) -> Dataset:
    (folder / "instances.json").write_text(json.dumps(two_images()))
    return CocoInstances(write_images(folder), folder / "instances.json")


def generated(_: Path) -> Dataset:
    return ShapeScenes(length=2, image_size=96)


@pytest.mark.parametrize("make", [written, generated])
def test_samples_and_annotations_agree(tmp_path: Path, make: Callable[[Path], Dataset]) -> None:
    dataset = make(tmp_path)
    assert len(dataset) == len(dataset.image_ids) == 2
    for index, image_id in enumerate(dataset.image_ids):
        sample, info = dataset.sample(index), dataset.image_info(index)
        image_hw = (info["height"], info["width"])
        assert sample.image_id == info["id"] == image_id
        assert sample.image.shape == (*image_hw, 3)
        parts = dataset.annotations(index)
        assert parts
        label_of = dataset.categories.label_of
        assert sample.labels.tolist() == [label_of[part["category_id"]] for part in parts]
        assert {part["image_id"] for part in parts} == {image_id}
        for part, box, outline in zip(parts, sample.boxes, sample.segmentations, strict=True):
            x, y, width, height = part["bbox"]
            assert np.allclose(box, (x, y, x + width, y + height))
            mask = decode(part["segmentation"], image_hw)
            assert (mask == decode(outline, image_hw)).all()
            assert mask.sum() == part["area"]
    with pytest.raises(IndexError):
        dataset.sample(2)


@pytest.mark.parametrize("make", [written, generated])
def test_the_ground_truth_is_all_of_it(tmp_path: Path, make: Callable[[Path], Dataset]) -> None:
    dataset = make(tmp_path)
    assert dataset.coco.dataset == coco_content(dataset)
    assert tuple(dataset.coco.imgs) == dataset.image_ids
    assert dataset.coco.loadCats(1)[0]["name"] == dataset.categories.names[0]
    assert len(coco_content(dataset, 1)["images"]) == 1
    assert {a["image_id"] for a in coco_content(dataset, 1)["annotations"]} == {1}
    json.dumps(coco_content(dataset))  # plain values
