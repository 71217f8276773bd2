"""The report of an evaluation, read as its readers do: the files, the tables, the page."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from support.coco_rectangles import (
    CATEGORY_IDS,
    HW,
    MEDIUM,
    NAMES,
    SMALL,
    TRUTH,
    annotation,
    detections,
    evaluated,
    ground_truth,
    perfect,
    random_detections,
)

from data.annotations.polygons import Polygon
from data.classes import Categories
from data.sample import Sample
from yolact import Config, get_config
from yolact.evaluation.coco import CocoEvaluator
from yolact.report.page import SCRIPTS
from yolact.report.pictures import shrink
from yolact.report.records import svg_path
from yolact.report.write import write_report
from yolact.results.detections import Detections

TABLES = {"summary", "per_class", "sizes", "confusion", "images"}
FIGURES = {"precision_recall", "confusion", "sizes"}
ABOUT = {"weights": "weights/mine.pth", "date": "2026-11-21"}


class Images:
    """Grey images of the ground truth; one of them cannot be read."""

    def __init__(self, coco: COCO, broken: int | None = None) -> None:
        self.coco, self.broken = coco, broken
        self.image_ids = tuple(coco.imgs)
        self.categories = Categories(NAMES, CATEGORY_IDS)

    def __len__(self) -> int:
        return len(self.image_ids)

    def sample(self, index: int) -> Sample:
        if self.image_ids[index] == self.broken:
            raise ValueError("cannot read it")
        none = np.zeros(0, np.int64)
        boxes = np.zeros((0, 4), np.float32)
        image = np.full((*HW, 3), 128, np.uint8)
        return Sample(image, boxes, none, none.astype(bool), (), self.image_ids[index])


class Page(HTMLParser):
    """What a page shows and what it refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.refers: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        refers = [value or "" for name, value in attrs if name in ("src", "href")]
        self.refers += [name for name in refers if not name.startswith("#")]
        self.scripts += refers if tag == "script" else []
        if tag not in ("meta", "img", "link", "input", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def named(*names: str) -> Config:
    return get_config("yolact_resnet18").with_classes(names)


def report(
    folder: Path, truth: Any, found: dict[int, Detections], names: Any = NAMES, **more: Any
) -> Page:
    coco = ground_truth(truth)
    evaluator = evaluated(coco, found)
    broken = more.pop("broken", None)
    path = write_report(folder, evaluator, Images(coco, broken), named(*names), ABOUT, **more)
    assert path == folder / "index.html"
    page = Page(path)
    assert page.open == []
    assert all((folder / name).is_file() for name in page.refers)
    assert not list(folder.glob(".*"))
    return page


def images_of(folder: Path) -> list[dict[str, Any]]:
    """Read what the scripts of the page are told."""
    text = (folder / "viewer" / "data.js").read_text(encoding="utf-8")
    _, _, images = text.partition("REPORT.images = ")
    read: list[dict[str, Any]] = json.loads(images.rstrip().removesuffix(",\n];") + "]")
    return read


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("truth", "found", "masks"),
    [
        ([], {}, True),
        ([], perfect(), True),
        (TRUTH, {1: detections(), 2: detections()}, True),
        (TRUTH, perfect(), False),
    ],
)
def test_whatever_is_missing(
    tmp_path: Path, truth: Any, found: dict[int, Detections], masks: bool
) -> None:
    page = report(tmp_path, truth, found, masks=masks)
    files = {path.name for path in tmp_path.iterdir()}
    assert {f"{name}.csv" for name in TABLES} | {f"{name}.png" for name in FIGURES} <= files
    assert {"metrics.json", "index.html"} <= files
    assert "weights/mine.pth" in page.text
    assert ("mask AP" in page.text) == masks
    assert ("box AP –" in page.text) == (not truth)
    assert "nan" not in page.text
    assert f"{0.69 if truth and 5 in found else 0.5:.2f} (best F1)" in page.text
    for name in FIGURES:
        height, width = cv2.imread(str(tmp_path / f"{name}.png")).shape[:2]
        assert min(height, width) > 300
    assert [row["class"] for row in table(tmp_path, "per_class")][-1] == "toothbrush"
    assert table(tmp_path, "per_class")[-1]["recall"] == ""  # without objects
    assert json.loads((tmp_path / "metrics.json").read_text())["images"] == len(found)


