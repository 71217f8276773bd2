"""Images that annotations tell of and that are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.foreign_formats import HW, TRIANGLE, opened

from data.checks.dataset import check_dataset

POINTS = [TRIANGLE[i : i + 2] for i in range(0, 6, 2)]


def coco(folder: Path, names: list[str]) -> None:
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    entry = {"category_id": 1, "segmentation": [TRIANGLE]}
    content = {
        "images": images,
        "annotations": [entry | {"id": i + 1, "image_id": i} for i in range(len(names))],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))


def labelme(folder: Path, names: list[str]) -> None:
    for name in names:
        content = {"imagePath": name, "shapes": [{"label": "cat", "points": POINTS}]}
        (folder / name).with_suffix(".json").write_text(json.dumps(content))


def via(folder: Path, names: list[str]) -> None:
    shape = {"name": "polygon", "all_points_x": TRIANGLE[::2], "all_points_y": TRIANGLE[1::2]}
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "cat"}}]
    content = {name: {"filename": name, "regions": regions} for name in names}
    (folder / "via.json").write_text(json.dumps(content))


def yolo(folder: Path, names: list[str]) -> None:
    (folder / "labels").mkdir()
    (folder / "images").mkdir()
    for name in names:
        (folder / "labels" / name).with_suffix(".txt").write_text("0 .1 .1 .5 .1 .5 .5\n")
        if (folder / name).exists():
            (folder / name).rename(folder / "images" / name)
    (folder / "data.yaml").write_text("names: [cat]")


@pytest.mark.parametrize("write", [coco, labelme, via, yolo])
@pytest.mark.parametrize(("there", "total"), [(5, 6), (3, 6), (2, 6), (0, 2)])
def test_missing_images(
    tmp_path: Path,
    write: Callable[[Path, list[str]], None],
    there: int,
    total: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = [f"{number}.png" for number in range(total)]
    picture = np.tile(np.arange(HW[1], dtype=np.uint8), (HW[0], 1))
    for shade, name in enumerate(names[:there]):
        cv2.imwrite(str(tmp_path / name), picture + shade)
    write(tmp_path, names)
    problems = check_dataset(str(tmp_path))["train"]
    if 2 * there >= total:
        dataset = opened(tmp_path, "train")
        found = [dataset.image_info(index)["file_name"] for index in range(len(dataset))]
        assert found == names[:there]
        assert len(dataset.coco.anns) == there
        assert f"({total - there}), such as" in caplog.text
        assert len(problems) == total - there
        assert all(f"{n}." in str(p) for n, p in zip(range(there, total), problems, strict=True))
        return
    said = rf"{tmp_path}.*: .*(missing|nothing can be used)"
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        opened(tmp_path, "train")
    assert problems


def test_a_missing_image_in_an_export(cases_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    source = cases_root / "c17_root"
    for file in source.iterdir():
        if file.name != "s3.png":
            (folder / file.name).write_bytes(file.read_bytes())
    whole, part = opened(source / "a.json", "train"), opened(folder / "a.json", "train")
    assert len(part) == len(whole) - 1 == 5
    assert len(part.coco.anns) == 10
    (problem,) = check_dataset(str(folder / "a.json"))["train"]
    assert (problem.what, problem.where) == ("a missing image", "s3.png")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images(tmp_path: Path, content: bytes, caplog: Any) -> None:
    for name in ("0.png", "1.png"):
        cv2.imwrite(str(tmp_path / name), np.arange(2400, dtype=np.uint8).reshape(HW) % 200)
    (tmp_path / "2.png").write_bytes(content)
    coco(tmp_path, ["0.png", "1.png", "2.png"])
    assert len(opened(tmp_path, "train")) == 2
    assert "an image that cannot be read (1), such as 2.png" in caplog.text
