from __future__ import annotations

import gc
import json
import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from support.plain import plain_target

from data.annotations.coco import CocoInstances
from data.catalog import resolve_dataset
from data.classes import Categories

SQUARE = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]
BITMAP = np.zeros((10, 12), np.uint8)
BITMAP[2:6, 2:6] = 1
COMPRESSED = mask_utils.encode(np.asfortranarray(BITMAP))
RLE = {"size": [10, 12], "counts": COMPRESSED["counts"].decode()}
COUNTS = {"size": [10, 12], "counts": [22, 4, 6, 4, 6, 4, 6, 4, 64]}
CLASSES = [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}]


def annotation(**changes: Any) -> dict[str, Any]:
    entry = {
        "id": 1,
        "image_id": 5,
        "category_id": 9,
        "segmentation": [SQUARE],
        "bbox": [2, 2, 4, 4],
        "area": 16.0,
        "iscrowd": 0,
    }
    return {key: value for key, value in (entry | changes).items() if value is not None}


def write(folder: Path, annotations: Any = (), **changes: Any) -> Path:
    image = np.full((10, 12, 3), 100, np.uint8)
    cv2.imwrite(str(folder / "a.png"), image)
    cv2.imwrite(str(folder / "b.png"), image)
    content = {
        "images": [
            {"id": 5, "file_name": "a.png", "height": 10, "width": 12},
            {"id": 2, "file_name": "b.png", "height": 10, "width": 12},
        ],
        "annotations": annotations,
        "categories": CLASSES,
    }
    content = {key: value for key, value in (content | changes).items() if value is not None}
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    return file


def test_no_annotations(tmp_path: Path) -> None:
    dataset = CocoInstances(tmp_path, write(tmp_path))
    assert dataset.image_ids == (5, 2)
    assert dataset.categories.names == ("cat", "dog")
    sample = dataset.sample(1)
    assert sample.image.shape == (10, 12, 3)
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.shape == sample.is_crowd.shape == (0,)
    assert sample.segmentations == ()


@pytest.mark.parametrize("missing", [{"annotations": None}, {"images": []}])
def test_test_sets(tmp_path: Path, missing: dict[str, Any]) -> None:
    dataset = CocoInstances(tmp_path, write(tmp_path, **missing))
    assert len(dataset.coco.getAnnIds()) == 0
    assert len(dataset) == len(dataset.coco.getImgIds())


@pytest.mark.parametrize("outline", [[SQUARE], RLE, COUNTS, [SQUARE, [1.0, 1.0]]])
def test_outlines(tmp_path: Path, outline: Any, caplog: pytest.LogCaptureFixture) -> None:
    dataset = CocoInstances(tmp_path, write(tmp_path, [annotation(segmentation=outline)]))
    sample = dataset.sample(0)
    assert sample.image_id == 5
    assert sample.boxes.tolist() == [[2, 2, 6, 6]]
    assert sample.labels.tolist() == [1]
    _, target = plain_target(sample, 10)
    assert target.masks[0, 3:5, 3:5].all()
    assert not target.masks[0, 7:].any()
    assert (dataset.coco.annToMask(dataset.coco.anns[1]) == BITMAP).all()
    assert not caplog.records


def test_what_is_missing_is_filled_in(tmp_path: Path) -> None:
    bare = annotation(id=None, bbox=None, area=None, iscrowd=None)
    images = [{"id": 5, "file_name": "a.png"}]
    dataset = CocoInstances(tmp_path, write(tmp_path, [bare], images=images))
    assert dataset.image_info(0) == {"id": 5, "file_name": "a.png", "height": 10, "width": 12}
    (entry,) = dataset.coco.anns.values()
    assert (entry["id"], entry["bbox"], entry["area"]) == (1, [2, 2, 4, 4], 16)
    assert not dataset.sample(0).is_crowd.any()


