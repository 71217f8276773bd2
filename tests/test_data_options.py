"""What a user decides about crowds, and about objects with a box alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.annotations.coco import CocoInstances
from data.catalog import open_dataset
from data.options import DEFAULT_OPTIONS, DataOptions

SQUARE = [[2, 2, 6, 2, 6, 6, 2, 6]]
RUNS = {"size": [10, 12], "counts": [22, 4, 94]}
BOX = [1, 3, 5, 4]


def write(folder: Path, *objects: dict[str, Any], images: int = 3) -> Path:
    """Write images 0, 1, ... of 12 x 10 pixels, with one object in each of the first ones."""
    for number in range(images):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((10, 12, 3), 9 * number, np.uint8))
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": 10, "width": 12}
            for number in range(images)
        ],
        "annotations": [
            {"id": number + 1, "image_id": number, "category_id": 1, **entry}
            for number, entry in enumerate(objects)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def opened(folder: Path, options: DataOptions = DEFAULT_OPTIONS) -> CocoInstances:
    dataset = open_dataset(str(folder), "train", options=options)
    assert isinstance(dataset, CocoInstances)
    return dataset


def test_no_objects(tmp_path: Path) -> None:
    for options in (DEFAULT_OPTIONS, DataOptions(crowd="objects"), DataOptions(boxes_only="skip")):
        dataset = opened(write(tmp_path), options)
        assert len(dataset) == 3
        assert dataset.counts() == (0, 0, 0, 0, 0, 0, ())


@pytest.mark.parametrize(
    "written",
    [{}, {"segmentation": None}, {"segmentation": []}, {"segmentation": [[]]}]
    + [{"segmentation": {}}, {"segmentation": {"size": [10, 12], "counts": ""}}],
)
@pytest.mark.parametrize("area", [{}, {"area": 20.0}])
def test_an_object_with_a_box_alone(
    tmp_path: Path, written: dict[str, Any], area: dict[str, Any]
) -> None:
    dataset = opened(write(tmp_path, {"bbox": BOX, **written, **area}, {"segmentation": SQUARE}))
    assert dataset.counts() == (2, 0, 1, 1, 1, 1, ())
    (part,) = dataset.annotations(0)
    assert (part["segmentation"], part["bbox"], part["area"]) == ([], BOX, 20)
    sample = dataset.sample(0)
    assert sample.segmentations == ([],)
    assert sample.boxes.tolist() == [[1, 3, 6, 7]]
    assert not sample.is_crowd.any()


def test_boxes_alone_are_ignored_or_their_images_skipped(tmp_path: Path) -> None:
    write(tmp_path, {"bbox": BOX}, {"segmentation": SQUARE}, {"bbox": BOX, "iscrowd": 1}, images=4)
    ignored = opened(tmp_path, DataOptions(boxes_only="ignore"))
    assert ignored.counts() == (1, 2, 0, 1, 1, 1, ())
    assert [ignored.sample(index).is_crowd.tolist() for index in range(4)] == [
        [True],
        [False],
        [True],
        [],
    ]
    skipped = opened(tmp_path, DataOptions(boxes_only="skip"))
    assert skipped.image_ids == (1, 2, 3)  # a crowd needs no outline
    assert skipped.skipped == 1
    assert [len(skipped.sample(index).labels) for index in range(3)] == [1, 1, 0]
    assert [part["image_id"] for part in skipped.annotations(0)] == [1]


@pytest.mark.parametrize("outline", [SQUARE, RUNS])
def test_crowds_taken_as_objects(tmp_path: Path, outline: Any) -> None:
    crowd = {"segmentation": outline, "iscrowd": 1}
    write(tmp_path, crowd, crowd, {"segmentation": SQUARE, "iscrowd": 0})
    assert opened(tmp_path).counts()[:2] == (1, 2)
    dataset = opened(tmp_path, DataOptions(crowd="objects"))
    assert dataset.counts()[:2] == (3, 0)
    assert dataset.coco.anns[1]["iscrowd"] == 0
    assert not dataset.sample(0).is_crowd.any()


def test_a_class_of_crowds_alone(tmp_path: Path) -> None:
    write(tmp_path, *({"segmentation": SQUARE, "iscrowd": 1} for _ in range(3)))
    assert opened(tmp_path).counts() == (0, 3, 0, 0, 0, 0, ("cat",))


@pytest.mark.parametrize(
    ("outline", "rectangles"),
    [
        (SQUARE, 1),
        ([[*SQUARE[0], 2, 2]], 1),  # closed
        ([[2, 6, 6, 6, 6, 2, 2, 2]], 1),
        ([[2, 2, 6, 2, 6, 6.5, 2, 6]], 0),
        ([[2, 2, 6, 3, 6, 6, 2, 6]], 0),
        ([[2, 2, 6, 2, 6, 6]], 0),
        (SQUARE * 2, 0),
        (RUNS, 0),
        ([], 0),
    ],
)
def test_outlines_drawn_as_boxes(tmp_path: Path, outline: Any, rectangles: int) -> None:
    first = {"segmentation": [[1, 1, 9, 1, 9, 9]]}
    dataset = opened(write(tmp_path, first, {"segmentation": outline, "bbox": BOX}))
    assert dataset.counts().rectangles == rectangles


def test_a_part_of_a_dataset(tmp_path: Path) -> None:
    write(tmp_path, {"segmentation": SQUARE}, {"bbox": BOX}, {"segmentation": RUNS}, images=4)
    whole = opened(tmp_path)
    assert len(whole.part([])) == 0
    part = whole.part([3, 1, 0, 1])
    assert part.image_ids == (0, 1, 3)
    assert [part.annotations(index) for index in range(3)] == [
        whole.annotations(index) for index in (0, 1, 3)
    ]
    assert set(part.coco.imgs) == {0, 1, 3}
    assert len(whole.coco.imgs) == len(whole) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crowd": "yes"}, "crowd='yes': expected ignore or objects"),
        ({"boxes_only": ""}, "boxes_only='': expected use or ignore or skip"),
        ({"val": "0"}, "val=0: expected a share"),
        ({"val": "1.0"}, "val=1.0: expected a share"),
        ({"val": "nan"}, "val=nan: expected a share"),
        ({"val": "-0.2"}, "val=-0.2: expected a share"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataOptions(**options)


def test_boxes_alone_of_an_export(cases_root: Path) -> None:
    folder = cases_root / "c08_boxonly_missing"
    assert opened(folder).counts() == (12, 0, 6, 6, 2, 2, ())
    assert [len(opened(folder).sample(index).labels) for index in range(6)] == [2] * 6
    assert len(opened(folder, DataOptions(boxes_only="skip"))) == 3
    assert opened(folder, DataOptions(boxes_only="ignore")).counts()[:2] == (6, 6)


def test_crowds_of_an_export(cases_root: Path) -> None:
    folder = cases_root / "c02_cvat_crowd1"
    assert opened(folder).counts()[:2] == (0, 8)
    assert opened(folder, DataOptions(crowd="objects")).counts()[:2] == (8, 0)
