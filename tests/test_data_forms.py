"""COCO files as tools write them, and what is learned from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from support.files_of_tools import polygon, task
from support.foreign_formats import HW, SQUARES, TRIANGLE, drawn, opened, two_images, write_images

from data.annotations.coco import CocoInstances
from data.annotations.outlines import usual_form
from data.checks.dataset import check_annotations, check_dataset
from data.classes import Categories
from yolact.evaluation.result_files import CocoResults, Result, write_coco_json

PAIRS = [TRIANGLE[i : i + 2] for i in range(0, 6, 2)]
BITMAP = drawn([TRIANGLE])
COUNTS = mask_utils.encode(np.asfortranarray(BITMAP))["counts"].decode()


def written(folder: Path, content: dict[str, Any]) -> CocoInstances:
    write_images(folder)
    (folder / "annotations.json").write_text(json.dumps(content))
    return opened(folder, "train")


def changed(key: str, name: str, change: Any) -> dict[str, Any]:
    content = two_images()
    for entry in content[key]:
        entry[name] = change(entry[name])
    return content


def as_points(outline: list[list[float]]) -> list[list[list[float]]]:
    return [np.reshape(part, (-1, 2)).tolist() for part in outline]


def masks(dataset: CocoInstances) -> list[tuple[str, str, bytes]]:
    """Return name of image, class and pixels of each object."""
    return [
        (
            dataset.image_info(index)["file_name"],
            dataset.categories.names[sample.labels[row]],
            drawn(outline, sample.image.shape[:2]).tobytes(),
        )
        for index in range(len(dataset))
        for sample in [dataset.sample(index)]
        for row, outline in enumerate(sample.segmentations)
    ]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, bytes]]:
    return masks(written(tmp_path_factory.mktemp("usual"), two_images()))


def with_ids(change: Any) -> dict[str, Any]:
    content = changed("images", "id", change)
    content["categories"] = changed("categories", "id", change)["categories"]
    content["annotations"] = changed("annotations", "image_id", change)["annotations"]
    for entry, source in zip(content["annotations"], two_images()["annotations"], strict=True):
        entry["category_id"] = change(source["category_id"])
        entry["id"] = change(source["id"])
    return content


@pytest.mark.parametrize(
    "content",
    [
        with_ids(str),
        with_ids(float),
        with_ids(lambda number: f" {number}.0"),
        with_ids(lambda number: f"00{number}"),
        with_ids(lambda number: f"id-{number}"),
        changed("images", "id", str),  # and numbers elsewhere
        changed("annotations", "image_id", str),
        changed("annotations", "category_id", float),
        changed("annotations", "category_id", lambda number: ("cat", "dog")[number - 1]),
        changed("annotations", "image_id", lambda number: ("a.png", "b.png")[number - 1]),
        changed("annotations", "segmentation", lambda o: o[0] if len(o) == 1 else o),
        changed("annotations", "segmentation", as_points),
        changed("annotations", "segmentation", lambda o: PAIRS if len(o) == 1 else o),
        changed("images", "height", str) | changed("images", "width", float),
        two_images() | {"annotations": {str(e["id"]): e for e in two_images()["annotations"]}},
        two_images() | {"annotations": {f"x{e['id']}": e for e in two_images()["annotations"]}},
        two_images() | {"images": {str(e.pop("id")): e for e in two_images()["images"]}},
        two_images() | {"categories": {e.pop("id"): e for e in two_images()["categories"]}},
        {"info": [], "licenses": None} | two_images(),
    ],
)  # fmt: skip
def test_spellings(tmp_path: Path, content: dict[str, Any], usual: list[Any]) -> None:
    dataset = written(tmp_path, content)
    assert masks(dataset) == usual
    assert not dataset.left_out
    assert check_dataset(str(tmp_path)) == {"train": []}
    assert len(dataset.coco.anns) == 3


def test_ids_that_are_texts_get_numbers_of_their_own(tmp_path: Path) -> None:
    content = changed("images", "id", lambda number: "b" if number == 2 else 1)
    content["annotations"] = changed("annotations", "image_id", lambda n: "b" if n == 2 else n)[
        "annotations"
    ]
    dataset = written(tmp_path, content)
    assert dataset.image_ids == (1, 2)
    assert [len(dataset.annotations(index)) for index in (0, 1)] == [1, 2]


@pytest.mark.parametrize("value", [True, None, [1], {}, 1.5, float("nan"), float("inf"), "", " "])
def test_what_is_no_id(tmp_path: Path, value: Any) -> None:
    content = two_images()
    content["annotations"][0]["category_id"] = value
    content["annotations"][1]["image_id"] = value
    dataset = written(tmp_path, content)
    assert dataset.left_out == {"unknown category_id": 1, "unknown image_id": 1}


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([], []),
        (None, None),
        ("text", "text"),
        ([1, 2, 3, 4, 5, 6], [[1, 2, 3, 4, 5, 6]]),
        ([[1, 2], [3, 4], [5, 6]], [[1, 2, 3, 4, 5, 6]]),
        ([[[1, 2], [3, 4]], [[5, 6]]], [[1, 2, 3, 4], [5, 6]]),
        ([[1, 2, 3, 4, 5, 6]], [[1, 2, 3, 4, 5, 6]]),
        ([[1, 2, 3, 4, 5, 6], []], [[1, 2, 3, 4, 5, 6], []]),
        ([{"size": [1, 1]}], {"size": [1, 1]}),
        ([[[1, "a"], [3, 4]]], [[[1, "a"], [3, 4]]]),
        ([["1", "2.5", "3", "4", "5", "6"]], [[1, 2.5, 3, 4, 5, 6]]),
        (["1", 2, 3, 4, 5, 6], [[1, 2, 3, 4, 5, 6]]),
        ([["1", "2"], [3, 4], [5, 6]], [[1, 2, 3, 4, 5, 6]]),
        ([[[[[1]]]]], [[[[[1]]]]]),
        ([None, 1], [None, 1]),
    ],
)
def test_forms_of_outlines(segmentation: Any, expected: Any) -> None:
    assert usual_form(segmentation) == expected


@pytest.mark.parametrize(
    ("bbox", "told"),
    [
        ([0, 0, 0, 0], True),
        ([10, 5, 50, 35], True),  # two corners
        ([30, 20, 40, 30], True),  # centre and size
        ([10 / 60, 5 / 40, 40 / 60, 30 / 40], True),  # shares
        ([20, 10, 80, 60], True),  # of a picture twice as large
        ([5, 10, 30, 40], True),  # x and y swapped
        ([-5, -5, -1, -1], True),
        (["a", 0, 1, 2], True),
        (None, False),
        ([10, 5, 40, 30], False),
        ([9, 4, 41, 31], False),  # rounding
        ([10.2, 5.3, 39.6, 29.5], False),
    ],
)
def test_the_outline_defines_the_box(tmp_path: Path, bbox: Any, told: bool) -> None:
    for outline in ([TRIANGLE], {"size": list(HW), "counts": COUNTS}):
        content = two_images()
        content["annotations"][0] |= {"bbox": bbox, "segmentation": outline, "area": 0.0}
        content["annotations"][0] |= {} if bbox == [0, 0, 0, 0] else {"area": 600.0}
        dataset = written(tmp_path, content)
        box = dataset.sample(0).boxes[0]
        assert np.abs(box - [10, 5, 50, 35]).max() <= 1
        assert 550 < dataset.annotations(0)[0]["area"] < 650
        assert not dataset.left_out
        (problems,) = check_dataset(str(tmp_path)).values()
        assert any("bbox" in problem.what for problem in problems) == told


def test_wrong_boxes_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = written(tmp_path, changed_boxes([0, 0, 0, 0]))
    assert dataset.mended == {"a bbox that does not fit its outline": 3}
    assert "3 boxes do not fit their outlines" in caplog.text


def changed_boxes(bbox: list[float]) -> dict[str, Any]:
    content = two_images()
    for entry in content["annotations"]:
        entry["bbox"] = bbox
    return content


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        ([(0, "pets", "none"), (1, "cat", "pets"), (2, "dog", "pets")], ("cat", "dog")),
        ([(7, "pets", None), (1, "cat", "pets"), (2, "dog", "pets")], ("cat", "dog")),
        ([(0, "dog", "none"), (1, "cat", "dog"), (2, "dog", "dog")], ("cat", "dog")),
        ([(0, "bird", "none"), (1, "cat", "cat"), (2, "dog", "dog")], ("bird", "cat", "dog")),
        ([(1, "cat", "dog"), (2, "dog", "animal")], ("cat", "dog")),  # a group with objects
        ([(3, "bird", "bird"), (1, "cat", "x"), (2, "dog", None)], ("cat", "dog", "bird")),
    ],
)
def test_a_group_of_classes_is_none(
    tmp_path: Path, categories: list[Any], names: tuple[str, ...], usual: list[Any]
) -> None:
    listed = [{"id": i, "name": name, "supercategory": group} for i, name, group in categories]
    dataset = written(tmp_path, two_images() | {"categories": listed})
    assert dataset.categories.names == names
    assert masks(dataset) == usual


def test_classes_that_differ_in_case_are_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [{"id": 1, "name": "a"}, {"id": 2, "name": "A"}]
    write_images(tmp_path)
    (tmp_path / "annotations.json").write_text(json.dumps(two_images() | {"categories": names}))
    for model, expected in (
        (("A", "a"), ["A", "a", "A"]),
        (("b", "A", "a"), ["A", "a", "A"]),
        (("b", "a"), ["a"]),
    ):
        dataset = opened(tmp_path, "train", Categories.from_names(model))
        found = [name for _, name, _ in masks(dataset)]
        assert found == expected
    assert "spells otherwise" not in caplog.text
    names[0]["name"], names[1]["name"] = "CAT", "Dog"
    (tmp_path / "annotations.json").write_text(json.dumps(two_images() | {"categories": names}))
    dataset = opened(tmp_path, "train", Categories.from_names(("dog", "cat")))
    assert [name for _, name, _ in masks(dataset)] == ["dog", "cat", "dog"]
    assert "spells otherwise: CAT as cat, Dog as dog" in caplog.text


def test_classes_that_the_file_lacks_are_not_written(tmp_path: Path) -> None:
    _, label_of = Categories.from_names(("a", "b")).matched_to(Categories.from_names(("A", "c")))
    assert label_of == {1: 0}
    own, _ = Categories.from_names(("a", "b")).matched_to(Categories.from_names(("A", "c")))
    assert own.category_ids[0] == 1
    assert own.absent == {own.category_ids[1]}
    found = [Result(5, number, (0, 0, 1, 1), 0.5, 0.5, "04") for number in own.category_ids]
    results = CocoResults({5: (2, 2)}, found)
    paths = tmp_path / "box.json", tmp_path / "mask.json"
    for absent, expected in ((own.absent, [1]), ((), list(own.category_ids))):
        write_coco_json(*paths, results, absent)
        for path in paths:
            written_ids = [part["category_id"] for part in json.loads(path.read_text())]
            assert written_ids == expected


CASES = {
    "c01_labelstudio_back/result.json": ("cell",),
    "c18_url/a.json": ("leaf",),
    "c06_bbox0/annotations.json": ("leaf",),
    "c06_xyxy/annotations.json": ("leaf",),
    "c07_annotations_dict/annotations.json": ("cell",),
    "c17_root/a.json": ("leaf", "stem"),
    "c04_case/annotations/instances_train.json": ("A", "a", "b"),
}


@pytest.mark.parametrize("name", CASES)
def test_exports(cases_root: Path, name: str) -> None:
    """Every object is there, with the mask that its polygon draws."""
    file = cases_root / name
    dataset = opened(file, "train")
    assert dataset.categories.names == CASES[name]
    content = json.loads(file.read_text())
    raw = content["annotations"]
    raw = list(raw.values()) if isinstance(raw, dict) else raw
    classes = {entry["id"]: entry["name"] for entry in content["categories"]}
    expected = []
    for image in content["images"]:
        for entry in (entry for entry in raw if entry["image_id"] == image["id"]):
            mask = np.zeros((image["height"], image["width"]), np.uint8)
            corners = np.reshape(entry["segmentation"][0], (-1, 2)).astype(int)
            low, high = corners.min(axis=0), corners.max(axis=0)  # they are rectangles
            mask[low[1] : high[1], low[0] : high[0]] = 1
            file_name = image["file_name"].replace("%20", " ").rpartition("\\")[2]
            expected.append((file_name, classes[entry["category_id"]], mask.tobytes()))
    assert masks(dataset) == expected
    for index in range(len(dataset)):
        sample = dataset.sample(index)
        for box, outline in zip(sample.boxes, sample.segmentations, strict=True):
            ys, xs = np.nonzero(drawn(outline, sample.image.shape[:2]))
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    is_wrong = name.startswith("c06")
    assert bool(check_dataset(str(file))["train"]) == is_wrong


def test_what_a_json_file_may_hold(tmp_path: Path) -> None:
    """Nothing makes the checker fail."""
    folder = write_images(tmp_path)
    odd: list[Any] = [
        None,
        True,
        -1,
        2**70,
        1e400,
        "",
        "x",
        "\ud800",
        [],
        [[]],
        [None],
        {},
        {"a": 1},
    ]
    odd += [[1], [[1, 2]], [[[1, 2]]], {"size": [40, 60]}, {"size": ["a", 1], "counts": "00"}]
    odd += [{"size": [10**9, 10**9], "counts": "0"}, {"size": [20, 30], "counts": [[600]]}]
    odd += [{"size": [20, 30], "counts": "\x7f"}, {"size": [20, 30], "counts": None}]
    for key in ("images", "annotations", "categories"):
        for value in odd:
            check_annotations(two_images() | {key: value}, folder)
            check_annotations(two_images() | {key: [value, value]}, folder)
            for name in two_images()[key][0]:
                content = two_images()
                content[key][0][name] = value
                check_annotations(content, folder)
                try:
                    file = tmp_path / "annotations.json"
                    CocoInstances(folder, file, content=content).coco.anns.values()
                except (ValueError, OSError) as error:
                    assert "\n" not in str(error)


def test_real_picture_of_a_square(tmp_path: Path) -> None:
    """What is learned lies where it is seen."""
    picture = np.zeros((*HW, 3), np.uint8)
    cv2.rectangle(picture, (5, 5), (14, 14), (255, 255, 255), -1)
    content = two_images()
    content["annotations"] = [content["annotations"][0] | {"segmentation": SQUARES[0]}]
    write_images(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    sample = opened(tmp_path, "train").sample(0)
    seen = drawn(sample.segmentations[0]) > 0
    assert sample.image[seen].min() == 255
    assert sample.image[~seen].max() == 0


def listed_twice(kind: str) -> dict[str, Any] | list[Any]:
    """Two entries of one image, each with an object."""
    if kind == "label studio":
        return [task([polygon()]) | {"id": number} for number in (1, 2)]
    if kind == "via":
        corners = {"all_points_x": [1, 20, 20], "all_points_y": [1, 1, 20]}
        region = {"shape_attributes": {"name": "polygon", **corners}, "region_attributes": {}}
        return {key: {"filename": "a.png", "regions": [region]} for key in ("a.png1", "a.png2")}
    content = two_images()
    content["images"][1]["file_name"] = "./a.png"
    del content["annotations"][2]
    return content


@pytest.mark.parametrize("kind", ["coco", "via", "label studio"])
def test_an_image_that_is_listed_twice_is_one(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As two, each would teach that the objects of the other are background."""
    write_images(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(listed_twice(kind)))
    dataset = opened(tmp_path, "train")
    assert [len(dataset.annotations(index)) for index in range(len(dataset))] == [2]
    assert "an image that is listed twice (1), such as " in caplog.text
    (told, *_) = check_dataset(str(tmp_path))["train"]
    assert (told.what, told.is_used) == ("an image that is listed twice", True)


def test_entries_of_one_image_that_differ_in_size(tmp_path: Path) -> None:
    content = two_images()
    entry = content["images"][0]
    half = {"id": 50, "height": HW[0] // 2, "width": HW[1] // 2}
    content["images"] += [entry | half]
    content["annotations"].append(content["annotations"][0] | {"id": 90, "image_id": 50})
    dataset = written(tmp_path, content)
    assert len(dataset) == 2
    assert dataset.left_out == {"an image that is left out": 1}