def test_half_a_size_is_none(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a.png", "height": 10**9}]
    info = CocoInstances(tmp_path, write(tmp_path, images=images)).image_info(0)
    assert (info["height"], info["width"]) == (10, 12)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_id": 77}, "unknown image_id"),
        ({"image_id": [5]}, "unknown image_id"),
        ({"category_id": 1}, "unknown category_id"),
        ({"category_id": None}, "unknown category_id"),
        ({"segmentation": None, "bbox": None}, "neither an outline nor a box"),
        ({"segmentation": [], "bbox": [1, 2, 3]}, "neither an outline nor a box"),
        ({"segmentation": [[]], "bbox": [1, 2, 3, float("nan")]}, "neither an outline nor a box"),
        ({"segmentation": {"counts": ""}, "bbox": None}, "neither an outline nor a box"),
        ({"segmentation": None, "bbox": [2, 2, 0, 4]}, "empty box"),
        ({"segmentation": [[1.0, 2.0, 3.0, 4.0]]}, "no polygon"),
        ({"segmentation": [["a", 2, 3, 4, 5, 6]]}, "no polygon"),
        ({"segmentation": [[float("nan"), 2, 3, 4, 5, 6]]}, "no polygon"),
        ({"segmentation": [[10**400, 2, 3, 4, 5, 6]]}, "no polygon"),
        ({"segmentation": [[0, 0, 9e8, 0, 9e8, 9e8]]}, "far outside the image"),
        ({"segmentation": [[0, 0, -999, 0, 9, 9]], "bbox": None}, "far outside the image"),
        ({"segmentation": [[0, 0, 9, 9] * 400]}, "far too long"),
        ({"segmentation": [[0, 0, 9, 9, 0, 9], [99, 0, 0, 99] * 200]}, "far too long"),
        ({"segmentation": [[0, 0, 11, 9] * 100_000]}, "far too long"),
        ({"segmentation": {"counts": [120]}}, "without size"),
        ({"segmentation": 5}, "no polygon"),
        ({"segmentation": {"size": [10, 12]}}, "without counts"),
        ({"segmentation": {"size": [10, 12], "counts": [7]}}, "wrong sum"),
        ({"segmentation": {"size": [10, 12], "counts": "\x7f~|zz!"}}, "wrong sum"),
        ({"segmentation": RLE | {"counts": RLE["counts"] + "o"}}, "wrong sum"),
        ({"segmentation": {"size": [12, 10], "counts": [120]}}, "another size"),
        ({"segmentation": {"size": [99999, 99999], "counts": [99999**2]}}, "another size"),
        ({"segmentation": [[20.0, 2.0, 24.0, 2.0, 24.0, 6.0]], "bbox": None}, "empty box"),
        ({"segmentation": {"size": [10, 12], "counts": [120]}, "bbox": None}, "empty box"),
    ],
)
def test_useless_annotations_are_counted(
    tmp_path: Path, changes: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path, [annotation(), annotation(id=2, **changes)])
    with caplog.at_level(logging.WARNING):
        dataset = CocoInstances(tmp_path, file)
    assert len(dataset.sample(0).labels) == len(dataset.coco.anns) == 1
    (record,) = caplog.records
    assert "left out 1 of 2" in record.getMessage()
    assert reason in record.getMessage()


