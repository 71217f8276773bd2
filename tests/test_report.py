"""The report of an evaluation, read as its readers do: the files, the tables, the page."""

from __future__ import annotations

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
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

from data.classes import Categories
from data.sample import Sample
from yolact import Config, get_config
from yolact.drawing.detections import PALETTE
from yolact.evaluation.coco import CocoEvaluator
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
        self.tags: set[str] = set()
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.refers += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
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


def test_worst_images_come_first_and_replace_earlier_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = {
        1: detections([SMALL], [1], [0.9]),  # a confusion, and a miss
        2: detections([MEDIUM] * 4, [0, 1, 0, 1], [0.9, 0.8, 0.7, 0.6]),
        5: detections([SMALL], [0], [0.9]),
    }
    page = report(tmp_path, TRUTH, found, score_threshold=0.5)
    assert [row["file"] for row in table(tmp_path, "images")] == ["2", "1", "5"]
    assert page.text.index("2: 1 missed, 4 false") < page.text.index("1: 2 missed, 1 false")
    pictures = [cv2.imread(str(path)) for path in sorted(tmp_path.glob("worst_*.jpg"))]
    assert len(pictures) == 3
    assert all(picture.shape[1] > 2 * HW[1] for picture in pictures)

    page = report(tmp_path, TRUTH, found, score_threshold=0.5, broken=2, max_pictures=2)
    assert "cannot read it" in caplog.text
    assert [path.name for path in tmp_path.glob("worst_*.jpg")] == ["worst_01.jpg"]
    assert "1: 2 missed" in page.text
    assert "2: 1 missed" not in page.text


def test_colours_tell_right_from_wrong(tmp_path: Path) -> None:
    left, middle, right = (5, 10, 45, 100), (55, 10, 95, 100), (110, 10, 150, 100)
    boxes = (left, middle, right)
    truth = [annotation(n, 1, 0, box) for n, box in enumerate((left, middle), start=1)]
    report(tmp_path, truth, {1: detections(boxes[1:], [1, 2], [0.9, 0.8])}, score_threshold=0.0)
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "worst_01.jpg")), cv2.COLOR_BGR2RGB)
    panel = 2 * HW[1] + 8  # the image is drawn at twice its size
    seen = [picture[24 + 150, x + panel * side] for side in (0, 1) for x in (50, 150, 260)]
    grey, red, orange = (128, 128, 128), PALETTE[0], PALETTE[3]
    for pixel, color in zip(seen, (red, orange, grey, grey, orange, red), strict=True):
        assert np.abs(pixel - (0.55 * np.array(grey) + 0.45 * np.array(color))).max() < 12


def test_errors_are_drawn_over_what_is_right(tmp_path: Path) -> None:
    box, inside = (10, 10, 150, 110), (40, 30, 120, 90)
    truth = [annotation(1, 1, 0, box), annotation(2, 1, 0, inside)]
    report(tmp_path, truth, {1: detections([box], [0], [0.9])}, score_threshold=0.0)
    pixel = cv2.imread(str(tmp_path / "worst_01.jpg"))[24 + 120, 160, ::-1]
    right = 0.55 * np.full(3, 128) + 0.45 * np.array(PALETTE[1])
    missed = 0.55 * right + 0.45 * np.array(PALETTE[0])  # above
    assert np.abs(pixel - missed).max() < 12


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
    page = Page(write_report(tmp_path, evaluator, Images(coco), named(*names), ABOUT))
    assert "script" not in page.tags
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
