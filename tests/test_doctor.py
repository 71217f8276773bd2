"""`yolact check`: faults planted in a dataset of rectangles, which a detector knows by heart."""

from __future__ import annotations

import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.browser import grave_violations, need_browser, open_browser, open_page
from support.planted_faults import (
    RED,
    boxes_of,
    content,
    opened,
    part,
    rewrite,
    spoil,
    whats,
    write,
)
from support.rectangles import NAMES, RectangleDetector

from data.catalog import open_dataset
from data.images import read_image
from yolact.cli.common import run_command
from yolact.doctor.findings import Findings, examine, with_suspects
from yolact.doctor.mend import write_mended
from yolact.doctor.page import write_page
from yolact.doctor.pictures import write_sheet
from yolact.predictor import Predictor

SCRIPTS = Path(__file__).parents[1] / "scripts"


def looked_at(folder: Path) -> Findings:
    detector: Any = RectangleDetector()
    return with_suspects(opened(folder), detector, progress=False)


def test_of_nothing(tmp_path: Path) -> None:
    findings = examine("nothing", {}, {}, 550)
    assert findings.to_record()["suggestions"] == []
    page = write_page(findings, tmp_path / "page.html").read_text()
    assert "None: everything can be used as it is." in page
    with pytest.raises(ValueError, match="no split that could be opened"):
        write_mended(findings, tmp_path / "mended")
    with pytest.raises(ValueError, match="contradicts no label"):
        write_sheet(findings, tmp_path / "sheet.jpg")


def test_images_without_objects(tmp_path: Path) -> None:
    write(tmp_path / "data", content(3) | {"annotations": []})
    findings = opened(tmp_path / "data")
    assert whats(findings.notices) == ["a class of fewer than 10 objects"]
    assert "red has 0 objects" in write_page(findings, tmp_path / "page.html").read_text()
    assert write_mended(findings, tmp_path / "mended")["train"].total() == 0
    assert len(open_dataset(str(tmp_path / "mended"), "train")) == 3


def test_clean_data(tmp_path: Path) -> None:
    findings = looked_at(write(tmp_path, content()))
    assert (whats(findings.problems), whats(findings.notices)) == ([], [])
    assert list(findings.suggestions()) == []
    assert list(findings.shared) == list(NAMES)


def test_a_class_that_the_model_does_not_know_is_left_out(tmp_path: Path) -> None:
    annotations = content()
    annotations["categories"][1]["name"] = "blue"
    findings = looked_at(write(tmp_path, annotations))
    assert (list(findings.shared), list(findings.suspects)) == (["red"], [])
    for entry in annotations["categories"]:
        entry["name"] += " box"
    rewrite(tmp_path, annotations)
    with pytest.raises(ValueError, match="knows none of the classes.*red, green.*red box"):
        looked_at(tmp_path)


def test_labels_that_the_model_contradicts(tmp_path: Path) -> None:
    annotations = content()
    parts = annotations["annotations"]
    parts[0]["category_id"] = 2  # the red one of image 1
    x1, y1, x2, y2 = boxes_of(2)[0][1]
    parts[2] = part(20, 2, RED, (x1 + 20, y1 + 5, x2 + 20, y2 + 5))
    del parts[5]  # the green one of image 3
    findings = looked_at(write(tmp_path, annotations))
    found = {entry["file_name"]: entry for entry in findings.suggestions()}
    kinds = {name: (entry["kind"], entry["annotation_id"]) for name, entry in found.items()}
    assert kinds == {
        "1.png": ("swapped", 10),
        "2.png": ("shifted", 20),
        "3.png": ("missing", None),
    }
    assert found["1.png"]["labelled"]["class"] == "green"
    assert found["1.png"]["seen"]["class"] == "red"
    assert found["3.png"]["seen"]["box"] == pytest.approx([90, 30, 41, 50])
    sheet = read_image(write_sheet(findings, tmp_path / "sheet.jpg"))
    assert sheet.shape[0] > 200
    assert len(with_suspects(opened(tmp_path), RectangleDetector(), 2, False).suspects) == 2  # type: ignore[arg-type]


def test_an_image_that_is_gone_is_not_looked_at(tmp_path: Path) -> None:
    findings = opened(write(tmp_path, content()))
    (tmp_path / "train" / "4.png").unlink()
    detector: Any = RectangleDetector()
    assert list(with_suspects(findings, detector, progress=False).suspects) == []


def test_problems_and_notices(tmp_path: Path) -> None:
    spoil(tmp_path)
    findings = opened(tmp_path)
    assert {
        "a bbox that does not fit its outline",
        "an image that is there twice",
        "an image with height and width swapped",
        "an object that is annotated twice",
        "an outline outside the image",
        "an outline partly outside the image",
    } <= set(whats(findings.problems))
    assert whats(findings.notices) == [
        "an object that is annotated as two classes",
        "nearly the same image twice",
    ]
    kinds = [(entry["kind"], entry["file_name"]) for entry in findings.suggestions()]
    assert kinds == [
        ("copy", "100.png"),
        ("near copy", "101.jpg"),
        ("twice", "5.png"),
        ("twice", "6.png"),
    ]