@pytest.mark.parametrize("ids", [(0, 1), (4, 4), (None, 1), ("a", "b"), (2**63, 1)])
def test_unusable_ids_are_renumbered(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    file = write(tmp_path, [annotation(id=ids[0]), annotation(id=ids[1], image_id=2)])
    assert sorted(CocoInstances(tmp_path, file).coco.anns) == [1, 2]


def test_images_in_folders(tmp_path: Path) -> None:
    file = write(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "sub" / "a.png")
    images = [{"id": 5, "file_name": "sub/a.png"}]
    dataset = CocoInstances(tmp_path, write(tmp_path, images=images))
    assert dataset.sample(0).image.shape == (10, 12, 3)
    assert file.exists()


def test_objects_are_sorted_by_image(tmp_path: Path) -> None:
    """Those of one image stay in the order of the file, each with its own outline."""
    entries = []
    for number in range(1, 401):
        x = number / 100
        outline = [[x, 0.0, 9.0, x, x, 9.0], [x, 1.0, 9.0, x, x, 8.0]][: number % 2 + 1]
        image_id = (5, 2)[number * number % 7 % 2]
        box = [x, 0.0, 9.0 - x, 9.0]
        entries.append(annotation(id=number, image_id=image_id, segmentation=outline, bbox=box))
    dataset = CocoInstances(tmp_path, write(tmp_path, entries))
    for index, image_id in enumerate((5, 2)):
        expected = [entry for entry in entries if entry["image_id"] == image_id]
        assert len(expected) > 100
        assert dataset.annotations(index) == expected


def test_the_longer_side_says_what_is_far(tmp_path: Path) -> None:
    entries = [
        annotation(id=number, segmentation=[[0, 0, x, 0, 9, 9]])
        for number, x in ((1, 120), (2, 121), (3, -120), (4, -121))
    ]
    found = CocoInstances(tmp_path, write(tmp_path, entries)).annotations(0)
    assert [entry["id"] for entry in found] == [1, 3]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(tmp_path: Path, enabled: bool) -> None:
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        CocoInstances(tmp_path, write(tmp_path))
        assert gc.isenabled() == enabled
        with pytest.raises(FileNotFoundError):
            CocoInstances(tmp_path / "gone", write(tmp_path))
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_boxes_are_cut_at_the_edge(tmp_path: Path) -> None:
    outline = [[-3.0, 4.0, 27.0, 4.0, 27.0, 34.0, -3.0, 34.0]]
    file = write(tmp_path, [annotation(segmentation=outline, bbox=[-3, 4, 30, 30])])
    assert CocoInstances(tmp_path, file).sample(0).boxes.tolist() == [[0, 4, 12, 10]]


@pytest.mark.parametrize(("other", "like"), [("horse", ""), ("cats", ", like 'cats'")])
def test_labels_of_a_trained_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: str, like: str
) -> None:
    model = Categories.from_names((other, "Dog"))
    file = write(tmp_path, [annotation(), annotation(id=2, category_id=3)])
    dataset = CocoInstances(tmp_path, file, categories=model)
    assert dataset.categories.names == (other, "Dog")
    assert dataset.sample(0).labels.tolist() == [1]
    assert dataset.categories.category_ids[1] == 9
    assert "left out 1 of 2 annotations: a class that the model does not know (1)" in caplog.text
    told = f"not among the classes of the model ({other}, Dog), so left out: class 'cat' (1 object"
    assert f"{told}{like})" in caplog.text


def test_a_file_without_classes_has_those_of_the_model(tmp_path: Path) -> None:
    model = Categories.from_names(("horse", "dog"))
    file = write(tmp_path, [annotation(category_id=2)], categories=None)
    assert CocoInstances(tmp_path, file, categories=model).sample(0).labels.tolist() == [1]


def test_matching_by_id_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Categories(("Hund", "Katze"), (9, 3))
    dataset = CocoInstances(tmp_path, write(tmp_path, [annotation()]), categories=model)
    assert dataset.sample(0).labels.tolist() == [0]
    assert "matched by id" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "'images'"),
        ({"categories": None}, "'categories'"),
        ({"annotations": 5}, "'annotations'"),
        ({"images": [{"file_name": "a.png"}]}, "'id'"),
        ({"images": [{"id": [5], "file_name": "a.png"}]}, "'id'"),
        ({"images": [{"id": 5}]}, "'file_name'"),
        (
            {"images": [{"id": 5, "file_name": "a.png", "height": 10**6, "width": 10**6}]},
            "impossible",
        ),
        ({"images": [{"id": 2**63, "file_name": "a.png"}]}, "63 bits"),
        ({"images": [{"id": -(2**70), "file_name": "a.png"}]}, "63 bits"),
        ({"images": [{"id": 5, "file_name": "a.png"}] * 2}, "twice"),
        ({"images": [{"id": 5, "file_name": "gone.png"}]}, r"1 of 1 .*gone\.png"),
        ({"images": [{"id": 5, "file_name": "x" * 5000}]}, "1 of 1 .*xxx"),
        ({"images": [{"id": 5, "file_name": "\0"}]}, "1 of 1 images"),
        ({"images": [{"id": 5, "file_name": "a.png"}, "a.png"]}, "entry 2 of 'images'; number it"),
        ({"categories": [{"id": 1}]}, "'name'"),
        ({"annotations": [annotation(category_id=4)]}, "none of the 1 annotations"),
    ],
)
def test_useless_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = write(tmp_path, **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        CocoInstances(tmp_path, file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 999


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "[" * 100_000, "\udcff"])
def test_not_coco_json(tmp_path: Path, content: str) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"broken\.json"):
        CocoInstances(tmp_path, file)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such annotation file"):
        CocoInstances(tmp_path, tmp_path / "gone.json")
    with pytest.raises(FileNotFoundError, match="no such image folder"):
        CocoInstances(tmp_path / "gone", write(tmp_path))


