from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.files_of_tools import BOX, SIZE, pack, polygon, region, task
from support.foreign_formats import DISC, HW, drawn, opened, write_images

from data.catalog import resolve_dataset
from data.formats.label_studio import decode_brush, read_label_studio
from data.problems import Problem, Unusable


def read(folder: Path, tasks: Any) -> tuple[list[tuple[str, NDArray[Any]]], list[Problem]]:
    """Class and mask of every object."""
    write_images(folder / "images")
    (folder / "export.json").write_text(json.dumps(tasks))
    content, problems = read_label_studio(folder / "images", folder / "export.json")
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    found = content["annotations"]
    return [(names[a["category_id"]], drawn(a["segmentation"])) for a in found], problems


def test_no_objects(tmp_path: Path) -> None:
    for tasks in ([], [task([])]):
        with pytest.raises(ValueError, match="nothing can be used: there are no objects"):
            read(tmp_path, tasks)


@pytest.mark.parametrize("word", [8, 1])
@pytest.mark.parametrize("sizes", [(3, 4, 8, 16), (1, 2, 9, 12)])
@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((0, 0), bool),
        np.zeros((1, 1), bool),
        np.ones((1, 1), bool),
        np.ones((90, 300), bool),
        np.eye(9, 13, dtype=bool),
        np.random.default_rng(0).random((31, 17)) < 0.5,
        DISC,
    ],
    ids=lambda mask: f"{mask.shape} {mask.sum()}",
)
def test_brush_strokes(mask: NDArray[np.bool_], sizes: tuple[int, ...], word: int) -> None:
    assert (decode_brush(pack(mask, word, sizes), mask.shape) == mask).all()


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        (None, "cut short"),
        ([], "cut short"),
        ([0] * 7, "of another size"),
        (["a"] * 99, "cut short"),
        ([256] * 99, "cut short"),
        (pack(DISC)[:-9], "cut short"),
        (pack(DISC[:-1]), "of another size"),
        ([255] * 99, "of another size"),
    ],
)
def test_brush_strokes_that_are_broken(numbers: object, what: str) -> None:
    with pytest.raises(Unusable, match=what):
        decode_brush(numbers, HW)


ROWS, COLUMNS = np.mgrid[:40, :60]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (polygon(), drawn([[6.0, 4, 36, 4, 6, 32]])),
        (region("brush", {"format": "rle", "rle": pack(DISC)}), DISC),
        (
            region("rectangle", BOX | {"rotation": 0}),
            (ROWS >= 10) & (ROWS < 20) & (COLUMNS >= 12) & (COLUMNS < 42),
        ),
        # turned clockwise around its top left corner: it lies to the left of and below that
        (
            region("rectangle", {"x": 50, "y": 10, "width": 40, "height": 25, "rotation": 90}),
            (ROWS >= 4) & (ROWS < 28) & (COLUMNS >= 20) & (COLUMNS < 30),
        ),
        (
            region("ellipse", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 12.5, "rotation": 90}),
            np.hypot((ROWS - 19.5) / 15, (COLUMNS - 29.5) / 5) <= 1,
        ),
    ],
)
def test_regions(tmp_path: Path, result: dict[str, Any], expected: NDArray[Any]) -> None:
    ((name, mask),), problems = read(tmp_path, [task([result])])
    assert (name, problems) == ("cat", [])
    overlap = (mask & expected).sum() / (mask | expected).sum()
    assert overlap > (0.9 if result["type"] == "ellipselabels" else 0.999)


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (region("keypoint", {"x": 5, "y": 5, "width": 0.5}), "a region without an area"),
        (region("polygon", {"points": []}), "an outline without points"),
        (region("polygon", {"points": [[1, "a"]] * 3}), "an outline without points"),
        (region("polygon", {"points": [[1, 2]] * 2}), "fewer than three points"),
        (region("rectangle", BOX | {"width": None}), "a coordinate that is no number"),
        (region("rectangle", BOX | {"rotation": "x"}), "a coordinate that is no number"),
        (region("brush", {"format": "rle", "rle": [1, 2]}), "a brush stroke that is cut short"),
        (polygon() | {"image_rotation": 90}, "a region on a turned image"),
        (polygon() | {"value": {"points": [[1, 2], [3, 4], [5, 1]]}}, "a region without a class"),
        (
            polygon() | {"value": {"points": [[1, 2]], "polygonlabels": ["a", "b"]}},
            "fewer than three points",
        ),
        (
            polygon() | {"value": polygon()["value"] | {"polygonlabels": ["a", "b"]}},
            "a region of several classes",
        ),
    ],
)
def test_regions_that_are_left_out(tmp_path: Path, result: dict[str, Any], what: str) -> None:
    objects, (problem,) = read(tmp_path, [task([polygon("dog"), result])])
    assert [name for name, _ in objects] == ["dog"]
    assert what in problem.what
    assert problem.where.endswith("export.json, task 5, region 2")