@pytest.mark.parametrize(
    ("image_size", "advice"),
    [(160, None), (32, "--set model.image_size=64 holds 95%"), (2, "95% of all would need 64 px")],
)
def test_objects_too_small(
    tmp_path: Path, image_size: int, advice: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if image_size == 2:
        monkeypatch.setattr("yolact.doctor.notices._LARGEST", 32)
    found = opened(write(tmp_path, content()), image_size).notices["train"]
    assert [notice.what for notice in found] == (
        [f"objects too small at {image_size} x {image_size}"] if advice else []
    )
    assert all(advice in notice.mend and notice.places for notice in found if advice)


class Sources(HTMLParser):
    """Gathers what a page refers to, and its alternative texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    annotations = spoil(tmp_path / "data")
    annotations["categories"][1]["name"] = "<script>"
    rewrite(tmp_path / "data", annotations)
    findings = looked_at(tmp_path / "data")
    page = write_page(findings, tmp_path / "page.html").read_text()
    sources = Sources(page).sources
    assert len(sources) > 5
    assert all(source.startswith("data:image/") for source in sources)
    assert "<script" not in page
    assert "<a " not in page  # a browser opens no picture that is in its page
    assert "&lt;script&gt;" in page
    for title in ("an image that is there twice (1)", "annotated as two classes (1)"):
        assert title in page
    assert re.search(r"@import|url\(", page) is None


def check(*arguments: object) -> int:
    main = runpy.run_path(str(SCRIPTS / "check_dataset.py"))["main"]
    return run_command(main, [str(argument) for argument in arguments])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    spoil(folder)
    files = tmp_path / "check.html", tmp_path / "check.json", tmp_path / "mended"
    flags = [f"--report={files[0]}", f"--json={files[1]}", f"--fix={files[2]}"]
    assert check(folder, *flags) == 1
    out, err = capsys.readouterr()
    assert "worth a look in train: 2" in out
    assert re.search(r"mended: train: .*images that were there twice 1", out)
    assert err.startswith("error: ") and err.count("\n") == 1
    record = json.loads(files[1].read_text())
    assert record["images"] == {"train": 14}
    assert {entry["kind"] for entry in record["suggestions"]} == {"copy", "near copy", "twice"}
    assert "an image that is there twice" in {p["what"] for p in record["problems"]["train"]}
    assert check(files[2]) == 0  # what deserves a look is no failure
    assert check(files[2], f"--fix={files[2]}") == 2
    assert "expected a new or an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--sheet=a.jpg", "needs --with=model.pth"),
        ("--suspects=9", "needs --with=model.pth"),
        ("--device=cpu", "needs --with=model.pth"),
        ("--link", "needs --fix=folder"),
        ("--suspects=0", "at least 1"),
    ],
)
def test_flags_that_do_nothing(flag: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("nowhere", flag) == 2
    assert reason in capsys.readouterr().err


def test_a_model_of_other_classes_loses_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = RectangleDetector()
    detector.model.class_names = ("other",)
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda path, device: detector)
    folder, file = write(tmp_path / "data", content()), tmp_path / "found.json"
    assert check(folder, "--with=known.pth", f"--json={file}") == 1
    assert "the model knows none of the classes" in capsys.readouterr().err
    assert json.loads(file.read_text())["images"]


def test_the_command_with_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = content()
    annotations["categories"].append({"id": 3, "name": "blue"})
    annotations["annotations"][0]["category_id"] = 3
    folder, sheet = write(tmp_path / "data", annotations), tmp_path / "sheet.jpg"
    assert check(folder, "--with=nowhere.pth") == 1
    detector = RectangleDetector()
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda path, device: detector)
    capsys.readouterr()
    assert check(folder, "--with=known.pth", f"--sheet={sheet}", "--shown=1") == 0
    out, _ = capsys.readouterr()
    told = "labels that the model contradicts: 1; it knows red, green and none of the 1 other"
    assert told in out
    assert re.search(r"  swapped 0\.\d\d  1\.png: labelled blue, the model sees red 0\.90\n", out)
    assert read_image(sheet).shape[1] > 300


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    need_browser()
    spoil(tmp_path / "data")
    page = write_page(looked_at(tmp_path / "data"), tmp_path / "check.html")
    requested: list[str] = []
    with open_browser() as browser, open_page(browser) as view:
        view.on("request", lambda request: requested.append(request.url))
        view.goto(page.as_uri())
        assert grave_violations(view) == []
        assert view.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        view.set_viewport_size({"width": 390, "height": 800})
        assert view.evaluate("document.documentElement.scrollWidth") == 390
    assert [url for url in requested if not url.startswith("data:")] == [page.as_uri()]