def test_tables_tell_the_metrics(tmp_path: Path) -> None:
    found = random_detections(2)
    report(tmp_path, TRUTH, found, score_threshold=0.4)
    metrics = evaluated(ground_truth(TRUTH), found).summarize()
    mask, box = table(tmp_path, "summary")
    for row, values in ((mask, metrics.mask.coco), (box, metrics.box.coco)):
        assert {name: float(row[name]) for name in values} == pytest.approx(values, abs=1e-3)
    rows = {row["class"]: row for row in table(tmp_path, "per_class")}
    for label in (0, 1):
        row = rows[NAMES[label]]
        assert float(row["mask AP"]) == pytest.approx(metrics.mask.per_class[label], abs=1e-3)
        assert float(row["box AP"]) == pytest.approx(metrics.box.per_class[label], abs=1e-3)
        precision = 100 * int(row["right"]) / int(row["detected"])
        assert float(row["precision"]) == pytest.approx(precision, abs=1e-3)
    confusion = table(tmp_path, "confusion")
    assert [row["true class"] for row in confusion] == [*NAMES, "(background)"]
    counts = np.array([list(row.values())[1:] for row in confusion], int)
    assert counts[:-1].sum() == 3  # objects
    assert counts[:, :-1].sum() == sum(int(row["detected"]) for row in rows.values())
    errors = table(tmp_path, "images")
    false = counts.sum() - counts[:, -1].sum() - counts.diagonal().sum()
    assert sum(int(row["false"]) for row in errors) == false > 0
    order = [int(row["missed"]) + int(row["false"]) for row in errors]
    assert order == sorted(order, reverse=True)


def test_images_come_with_their_numbers_the_worst_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = {
        1: detections([SMALL], [1], [0.9]),  # a confusion, and a miss
        2: detections([MEDIUM] * 4, [0, 1, 0, 1], [0.9, 0.8, 0.7, 0.04]),
        5: detections([SMALL], [0], [0.9]),
    }
    page = report(tmp_path, TRUTH, found, score_threshold=0.5)
    assert [row["file"] for row in table(tmp_path, "images")] == ["2", "1", "5"]
    two, one, five = data = images_of(tmp_path)
    assert [image["id"] for image in data] == [2, 1, 5]
    assert two["found"] == [0, 1, 0]  # what scores below 0.05 is left out, and the page says so
    assert "below 0.05" in page.text
    assert (two["objects"], two["crowds"], two["scores"]) == ([0, 0], [1], [8999, 8000, 6999])
    assert one["pairs"] == [0, 0, 10000, 10000]  # detection, object, masks, boxes
    assert (five["objects"], five["pairs"]) == ([], [])
    assert one["outlines"][0] == {
        "boxes": [64, 64, 128, 128],
        "paths": ["m64 64 0 128 128 0 0-128z"],
    }
    for name, sides in (("small", HW), ("large", HW)):
        pictures = [cv2.imread(str(tmp_path / "viewer" / name / one["picture"])) for one in data]
        assert [picture.shape[:2] for picture in pictures] == [sides] * 3

    page = report(tmp_path, TRUTH, found, score_threshold=0.0, broken=2, max_images=2)
    assert "cannot read it" in caplog.text
    assert "Shown are the 2 images with most errors; all 3 count." in page.text
    two, one, five = images_of(tmp_path)
    assert two["found"] == [0, 1, 0, 1]
    assert "picture" not in two and "outlines" in two
    assert "picture" in one
    assert "outlines" not in five
    assert [path.name for path in (tmp_path / "viewer" / "small").iterdir()] == ["0002.jpg"]


