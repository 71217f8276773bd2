from __future__ import annotations

import base64
import json
import logging
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from support.foreign_formats import (
    DISC,
    HW,
    SQUARES,
    drawn,
    opened,
    two_images,
    write_images,
    write_labelme,
)

from data.formats.labelme import read_labelme


def labelme(folder: Path, *shapes: Any, **changes: Any) -> Path:
    write_images(folder, ("a.png",))
    (folder / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.png"} | changes))
    return folder


def shape(kind: str | None, *points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "cat", "shape_type": kind, "points": points} | more


def png(bitmap: NDArray[np.uint8]) -> str:
    return base64.b64encode(cv2.imencode(".png", bitmap * 255)[1].tobytes()).decode()


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (shape("polygon", [5, 5], [15, 5], [15, 15], [5, 15]), drawn(SQUARES[:1])),
        (shape(None, [5, 5], [15, 5], [15, 15], [5, 15]), drawn(SQUARES[:1])),
        (shape("rectangle", [15, 15], [5, 5]), drawn(SQUARES[:1])),
        (shape("rectangle", [5, 5], [15, 5], [15, 15], [5, 15]), drawn(SQUARES[:1])),
        (shape("circle", [30, 20], [30, 30]), DISC),
        (
            shape("mask", [5, 5], [14, 14], mask=png(np.ones((10, 10), np.uint8))),
            drawn(SQUARES[:1]),
        ),
        (shape("mask", [-5, -5], [9, 9], mask=png(np.ones((15, 15), np.uint8))), np.eye(1)),
    ],
)
def test_shapes_of_labelme(tmp_path: Path, part: Any, expected: NDArray[Any]) -> None:
    content, problems = read_labelme(tmp_path, labelme(tmp_path, part))
    assert not problems
    (entry,) = content["annotations"]
    segmentation = entry["segmentation"]
    mask = (
        drawn(segmentation) if isinstance(segmentation, list) else mask_utils.decode(segmentation)
    )
    if expected.shape == (1, 1):  # cut at the corner
        assert mask[:10, :10].all()
        assert mask.sum() == 100
    else:
        assert (mask & expected).sum() > 0.95 * (mask | expected).sum()


def test_masks_of_labelme_are_cut_at_the_edges(tmp_path: Path) -> None:
    for x, y in ((-4, 2), (3, -7), (55, 36), (-3, 33)):
        part = shape("mask", [x, y], [x + 9, y + 9], mask=png(np.ones((10, 10), np.uint8)))
        content, _ = read_labelme(tmp_path, labelme(tmp_path, part))
        expected = np.zeros(HW, np.uint8)
        expected[max(y, 0) : y + 10, max(x, 0) : x + 10] = 1
        assert (drawn(content["annotations"][0]["segmentation"]) == expected).all()


def test_the_size_that_labelme_states(tmp_path: Path) -> None:
    stated = {"imageHeight": 80, "imageWidth": 120}
    for size, expected in ((stated, (80, 120)), (stated | {"imageWidth": 0}, HW)):
        content, _ = read_labelme(tmp_path, labelme(tmp_path, GOOD, **size))
        (image,) = content["images"]
        assert (image["height"], image["width"]) == expected


def test_an_impossible_size_is_told_in_the_words_of_labelme(tmp_path: Path) -> None:
    huge = {"shapes": [GOOD], "imagePath": "a.png", "imageHeight": 10**6, "imageWidth": 10**6}
    labelme(tmp_path, GOOD)
    (tmp_path / "b.json").write_text(json.dumps(huge))
    content, (problem,) = read_labelme(tmp_path, tmp_path)
    assert len(content["images"]) == 1
    assert problem.what == "an image of impossible size"
    assert problem.mend.endswith(" or correct its 'imageHeight' and 'imageWidth'")


def test_groups_of_labelme(tmp_path: Path) -> None:
    square = shape("rectangle", [5, 5], [15, 15], group_id=1)
    other = shape("rectangle", [30, 20], [38, 28], group_id=1)
    bitmap = shape("mask", [50, 30], [52, 32], group_id=1, mask=png(np.ones((3, 3), np.uint8)))
    dog = shape("rectangle", [1, 1], [9, 9], group_id=1, label="dog")
    alone = shape("rectangle", [2, 2], [9, 9])
    content, _ = read_labelme(tmp_path, labelme(tmp_path, square, other, dog, alone, alone))
    assert [len(entry["segmentation"]) for entry in content["annotations"]] == [2, 1, 1, 1]
    content, _ = read_labelme(tmp_path, labelme(tmp_path, square, other, bitmap))
    (entry,) = content["annotations"]
    joined = mask_utils.decode(entry["segmentation"])
    assert joined.sum() == drawn(SQUARES).sum() + 9


