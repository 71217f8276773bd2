from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.foreign_formats import (
    DISC,
    SQUARES,
    TRIANGLE,
    drawn,
    write_images,
)

from data.formats.via import read_via

DOWN, RIGHT = np.mgrid[-19.5:20, -29.5:30]  # from the centre of the image


def via(folder: Path, *regions: Any, image: Any = "a.png") -> Path:
    write_images(folder, ("a.png",))
    file = folder / "via_region_data.json"
    file.write_text(json.dumps({"a": {"filename": image, "regions": regions}}))
    return file


def region(attributes: Any, name: str = "rect", **numbers: Any) -> dict[str, Any]:
    numbers = numbers or {"x": 5, "y": 5, "width": 10, "height": 10}
    return {"shape_attributes": {"name": name} | numbers, "region_attributes": attributes}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (region({}), drawn(SQUARES[:1])),
        (region({}, "circle", cx=30, cy=20, r=10), DISC),
        (region({}, "ellipse", cx=30, cy=20, rx=10, ry=10), DISC),
        (
            region({}, "ellipse", cx=30, cy=20, rx=15, ry=5, theta=np.pi / 2),
            np.hypot(*(np.mgrid[-19.5:20, -29.5:30] / [[[15]], [[5]]])) <= 1,
        ),
        (
            region({}, "ellipse", cx=30, cy=20, rx=15, ry=5, theta=np.pi / 4),
            np.hypot((DOWN + RIGHT) / 15, (DOWN - RIGHT) / 5) <= 2**0.5,
        ),
        (
            region({}, "polygon", all_points_x=[10, 50, 10], all_points_y=[5, 5, 35]),
            drawn([TRIANGLE]),
        ),
    ],
)
def test_regions_of_via(tmp_path: Path, part: Any, expected: NDArray[Any]) -> None:
    content, problems = read_via(tmp_path, via(tmp_path, part))
    assert not problems
    mask = drawn(content["annotations"][0]["segmentation"])
    assert (mask & expected).sum() > 0.94 * (mask | expected).sum()


@pytest.mark.parametrize(
    ("attributes", "classes"),
    [
        ([{}, {}], ["object"]),
        ([{"animal": "cat"}, {"animal": "dog"}], ["cat", "dog"]),
        ([{"size": "big", "Class": "cat"}, {"size": "small", "Class": "dog "}], ["cat", "dog"]),
        ([{"name": {"cat": True, "dog": False}}], ["cat"]),
    ],
)
def test_classes_of_via(tmp_path: Path, attributes: list[Any], classes: list[str]) -> None:
    content, problems = read_via(tmp_path, via(tmp_path, *map(region, attributes)))
    assert [entry["name"] for entry in content["categories"]] == classes
    assert not problems


def test_regions_by_number(tmp_path: Path) -> None:
    file = via(tmp_path)
    regions = {"0": region({"class": "cat"}), "1": region({"class": "dog"})}
    file.write_text(json.dumps({"a": {"filename": "a.png", "regions": regions}}))
    assert len(read_via(tmp_path, file).content["annotations"]) == 2


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("cat", "without a class"),
        (region({"class": ""}), "without a class"),
        (region({"class": {"cat": True, "dog": True}}), "without a class"),
        (region({}), "without a class"),
        ({"region_attributes": {"class": "cat"}}, "without a shape"),
        (region({"class": "cat"}, "point", cx=1, cy=1), "a point, which has no area"),
        (region({"class": "cat"}, "blob"), "unknown shape"),
        (region({"class": "cat"}, "rect", x=1, y=1, width="2", height=2), "no number"),
        (region({"class": "cat"}, "circle", cx=1, cy=1, r=float("inf")), "no number"),
        (
            region({"class": "cat"}, "polygon", all_points_x=[1, 2, 3], all_points_y=[1]),
            "without points",
        ),
        (
            region({"class": "cat"}, "polygon", all_points_x=[1, 2], all_points_y=[1, 2]),
            "three points",
        ),
    ],
)
def test_regions_of_via_that_are_left_out(tmp_path: Path, part: Any, what: str) -> None:
    content, (problem,) = read_via(tmp_path, via(tmp_path, region({"class": "cat"}), part))
    assert what in problem.what
    assert "a.png, region 2" in problem.where
    assert len(content["annotations"]) == 1


@pytest.mark.parametrize("image", ["gone.png", None, 5, "a\0b", "x" * 5000])
def test_images_of_via_that_are_missing(tmp_path: Path, image: Any) -> None:
    with pytest.raises(ValueError, match="nothing can be used: .* image") as caught:
        read_via(tmp_path, via(tmp_path, region({}), image=image))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "null", "[" * 100_000, '{"_via_img_metadata": 3}']
)
def test_files_that_are_not_of_via(tmp_path: Path, content: str) -> None:
    file = tmp_path / "via.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"via\.json"):
        read_via(tmp_path, file)


def test_attributes_of_which_none_is_the_class_are_told(tmp_path: Path) -> None:
    regions = [region({"species": name, "occluded": "no"}) for name in ("birch", "oak")]
    content, problems = read_via(tmp_path, via(tmp_path, *regions))
    assert [entry["name"] for entry in content["categories"]] == ["object"]
    assert [problem.what for problem in problems] == ["attributes that name no class"]
    assert "class or label or name or type" in problems[0].mend
