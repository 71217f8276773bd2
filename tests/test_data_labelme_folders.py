"""labelme's files as people keep them: in sub-folders, twice, and with the picture in them."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.foreign_formats import HW, SQUARES, TRIANGLE, drawn, opened, write_images

from data.annotations.coco import CocoInstances
from data.checks.dataset import check_dataset
from data.conversion import convert_dataset
from data.formats.labelme import read_labelme
from data.images import image_content, read_head, read_image

SQUARE = [SQUARES[0][i : i + 2] for i in range(0, 8, 2)]
CORNER = [TRIANGLE[i : i + 2] for i in range(0, 6, 2)]


def label(file: Path, points: Any, name: str = "cat", **changes: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"shapes": [{"label": name, "points": points}], "imagePath": f"{file.stem}.png"}
    file.write_text(json.dumps({k: v for k, v in (content | changes).items() if v is not None}))


def seen(dataset: CocoInstances) -> dict[str, list[int]]:
    """Return the brightness of each image at its corner, and the pixels of its objects."""
    return {
        dataset.image_path(index).as_posix(): [
            int(sample.image[0, 0, 0]),
            *(int(drawn(outline).sum()) for outline in sample.segmentations),
        ]
        for index in range(len(dataset))
        for sample in [dataset.sample(index)]
    }


def shades(folder: Path, **names: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, shade in names.items():
        pixels = np.full((*HW, 3), shade, np.uint8)
        pixels[20:] += 9
        cv2.imwrite(str(folder / f"{name}.png"), pixels)
    return folder


IN_SQUARE, IN_CORNER = int(drawn(SQUARES[:1]).sum()), int(drawn([TRIANGLE]).sum())


@pytest.mark.parametrize("above", ["", "..\\", "images/"])
def test_files_in_sub_folders(tmp_path: Path, above: str) -> None:
    """Pictures of one name in two folders are two pictures."""
    shades(tmp_path / "site1", a=50)
    shades(tmp_path / "site2" / "day 1", a=70)
    shades(tmp_path, a=90)
    label(tmp_path / "a.json", CORNER)
    label(tmp_path / "site1" / "a.json", SQUARE, imagePath=f"{above and 'gone/'}a.png")
    label(tmp_path / "site2" / "day 1" / "a.json", CORNER)
    found = seen(opened(tmp_path, "train"))
    assert found == {
        f"{tmp_path}/a.png": [90, IN_CORNER],
        f"{tmp_path}/site1/a.png": [50, IN_SQUARE],
        f"{tmp_path}/site2/day 1/a.png": [70, IN_CORNER],
    }
    assert check_dataset(str(tmp_path)) == {"train": []}


def test_pictures_in_a_tree_of_their_own(tmp_path: Path) -> None:
    for site, shade, points in (("s1", 50, SQUARE), ("s2", 70, CORNER)):
        shades(tmp_path / "images" / site, a=shade)
        label(tmp_path / "labels" / site / "a.json", points)
        label(tmp_path / "labels" / site / ".hidden" / "a.json", points, "dog")
    content, problems = read_labelme(tmp_path / "images", tmp_path / "labels")
    assert problems == []
    assert [image["file_name"] for image in content["images"]] == ["s1/a.png", "s2/a.png"]
    dataset = CocoInstances(tmp_path / "images", tmp_path / "labels", content=content)
    assert list(seen(dataset).values()) == [[50, IN_SQUARE], [70, IN_CORNER]]


@pytest.mark.parametrize("above", ["", "train/", "labels/train/"])
def test_all_files_in_sub_folders(tmp_path: Path, above: str) -> None:
    shades(tmp_path / above / "s1", a=50)
    shades(tmp_path / above / "s2", a=70)
    shades(tmp_path / "val" / "s3", b=90)
    for site in ("s1", "s2"):
        label(tmp_path / above / site / "a.json", SQUARE)
    if above:
        label(tmp_path / "val" / "s3" / "b.json", CORNER)
        assert list(seen(opened(tmp_path, "val")).values()) == [[90, IN_CORNER]]
    train = seen(opened(tmp_path, "train"))
    assert list(train.values()) == [[50, IN_SQUARE], [70, IN_SQUARE]]


def test_what_else_lies_in_sub_folders_is_told(tmp_path: Path) -> None:
    shades(tmp_path, a=50)
    label(tmp_path / "a.json", SQUARE)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.json").write_text("{}")
    (problem,) = check_dataset(str(tmp_path))["train"]
    assert problem.what == "a JSON file without 'shapes'"


def test_two_files_of_one_image_are_joined(tmp_path: Path) -> None:
    shades(tmp_path, a=50, b=70)
    label(tmp_path / "a.json", SQUARE)
    label(tmp_path / "second" / "a.json", CORNER, "dog", imagePath="../a.png")
    label(tmp_path / "third" / "a.json", SQUARE, imagePath="..\\a.png")
    label(tmp_path / "b.json", CORNER)
    dataset = opened(tmp_path, "train")
    assert [sorted(each[1:]) for each in seen(dataset).values()] == [
        sorted([IN_SQUARE, IN_CORNER]),
        [IN_CORNER],
    ]
    problems = check_dataset(str(tmp_path))["train"]
    assert [problem.what for problem in problems] == ["an image with two label files"] * 2
    assert all("a.json" in problem.where for problem in problems)


def test_two_files_that_contradict_each_other(tmp_path: Path) -> None:
    shades(tmp_path, a=50)
    label(tmp_path / "a.json", SQUARE, imageHeight=HW[0], imageWidth=HW[1])
    other = {"imageHeight": 80, "imageWidth": 120, "imagePath": "../a.png"}
    label(tmp_path / "second" / "a.json", CORNER, **other)
    assert seen(opened(tmp_path, "train")) == {f"{tmp_path}/a.png": [50, IN_SQUARE]}
    (problem,) = check_dataset(str(tmp_path))["train"]
    assert "that give it other sizes" in problem.what


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("path", [None, "gone.png", "..\\..\\gone.png", 5, ""])
def test_embedded_pictures(tmp_path: Path, head: str, path: Any) -> None:
    shades(tmp_path / "away", a=50)
    picture = head + base64.b64encode((tmp_path / "away" / "a.png").read_bytes()).decode()
    label(tmp_path / "mine" / "x.json", SQUARE, imagePath=path, imageData=picture)
    dataset = opened(tmp_path / "mine", "train")
    assert seen(dataset) == {f"{tmp_path}/mine/x.json": [50, IN_SQUARE]}
    assert check_dataset(str(tmp_path / "mine")) == {"train": []}
    assert read_head(tmp_path / "mine" / "x.json").image_hw == HW
    assert image_content(tmp_path / "mine" / "x.json").startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_embedded_picture_becomes_a_file(tmp_path: Path, suffix: str) -> None:
    shades(tmp_path, a=50)
    picture = cv2.imencode(suffix, cv2.imread(str(tmp_path / "a.png")))[1]
    embedded = base64.b64encode(picture.tobytes()).decode()
    label(tmp_path / "mine" / "sub" / "x.json", SQUARE, imagePath=None, imageData=embedded)
    assert convert_dataset(str(tmp_path / "mine"), tmp_path / "out", "coco") == []
    (shade, pixels) = seen(opened(tmp_path / "out", "train"))[
        f"{tmp_path}/out/images/sub/x{suffix}"
    ]
    assert abs(shade - 50) <= 2
    assert pixels == IN_SQUARE


def test_the_file_comes_before_the_embedded_picture(tmp_path: Path) -> None:
    shades(tmp_path, a=50, b=70)
    other = base64.b64encode((tmp_path / "b.png").read_bytes()).decode()
    label(tmp_path / "a.json", SQUARE, imageData=other)
    assert list(seen(opened(tmp_path, "train")).values()) == [[50, IN_SQUARE]]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"imageData": 5}', '{"imageData": "!"}'])
def test_what_is_no_embedded_picture(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    for read in (read_image, read_head):
        with pytest.raises(ValueError, match=r"a.json as an image"):
            read(tmp_path / "a.json")


def turned(angle: float) -> list[list[float]]:
    """Return the corners of a rectangle of 20 x 10 around 30, 20."""
    cos, sin = math.cos(angle), math.sin(angle)
    away = [(-10, -5), (10, -5), (10, 5), (-10, 5)]
    return [[30 + a * cos - b * sin, 20 + a * sin + b * cos] for a, b in away]


@pytest.mark.parametrize(
    ("kind", "points", "more", "angle"),
    [
        ("rotation", turned(0.5), {"direction": 0.5}, 0.5),
        ("rotation", turned(2), {"direction": 0}, 2),
        ("oriented_rectangle", turned(0.5), {}, 0.5),
        ("rectangle", turned(1), {}, 1),
        ("rectangle", [[20, 15], [40, 25]], {"rotation": 30}, math.pi / 6),
        ("rectangle", [[40, 25], [20, 15]], {"rotation": -90.0}, math.pi / 2),
        ("rectangle", [[20, 15], [40, 25]], {"direction": 0.3}, 0.3),
        ("rectangle", [[20, 15], [40, 25]], {"rotation": 0, "direction": None}, 0),
        ("rectangle", [[20, 15], [40, 25]], {"rotation": "much"}, 0),
    ],
)
def test_turned_rectangles(
    tmp_path: Path, kind: str, points: Any, more: dict[str, Any], angle: float
) -> None:
    shades(tmp_path, a=50)
    shape = {"label": "cat", "shape_type": kind, "points": points} | more
    label(tmp_path / "a.json", [], shapes=[shape])
    content, problems = read_labelme(tmp_path, tmp_path)
    assert problems == []
    mask = drawn(content["annotations"][0]["segmentation"])
    expected = np.zeros((HW[0] * 8, HW[1] * 8), np.uint8)
    cv2.fillPoly(expected, [(np.array(turned(angle)) * 8).astype(np.int32)], 1)
    shares = expected.reshape(HW[0], 8, HW[1], 8).mean(axis=(1, 3)) > 0.5
    assert (mask & shares).sum() > 0.93 * (mask | shares).sum()


def test_an_export_with_a_deeper_folder(cases_root: Path) -> None:
    dataset = opened(cases_root / "c18_labelme_sub", "train")
    assert len(dataset) == 4
    assert len(dataset.coco.anns) == 8
    for index in range(4):
        points = json.loads(dataset.image_path(index).with_suffix(".json").read_text())["shapes"]
        boxes = [[*np.min(s["points"], axis=0), *np.max(s["points"], axis=0)] for s in points]
        assert dataset.sample(index).boxes.tolist() == boxes
    assert check_dataset(str(cases_root / "c18_labelme_sub")) == {"train": []}


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing can be used"):
        read_labelme(write_images(tmp_path), tmp_path)