GOOD = shape("rectangle", [5, 5], [15, 15])


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("cat", "no object"),
        (shape("point", [1, 1]), "a point, which has no area"),
        (shape("linestrip", [1, 1], [2, 2], [3, 1]), "a linestrip, which has no area"),
        (shape("sphere", [1, 1], [2, 2]), "unknown type"),
        (shape("circle", [1, 1]), "unknown type"),
        (shape("polygon", [1, 1], [2, 2]), "fewer than three points"),
        (shape("polygon", [1, 1], [2, 2], [3]), "without points"),
        (shape("polygon", [1, 1], [2, 2], [3, None]), "no number"),
        (shape("polygon", [1, 1], [2, 2], [3, float("nan")]), "no number"),
        (shape("polygon", [1, 1], [2, 2], [3, 10**400]), "no number"),
        (shape("polygon", [1, 1], [2, 2], [3, 1e12]), "far outside"),
        (shape("polygon", [1, 1], [2, 2], [3, -1e12]), "far outside"),
        (shape("circle", [1, 1], [1e200, 1e200]), "far outside"),
        (shape("polygon", *[[1, 1], [30, 30]] * 9000), "far too long"),
        (shape("mask", [1, 1], [5, 5], mask="no PNG"), "cannot be decoded"),
        (shape("mask", [1, 1], [5, 5]), "cannot be decoded"),
        (shape("mask", [1, 1], [5, 5], mask=png(np.ones((2000, 2000), np.uint8))), "decoded"),
        (GOOD | {"label": " "}, "without a label"),
        (GOOD | {"label": None}, "without a label"),
        (GOOD | {"points": {}}, "without points"),
    ],
)
def test_shapes_of_labelme_that_are_left_out(tmp_path: Path, part: Any, what: str) -> None:
    content, (problem,) = read_labelme(tmp_path, labelme(tmp_path, GOOD, part))
    assert what in problem.what
    assert problem.where == f"{tmp_path / 'a.json'}, shape 2"
    assert len(content["annotations"]) == 1


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[]", b"5", b"[" * 100_000, b"\xff", b'{"shapes": 1}']
)
def test_one_broken_file_stops_nobody(tmp_path: Path, broken: bytes) -> None:
    write_labelme(two_images(), write_images(tmp_path))
    (tmp_path / "c.json").write_bytes(broken)
    content, (problem,) = read_labelme(tmp_path, tmp_path)
    assert len(content["images"]) == 2
    assert problem.where.endswith("c.json")


@pytest.mark.parametrize(
    ("image_path", "place"),
    [("..\\photos\\a.png", "photos"), ("a.png", "images"), ("/home/me/a.png", "labels")]
    + [(None, "images"), (7, "labels"), ("x" * 5000, "images"), ("\0", "images")],
)
def test_images_of_labelme_are_found(tmp_path: Path, image_path: Any, place: str) -> None:
    labelme(tmp_path / "labels", GOOD, imagePath=image_path)
    (tmp_path / "labels" / "a.png").unlink()
    (tmp_path / "images").mkdir()
    write_images(tmp_path / place, ("a.png",))
    dataset = opened(tmp_path, "train")
    assert dataset.sample(0).image.shape == (*HW, 3)


def test_what_is_left_out_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelme(tmp_path, GOOD, shape("point", [1, 1]), shape("point", [2, 2]), shape("line", [1, 1]))
    with caplog.at_level(logging.WARNING):
        opened(tmp_path, "train")
    (record,) = caplog.records
    assert "left out a point, which has no area (2), a line, which" in record.getMessage()


@pytest.mark.parametrize(
    ("group", "parts", "told"),
    [(1, 7, "7 shapes became 1 object, such as .*a.json, 7 of 'cat';"), (1, 5, ""), (None, 7, "")],
)
def test_many_shapes_of_one_group(tmp_path: Path, group: int | None, parts: int, told: str) -> None:
    corners = ([5, 5], [15, 5], [15, 15])
    shapes = [shape("polygon", *corners, group_id=group)] * parts
    _, found = read_labelme(tmp_path, labelme(tmp_path, *shapes))
    assert all(problem.is_notice for problem in found)
    matches = [re.match(f"many shapes joined by Group ID: {told}", str(each)) for each in found]
    assert [bool(match) for match in matches] == [True] * bool(told)


def test_images_without_a_json_file(tmp_path: Path) -> None:
    labelme(tmp_path, shape("rectangle", [15, 15], [5, 5]))
    write_images(tmp_path, ("b.png", "c.png"))
    content, (problem,) = read_labelme(tmp_path, tmp_path)
    assert len(content["images"]) == 1
    assert problem.is_notice
    assert str(problem).startswith("images without a JSON file: 2, such as b.png; they are not use")


def test_images_with_a_json_file_of_the_other_split(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", ("a.png", "b.png"))
    for split, name in (("train", "a"), ("val", "b")):
        corners = shape("rectangle", [15, 15], [5, 5])
        (tmp_path / split).mkdir()
        content = json.dumps({"shapes": [corners], "imagePath": f"{name}.png"})
        (tmp_path / split / f"{name}.json").write_text(content)
    assert not read_labelme(images, tmp_path / "train").problems