def test_reasons_are_counted(tmp_path: Path) -> None:
    empty = annotation(segmentation=[[20.0, 2.0, 24.0, 2.0, 24.0, 6.0]])
    useless = [annotation(image_id=7), empty, annotation(image_id=8)]
    dataset = CocoInstances(tmp_path, write(tmp_path, [annotation(id=4), *useless]))
    assert dataset.left_out == {"unknown image_id": 2, "an empty box": 1}
    assert CocoInstances(tmp_path, write(tmp_path)).left_out == {}


def test_content_from_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path, [annotation(), annotation(id=2, image_id=77)])
    content = json.loads(file.read_text())
    for image in content["images"]:
        del image["height"], image["width"]
    dataset = CocoInstances(tmp_path, tmp_path / "labels.txt", content=content)
    assert "labels.txt: left out 1 of 2" in caplog.text
    assert dataset.image_info(1) == {"id": 2, "file_name": "b.png", "height": 10, "width": 12}
    assert len(content["annotations"]) == 2
    assert dataset.coco.dataset == CocoInstances(tmp_path, file).coco.dataset
    with pytest.raises(ValueError, match=r"labels\.txt: .*'categories'"):
        CocoInstances(tmp_path, tmp_path / "labels.txt", content={})


def test_annotations(tmp_path: Path) -> None:
    two = [[2.01, 2.02, 6.03, 2.04, 6.05, 6.06], SQUARE]
    entries = [
        annotation(id=8, image_id=2, segmentation=RLE, iscrowd=1, area=16.25),
        annotation(id=3, segmentation=two, bbox=[2.1, 2.2, 3.3, 3.4], category_id=3),
        annotation(id=5, segmentation=COUNTS),
    ]
    dataset = CocoInstances(tmp_path, write(tmp_path, entries))
    assert dataset.annotations(0) == [entries[1], entries[2] | {"segmentation": RLE}]
    assert dataset.annotations(1) == dataset.annotations(-1) == [entries[0]]
    assert dataset.sample(1).segmentations == (RLE,)
    with pytest.raises(IndexError):
        dataset.annotations(2)


def test_boxes_and_areas_are_measured_where_they_are_missing(tmp_path: Path) -> None:
    bare = {"bbox": [float("nan"), 2, 4, 4], "area": None}
    entries = [annotation(id=n, segmentation=o, **bare) for n, o in ((1, [SQUARE]), (2, RLE))]
    entries += [annotation(id=3, area=7), annotation(id=4, area=7, bbox=None)]
    entries += [annotation(id=5, area=-7)]  # pycocotools would leave it out
    entries += [annotation(id=6, area=0)]  # some tools write that for what they do not know
    dataset = CocoInstances(tmp_path, write(tmp_path, entries))
    found = [(entry["bbox"], entry["area"]) for entry in dataset.annotations(0)]
    assert found == [([2, 2, 4, 4], area) for area in (16, 16, 7, 7, 16, 16)]


def test_workers_get_arrays_alone(tmp_path: Path) -> None:
    entries = [annotation(id=number, segmentation=[SQUARE, SQUARE]) for number in range(1, 2001)]
    file = write(tmp_path, entries)
    gc.collect()
    before = sys.getallocatedblocks()
    dataset = CocoInstances(tmp_path, file)
    assert sys.getallocatedblocks() - before < 1000
    plain = pickle.dumps(dataset)
    assert len(dataset.coco.anns) == len(dataset.coco.imgToAnns[5]) == 2000
    assert len(pickle.dumps(dataset)) < len(plain) + 100
    again = pickle.loads(plain)
    assert again.coco.dataset == dataset.coco.dataset
    assert again.image_ids == dataset.image_ids


def test_real_data(data_root: Path) -> None:
    paths = resolve_dataset(str(data_root / "coco_small"))
    assert paths.val is not None
    dataset = CocoInstances(paths.val.images, paths.val.annotations)
    assert len(dataset) == 145
    assert len(dataset.coco.anns) == 1255
    assert len(dataset.categories.names) == 80
    samples = [dataset.sample(index) for index in range(0, 145, 12)]
    assert any(sample.is_crowd.any() for sample in map(dataset.sample, range(145)))
    assert all(sample.boxes[:, 2:].max(initial=1) <= 640 for sample in samples)
