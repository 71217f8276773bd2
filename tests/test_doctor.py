"""`yolact check`: faults planted in a dataset of rectangles, which a detector knows by heart."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.browser import grave_violations, need_browser, open_browser, open_page
from support.rectangles import NAMES, RectangleDetector, drawing

from data.catalog import open_dataset
from data.checks.dataset import check_dataset
from data.images import read_image
from yolact.cli.common import run_command
from yolact.doctor.findings import Findings, contradicted, examine
from yolact.doctor.mend import write_mended
from yolact.doctor.page import write_page
from yolact.doctor.pictures import write_sheet
from yolact.predictor import Predictor

SCRIPTS = Path(__file__).parents[1] / "scripts"
HW = (120, 160)
Box = tuple[int, int, int, int]
FIRST, SECOND = (10, 20, 60, 90), (90, 30, 140, 80)
RED, GREEN = 0, 1


def part(number: int, image: int, label: int, box: Box, **changes: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
    entry = {"id": number, "image_id": image, "category_id": label + 1, "segmentation": [polygon]}
    return entry | {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0} | changes


def content(count: int = 12) -> dict[str, Any]:
    """Images 1, 2, ... with a red and a green rectangle each, a little different in each."""
    images, annotations = [], []
    for image in range(1, count + 1):
        name = f"{image}.png"
        images.append({"id": image, "file_name": name, "height": HW[0], "width": HW[1]})
        for number, (label, box) in enumerate(boxes_of(image)):
            annotations.append(part(10 * image + number, image, label, box))
    classes = [{"id": label + 1, "name": name} for label, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": classes}


def boxes_of(image: int) -> list[tuple[int, Box]]:
    (x1, y1, x2, y2), (u1, v1, u2, v2) = FIRST, SECOND
    step = 3 * image
    return [(RED, (x1, y1 + step // 2, x2, y2 - step // 2)), (GREEN, (u1, v1, u2 - step, v2))]


def write(folder: Path, annotations: dict[str, Any], split: str = "train") -> Path:
    rng = np.random.default_rng(sum(split.encode()))
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / split).mkdir()
    for entry in annotations["images"]:
        number = int(Path(entry["file_name"]).stem)
        noise = cv2.resize(rng.integers(0, 90, (8, 6, 3)).astype(np.uint8), (HW[1], HW[0]))
        pixels = np.maximum(drawing(HW, *boxes_of(number)), noise)
        cv2.imwrite(str(folder / split / entry["file_name"]), pixels[..., ::-1])
    file = folder / "annotations" / f"instances_{split}.json"
    file.write_text(json.dumps(annotations))
    return folder


def rewrite(folder: Path, annotations: dict[str, Any]) -> None:
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(annotations))


def opened(folder: Path, image_size: int = 160) -> Findings:
    problems = check_dataset(str(folder))
    splits = {split: open_dataset(str(folder), split) for split in problems if " " not in split}
    return examine(str(folder), splits, problems, image_size)


def looked_at(folder: Path) -> Findings:
    detector: Any = RectangleDetector()
    return contradicted(opened(folder), detector, progress=False)


def whats(problems: Any) -> list[str]:
    return sorted({problem.what for found in problems.values() for problem in found})


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
    assert len(contradicted(opened(tmp_path), RectangleDetector(), 2, False).suspects) == 2  # type: ignore[arg-type]


def test_an_image_that_is_gone_is_not_looked_at(tmp_path: Path) -> None:
    findings = opened(write(tmp_path, content()))
    (tmp_path / "train" / "4.png").unlink()
    detector: Any = RectangleDetector()
    assert list(contradicted(findings, detector, progress=False).suspects) == []


def spoil(folder: Path) -> dict[str, Any]:
    """Write a dataset with each fault that can be mended, and some that can only be told."""
    annotations = content()
    images, parts = annotations["images"], annotations["annotations"]
    write(folder, annotations)
    for name, quality in (("100.png", 0), ("101.jpg", 90)):  # a copy, and one that is nearly so
        number = int(name[:3])
        images.append({"id": number, "file_name": name, "height": HW[0], "width": HW[1]})
        parts.append(part(200 + number, number, RED, boxes_of(1)[0][1]))
        if quality:
            pixels = read_image(folder / "train" / "1.png")[..., ::-1]
            cv2.imwrite(str(folder / "train" / name), pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
        else:
            (folder / "train" / name).write_bytes((folder / "train" / "1.png").read_bytes())
    parts.append(part(401, 5, RED, boxes_of(5)[0][1]))  # twice
    parts.append(part(402, 6, GREEN, boxes_of(6)[0][1]))  # as another class, too
    parts.append(part(403, 7, RED, (300, 10, 340, 40)))  # outside
    parts.append(part(404, 7, RED, (140, 90, 190, 110)))  # partly
    line = [[20, 20, 60, 60, 40, 40]]
    parts.append(part(405, 8, RED, (20, 20, 60, 60), segmentation=line))
    parts[0]["bbox"] = [0, 0, 5, 5]
    images[7] |= {"height": HW[1], "width": HW[0]}  # swapped
    rewrite(folder, annotations)
    return annotations


def tree(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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


def test_of_many_images_that_are_alike_one_is_suggested(tmp_path: Path) -> None:
    annotations = content(3)
    write(tmp_path, annotations)
    pixels = read_image(tmp_path / "train" / "1.png")[..., ::-1]
    for number in range(100, 105):
        name = f"{number}.jpg"
        cv2.imwrite(str(tmp_path / "train" / name), pixels, (cv2.IMWRITE_JPEG_QUALITY, number - 30))
        entry = {"id": number, "file_name": name, "height": HW[0], "width": HW[1]}
        annotations["images"].append(entry)
    rewrite(tmp_path, annotations)
    findings = opened(tmp_path)
    (suggestion,) = findings.suggestions()
    assert (suggestion["kind"], suggestion["of"], suggestion["images"]) == ("near copy", "1.png", 6)
    (notice,) = (n for n in findings.notices["train"] if "nearly" in n.what)
    assert notice.where == "1.png is like 100.jpg, 101.jpg, 102.jpg and 2 more"


@pytest.mark.parametrize("link", [False, True])
def test_a_mended_copy(tmp_path: Path, link: bool) -> None:
    source, target = tmp_path / "data", tmp_path / "mended"
    spoil(source)
    before = tree(source)
    counts = write_mended(opened(source), target, link)["train"]
    assert +counts == {
        "a bbox that does not fit its outline": 1,
        "an image with height and width swapped": 1,
        "images that were there twice": 1,
        "objects that were annotated twice": 1,
        "outlines cut at the border of the image": 1,
        "annotations with empty box": 1,
        "objects without area inside of the image": 1,
    }
    assert tree(source) == before
    assert check_dataset(str(target)) == {"train": []}
    mended = json.loads((target / "annotations" / "instances_train.json").read_text())
    assert len(mended["images"]) == 13
    copies = [path.samefile(source / "train" / path.name) for path in target.rglob("*.??g")]
    assert set(copies) == {link}
    assert {(entry["height"], entry["width"]) for entry in mended["images"]} == {HW}
    boxes = {entry["id"]: entry["bbox"] for entry in mended["annotations"]}
    x1, y1, x2, y2 = boxes_of(1)[0][1]
    assert boxes[10] == [x1, y1, x2 - x1, y2 - y1]
    assert boxes[404] == [140, 90, 20, 20]
    assert not {300, 401, 403, 405} & set(boxes)


def test_labels_of_an_image_that_is_listed_twice_are_joined(tmp_path: Path) -> None:
    annotations = content()
    annotations["images"].append(annotations["images"][0] | {"id": 50})
    annotations["annotations"][1]["image_id"] = 50
    annotations["annotations"].append(part(500, 50, RED, boxes_of(1)[0][1]))
    write_mended(opened(write(tmp_path / "data", annotations)), tmp_path / "mended")
    mended = open_dataset(str(tmp_path / "mended"), "train")
    assert [entry["id"] for entry in mended.annotations(0)] == [10, 11]


def test_a_copy_between_the_splits_stays_in_train(tmp_path: Path) -> None:
    folder = write(write(tmp_path / "data", content()), content(2), "val")
    for name in ("1.png", "2.png"):
        image = (folder / "train" / name).read_bytes()
        (folder / "val" / name).write_bytes(image)
    cv2.imwrite(str(folder / "val" / "2.png"), read_image(folder / "val" / "2.png")[::2, ::2, ::-1])
    findings = opened(folder)
    assert "an image in both splits" in whats(findings.problems)
    assert "nearly the same image in both splits" in whats(findings.notices)
    counts = write_mended(findings, tmp_path / "mended")
    assert counts["train"].total() == 0
    assert counts["val"]["images that were there twice"] == 1
    (image,) = json.loads((tmp_path / "mended/annotations/instances_val.json").read_text())[
        "images"
    ]
    assert (image["height"], image["width"]) == (HW[0] // 2, HW[1] // 2)


@pytest.mark.parametrize("name", ["../../1.png", "sub/../../1.png", "..\\..\\1.png"])
def test_a_mended_copy_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    source, target = tmp_path / "a" / "b" / "data", tmp_path / "c" / "d" / "mended"
    annotations = content(3)
    write(source, annotations)
    (tmp_path / "a" / "b" / "1.png").write_bytes((source / "train" / "1.png").read_bytes())
    (source / "train" / "..\\..\\1.png").write_bytes((source / "train" / "1.png").read_bytes())
    (source / "train" / "sub").mkdir()
    (source / "train" / "1.png").unlink()
    (source / "1.png").write_bytes((tmp_path / "a" / "b" / "1.png").read_bytes())
    annotations["images"][0]["file_name"] = name
    rewrite(source, annotations)
    before = tree(tmp_path)
    write_mended(opened(source), target)
    new = set(tree(tmp_path)) - set(before)
    assert new
    assert all(Path(path).is_relative_to(target) for path in new)


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    findings = opened(write(tmp_path / "data", content(2)))
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="is not empty"):
        write_mended(findings, tmp_path / "data")
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    write_mended(findings, tmp_path / "empty")


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
        ("--link", "needs --fix=folder"),
        ("--suspects=0", "at least 1"),
    ],
)
def test_flags_that_do_nothing(flag: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("nowhere", flag) == 2
    assert reason in capsys.readouterr().err


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