@pytest.mark.parametrize(
    ("image_hw", "side", "shrunk"),
    [((120, 160), 320, (120, 160)), ((640, 480), 320, (320, 240)), ((1, 4000), 320, (1, 320))],
)
def test_pictures_fit(image_hw: Any, side: int, shrunk: Any) -> None:
    assert shrink(np.zeros((*image_hw, 3), np.uint8), side).shape == (*shrunk, 3)


def square(x: float, y: float, side: float) -> NDArray[np.float32]:
    return np.array([(x, y), (x, y + side), (x + side, y + side), (x + side, y)], np.float32)


@pytest.mark.parametrize(
    ("polygons", "path"),
    [
        ([], ""),
        ([Polygon(square(1, 2, 3))], "m2 4 0 6 6 0 0-6z"),
        ([Polygon(square(1, 2, 9), (square(2, 3, 1),))], "m2 4 0 18 18 0 0-18zm2 2 0 2 2 0 0-2z"),
        ([Polygon(square(0, 0, 0.1))], "m0 0z"),
    ],
)
def test_outlines_become_short_paths(polygons: list[Polygon], path: str) -> None:
    assert svg_path(polygons, 2.0) == path


def test_many_classes_and_names_that_mean_harm(tmp_path: Path) -> None:
    evil = ["<script>alert(1)</script>", "$\\frac{1$", "_hidden", "x" * 300, "ein Wort " * 30, "图"]
    names = [*evil, *(f"class {n}" for n in range(94))]
    ids = tuple(range(1, len(names) + 1))
    boxes = [(10, 10, 40, 40), (50, 50, 90, 100)]
    truth = [annotation(n, 1, 0, box) | {"category_id": n} for n in ids for box in boxes[:1]]
    truth = [part | {"id": number} for number, part in enumerate(truth, start=1)]
    coco = ground_truth(truth)
    evaluator = CocoEvaluator(coco, ids)
    count = len(ids)
    scores = np.linspace(0.9, 0.1, count).tolist()
    evaluator.add(1, detections([boxes[n % 5 == 0] for n in range(count)], range(count), scores))
    config = replace(named(*names), dataset="<i>data</i>")
    page = Page(write_report(tmp_path, evaluator, Images(coco), config, {"<b>": "<b>"}))
    assert "yolact_resnet18 on i>" in page.text
    assert page.text.count("<b>") == 2
    assert page.scripts == ["viewer/data.js", *(f"viewer/{name}" for name in SCRIPTS)]
    assert evil[0] in page.text
    assert page.refers
    assert not [name for name in page.refers if "//" in name]
    assert [row["true class"] for row in table(tmp_path, "confusion")][:-1] == names
    assert cv2.imread(str(tmp_path / "confusion.png")).shape[0] < 3000


def test_a_given_threshold_is_used(tmp_path: Path) -> None:
    page = report(tmp_path, TRUTH, perfect(), score_threshold=0.75)
    assert "at a score of 0.75 or more" in page.text
    assert "best F1" not in page.text
    assert math.isclose(float(table(tmp_path, "per_class")[0]["recall"]), 50)


@pytest.mark.parametrize("name", ["half \udce9", "clear\x1b[2J", "zero\0", "=HYPERLINK(1)"])
def test_names_that_act_or_cannot_be_written(tmp_path: Path, name: str) -> None:
    coco = ground_truth([annotation(1, 1, 0, (10, 10, 40, 40))])
    evaluator = CocoEvaluator(coco, (1, 2))
    evaluator.add(1, detections([(10, 10, 40, 40)], [0], [0.9]))
    config = named(name, "b")
    page = write_report(tmp_path, evaluator, Images(coco), config, {"weights": name})
    for file in [page, *tmp_path.glob("*.csv"), *tmp_path.rglob("*.js")]:
        assert not {"\0", "\x1b"} & set(file.read_text(encoding="utf-8"))
    assert name not in {row["true class"] for row in table(tmp_path, "confusion")}
