from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from support.foreign_formats import (
    HW,
    SQUARES,
    TRIANGLE,
    two_images,
    write_images,
    write_labelme,
    write_yolo,
)

from data.checks.dataset import BOTH, check_annotations, check_dataset, find_leaks
from data.problems import Problem, counted

WHOLE = [0.0, 0.0, 60.0, 0.0, 60.0, 40.0, 0.0, 40.0]
ROWS = {"size": list(HW), "counts": [0, 800, 1600]}


def entry(**changes: Any) -> dict[str, Any]:
    base = {"id": 7, "image_id": 1, "category_id": 1, "segmentation": [TRIANGLE]}
    return {key: value for key, value in (base | changes).items() if value != "absent"}


def found(folder: Path, *annotations: Any, **changes: Any) -> list[Problem]:
    content = two_images() | {"annotations": list(annotations)} | changes
    before = copy.deepcopy(content)
    problems = check_annotations(content, write_images(folder))
    assert repr(content) == repr(before)
    return problems


@pytest.mark.parametrize(
    "annotations",
    [
        (),
        (entry(), entry(category_id=2), entry(image_id=2)),
        (entry(bbox=[10, 5, 40, 30], area=600), entry(segmentation=SQUARES, bbox=[5, 5, 33, 23])),
        (entry(segmentation=[WHOLE]), entry(segmentation=ROWS, bbox=[0, 0, 20, 40])),
        (entry(), entry(iscrowd=1), entry(iscrowd=1)),
        (entry(segmentation=[[-1, -1, 61, 0, 61, 41]]),),  # rounding
        (entry(segmentation=[], bbox=[5, 5, 20, 9]), entry(segmentation=None, bbox=[0, 0, 9, 9])),
    ],
)
def test_nothing_wrong(tmp_path: Path, annotations: tuple[Any, ...]) -> None:
    assert found(tmp_path, *annotations) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"image_id": 99}, "unknown image_id"),
        ({"image_id": [1]}, "unknown image_id"),
        ({"image_id": "absent"}, "unknown image_id"),
        ({"category_id": 3}, "unknown category_id"),
        ({"category_id": None}, "unknown category_id"),
        ({"segmentation": None}, "neither an outline nor a box"),
        ({"segmentation": [], "bbox": [5, 5, 0, 9]}, "an empty box"),
        ({"segmentation": [], "bbox": [5, 5, "9", 9]}, "neither an outline nor a box"),
        ({"segmentation": [], "bbox": [50, 5, 20, 9]}, "partly outside the image"),
        ({"segmentation": [[1, 2, 3, 4]]}, "no polygon of three points"),
        ({"segmentation": [[1, 2, 3, float("nan"), 5, 6]]}, "no polygon of three points"),
        ({"segmentation": [[1, 2, 3, 10**400, 5, 6]]}, "no polygon of three points"),
        ({"segmentation": {"size": [40, 60], "counts": "000"}}, "wrong sum"),
        ({"segmentation": {"size": [60, 40], "counts": [2400]}}, "another size"),
        ({"segmentation": [[1, 1, 9, 9, 5, 5]]}, "without area"),
        ({"segmentation": [[5, 5, 5, 5, 5, 5]]}, "without area"),
        ({"segmentation": {"size": [40, 60], "counts": [2400]}}, "without area"),
        ({"segmentation": [[70, 1, 90, 1, 80, 20]]}, "an outline outside the image"),
        ({"segmentation": [[-9, -9, -1, -1, -9, -1]]}, "an outline outside the image"),
        ({"segmentation": [[9e8, 1, 90, 1, 9e8, 9e8]]}, "outline far outside the image"),
        ({"segmentation": [[0, 0, 59, 39, 59, 0, 0, 39] * 9000]}, "outline far too long"),
        ({"segmentation": [[50, 1, 70, 1, 60, 20]]}, "an outline partly outside the image"),
        ({"segmentation": [[10, 45, 30, 45, 20, 58]]}, "x and y swapped"),
        ({"segmentation": [[10, 35, 30, 35, 30, 58, 10, 58]]}, "x and y swapped"),
        ({"segmentation": [[10, 20, 30, 20, 30, 43, 10, 43]]}, "an outline partly outside"),
        ({"bbox": [10, 5, 50, 35]}, "two corners"),
        ({"segmentation": SQUARES[1:], "bbox": [34, 24, 8, 8]}, "by its centre"),
        ({"bbox": [0, 0, 3, 3]}, "does not fit"),
        ({"bbox": [10, 5, 0, 0]}, "does not fit"),
        ({"bbox": [10, 5, 10, 10]}, "does not fit"),
        ({"bbox": [10, 5, float("nan"), 30]}, "not four numbers"),
        ({"bbox": "big"}, "not four numbers"),
    ],
)
def test_annotations(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    (problem,) = found(tmp_path, entry(**changes), entry(image_id=2))
    assert what in problem.what
    assert "annotation 7" in problem.where
    assert ("a.png" in problem.where) == (changes.get("image_id", 1) == 1)
    assert problem.mend


def test_where_it_is(tmp_path: Path) -> None:
    (problem,) = found(tmp_path, entry(bbox=[0, 0, 3, 3]))
    assert str(problem) == (
        "a bbox that does not fit its outline: a.png, annotation 7 (cat at 10, 5); "
        "the outline is used instead: correct or delete the bbox"
    )


@pytest.mark.parametrize("thing", ["cat", None, 5, [], [[]]])
def test_an_annotation_that_is_no_object(tmp_path: Path, thing: Any) -> None:
    (problem,) = found(tmp_path, entry(), thing)
    assert str(problem).startswith("an annotation that is no object: number 2;")


def test_duplicates(tmp_path: Path) -> None:
    moved = [[x + 0.3 for x in TRIANGLE]]
    far = [[x * 0.8 for x in TRIANGLE]]
    problems = found(tmp_path, entry(), entry(id=8, segmentation=moved), entry(segmentation=far))
    assert [problem.what for problem in problems] == ["an object that is annotated twice"]
    assert "annotation 8" in problems[0].where
    assert len(found(tmp_path, *[entry()] * 300)) == 299
    between = entry(segmentation=[[10.1, 5.0, 20.0, 5.0, 20.0, 20.0]])
    (problem,) = found(tmp_path, entry(), between, entry(id=8, segmentation=moved))
    assert "annotation 8" in problem.where


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"images": None}, "a list that is missing"),
        ({"annotations": 7}, "a list that is missing"),
        ({"categories": 5}, "a list that is missing"),
        ({"categories": [{"id": 1}]}, "classes that cannot be read"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "listed twice"),
        ({"images": ["a.png"]}, "without a whole number as its 'id'"),
        ({"images": [{"id": True, "file_name": "a.png"}]}, "without a whole number as its 'id'"),
        ({"images": [{"id": 2**64, "file_name": "a.png"}]}, "too large"),
        ({"images": [{"id": 1}]}, "without a 'file_name'"),
        ({"images": [{"id": 1, "file_name": "gone.png"}]}, "a missing image"),
        ({"images": [{"id": 1, "file_name": "x" * 5000}]}, "a missing image"),
        ({"images": [{"id": 1, "file_name": "\0"}]}, "a missing image"),
        ({"images": [{"id": 1, "file_name": "a.png", "height": 9**9, "width": 9}]}, "impossible"),
        ({"images": [{"id": 1, "file_name": "a.png", "height": 80, "width": 120}]}, "another size"),
        ({"images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 40}]}, "swapped"),
        ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}]}, "twice"),
        ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]}, "twice"),
    ],
)
def test_lists_and_images(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    (problem,) = found(tmp_path, **changes)
    assert what in problem.what
    assert "\n" not in str(problem)


@pytest.mark.parametrize("image_hw", [(1, 1), (3, 40), (40, 2)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_tiny_images(tmp_path: Path, image_hw: tuple[int, int], suffix: str) -> None:
    """They are too small for a quick look at a quarter of them."""
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (*image_hw, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "images" / f"a.{suffix}"), noise)
    images = [{"id": 1, "file_name": f"a.{suffix}"}]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    problems = check_annotations(content, tmp_path / "images")
    assert {problem.what for problem in problems} <= {"an image of one colour"}


def test_objects_of_a_swapped_image_are_judged_by_its_file(tmp_path: Path) -> None:
    outline = [[45, 1, 58, 1, 50, 20]]
    images = [{"id": 1, "file_name": "a.png", "height": HW[1], "width": HW[0]}]
    (problem,) = found(tmp_path, entry(segmentation=outline), images=images)
    assert "swapped" in problem.what


def test_files_that_cannot_be_decoded(tmp_path: Path) -> None:
    write_images(tmp_path, ("a.jpg", "b.jpg", "c.png"))
    noise = np.random.default_rng(0).integers(0, 255, (*HW, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), noise)
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.jpg").write_bytes(whole + b"harmless")
    (tmp_path / "c.png").write_bytes(b"")
    images = [{"id": i, "file_name": f"{n}"} for i, n in enumerate(("a.jpg", "b.jpg", "c.png"))]
    problems = found(tmp_path, images=images)
    assert [str(p).split(";")[0] for p in problems] == [
        "an image that cannot be read: a.jpg",
        "an image that cannot be read: c.png",
    ]


def test_a_rotation_that_the_annotator_ignored(tmp_path: Path) -> None:
    write_images(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    for height, width in ((60, 40), (40, 60)):
        image = {"id": 1, "file_name": "turned.jpg", "height": height, "width": width}
        assert found(tmp_path, images=[image]) == []


def test_leaks(tmp_path: Path) -> None:
    train, val = (write_images(tmp_path / name) for name in ("train", "val"))
    (val / "b.png").write_bytes((val / "b.png").read_bytes() + b"other")
    assert find_leaks([], []) == find_leaks([], [val / "a.png"]) == []
    nowhere = [train / "gone", train / ("x" * 5000), train / "\0"]
    assert find_leaks(nowhere, nowhere) == []
    files = [[folder / name for name in ("a.png", "b.png")] for folder in (train, val)]
    (problem,) = find_leaks(*files)
    assert problem.where == f"{val / 'a.png'} is {train / 'a.png'}"


def test_a_dataset_of_two_splits(tmp_path: Path) -> None:
    write_labelme(two_images(), write_images(tmp_path / "train"))
    write_images(tmp_path / "val", ("c.png", "d.png"))
    other = json.loads(json.dumps(two_images()).replace("a.png", "c.png").replace("b.png", "d.png"))
    other["categories"][0]["name"] = "cats"
    write_labelme(other, tmp_path / "val")
    (tmp_path / "val" / "e.json").write_text("{")
    problems = check_dataset(str(tmp_path))
    assert list(problems) == ["train", "val", BOTH]
    assert problems["train"] == []
    assert [p.what for p in problems["val"]] == ["a file that is not valid JSON"]
    assert [str(p).split(";")[0] for p in problems[BOTH]] == ["a class that only val has: cats"]


def test_a_class_without_objects_is_no_problem(tmp_path: Path) -> None:
    for split, names in (("train", ("a.png", "b.png")), ("valid", ("c.png", "d.png"))):
        content = two_images()
        for image, name in zip(content["images"], names, strict=True):
            image["file_name"] = name
        if split == "valid":
            content["categories"].append({"id": 3, "name": "horse"})
        write_images(tmp_path / split, names)
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    assert check_dataset(str(tmp_path)) == {"train": [], "val": [], BOTH: []}


def test_one_split_is_checked_once(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "annotations.json").write_text(json.dumps(two_images()))
    assert check_dataset(str(tmp_path)) == {"train": []}


def test_a_dataset_that_cannot_be_read(tmp_path: Path) -> None:
    assert check_dataset("shapes") == {}
    with pytest.raises(ValueError, match="no dataset"):
        check_dataset("nowhere")
    (tmp_path / "annotations.json").write_text("[]")
    (problem,) = check_dataset(str(tmp_path))["train"]
    assert "found a list" in str(problem)
    (tmp_path / "annotations.json").write_text("{}")
    assert len(check_dataset(str(tmp_path))["train"]) == 3
    (tmp_path / "annotations.json").write_text("{")
    (problem,) = check_dataset(str(tmp_path))["train"]
    assert "is not valid JSON" in str(problem)


def test_boxes_of_yolo_are_objects(tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "train")
    write_yolo(two_images(), tmp_path)
    file = tmp_path / "labels" / "train" / "b.txt"
    file.write_text("0 0.5 0.5 0.1 0.1\n1 0.2 0.5 0.1 0.1\n")
    assert check_dataset(str(tmp_path)) == {"train": []}
    file.write_text("0 0.5 0.5 0.1 0.1\n" * 3)
    problems = check_dataset(str(tmp_path))["train"]
    assert [problem.what for problem in problems] == ["an object that is annotated twice"] * 2


def test_a_line_is_a_line() -> None:
    assert str(Problem("a\nb", "\x1b[31m\ud800é", "c")) == "a?b: ?[31m?é; c"
    assert len(str(Problem("a", "b" * 9999, "c" * 9999))) < 700


def test_real_data(data_root: Path) -> None:
    assert check_dataset(str(data_root / "coco_small")) == {"train": [], "val": [], BOTH: []}


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2000, "image", "2,000 images"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
    ],
)
def test_one_and_many(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text