def test_labels_apart_from_their_shape(tmp_path: Path) -> None:
    """A control for shapes and one for labels: two results of one id."""
    points = {"points": [[10, 10], [60, 10], [10, 80]]}
    shape = {"id": "x", "type": "polygon", "value": points, **SIZE}
    label = {"id": "x", "type": "labels", "value": points | {"labels": ["cat"]}, **SIZE}
    other = {"id": "x", "type": "choices", "value": {"choices": ["blurred"]}}
    relation = {"type": "relation", "from_id": "x", "to_id": "x"}
    entry = task([])
    entry["annotations"][0]["result"] = [shape, label, other, relation]
    ((name, _),), problems = read(tmp_path, [entry])
    assert (name, problems) == ("cat", [])


def test_which_annotation_counts(tmp_path: Path) -> None:
    old, new, truth, skipped = (task([polygon(name)])["annotations"][0] for name in "abcd")
    old |= {"updated_at": "2026-01-02T00:00:00Z"}
    new |= {"updated_at": "2026-01-10T00:00:00Z"}
    skipped |= {"was_cancelled": True, "updated_at": "2026-02-01T00:00:00Z"}
    prediction = {"result": [polygon("e")], "score": 1}
    entry = task([], predictions=[prediction])
    for made, expected, problems in (
        ([old], "a", []),
        ([old, new, skipped], "b", ["a task that is annotated several times"]),
        ([new, truth | {"ground_truth": True}], "c", []),
    ):
        ((name, _),), found = read(tmp_path, [entry | {"annotations": made}])
        assert (name, [problem.what for problem in found]) == (expected, problems)
    _, (problem,) = read(tmp_path, [task([polygon()]), entry | {"annotations": [skipped]}])
    assert problem.what == "a task that is not annotated"


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "/data/upload/12/0a1b2c3d-a.png",
        "/data/local-files/?d=shots%5Ca.png",
        "https://example.org/bucket/a.png?signature=1",
        "s3://bucket/folder/a.png",
    ],
)
def test_names_of_images(tmp_path: Path, name: str) -> None:
    objects, problems = read(tmp_path, [task([polygon()], name)])
    assert (len(objects), problems) == (1, [])
    read_min = [{"photo": name, "id": 1, "label": [polygon()["value"] | SIZE], "annotator": 1}]
    objects, problems = read(tmp_path, read_min)
    assert (len(objects), problems) == (1, [])


def test_json_min(tmp_path: Path) -> None:
    """Without predictions, and with a list for each control."""
    one = {"format": "rle", "rle": pack(DISC), "brushlabels": ["dog"]} | SIZE
    two = polygon()["value"] | SIZE
    entry = {"image": "a.png", "id": 3, "tag": [one], "shape": [two], "lead_time": 2.5}
    empty = {"image": "b.png", "id": 4, "annotation_id": 9}
    objects, problems = read(tmp_path, [entry, empty])
    assert not problems
    assert sorted((name, mask.sum()) for name, mask in objects)[1] == ("dog", DISC.sum())
    assert len(opened(tmp_path, "train")) == 2
    assert resolve_dataset(str(tmp_path)).split("train").format == "label_studio"


def test_splits(tmp_path: Path) -> None:
    for split, name in (("train", "a.png"), ("val", "b.png")):
        write_images(tmp_path / split / "images", (name,))
        (tmp_path / split / "export.json").write_text(json.dumps([task([polygon()], name)]))
        assert opened(tmp_path, split).image_info(0)["file_name"] == name


@pytest.mark.parametrize("tasks", [[5], [{}], [{"id": 1, "annotations": 5}], [task([], "no.png")]])
def test_tasks_that_are_left_out(tmp_path: Path, tasks: list[Any]) -> None:
    _, (problem,) = read(tmp_path, [*tasks, task([polygon()])])
    assert problem.where.startswith(str(tmp_path / "export.json"))


def test_other_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a list of tasks, found a dict"):
        read(tmp_path, {})
