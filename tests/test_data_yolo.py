from __future__ import annotations

from pathlib import Path

import pytest
from support.foreign_formats import (
    opened,
    two_images,
    write_images,
    write_yolo,
)

from data.formats.data_yaml import read_class_names, read_folders
from data.formats.yolo import read_yolo


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [cat]", {0: "cat"}),
        ("names: ['0', \"a b\", don't]  # three", {0: "0", 1: "a b", 2: "don't"}),
        ("nc: 2\nnames:\n  0: cat\n  1: dog # c\ndownload: |\n  names = 1", {0: "cat", 1: "dog"}),
        ("names:\n- cat\n- 'd # g'\n", {0: "cat", 1: "d # g"}),
        ('names:\n  - "caf\\xE9 \\u0142"\n', {0: "café ł"}),
        ("names: ['it''s']", {0: "it's"}),
        ("names: {0: cat, 7: 'a, b'}", {0: "cat", 7: "a, b"}),
        ("names: [a,\n  b,\n]\nnc: 2", {0: "a", 1: "b"}),
        ("\ufeffnames: [a]\r\nroboflow:\r\n  names: x\r\n", {0: "a"}),
    ],
)
def test_class_names(tmp_path: Path, text: str, names: dict[int, str]) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text, encoding="utf-8")
    found = read_class_names(file)
    assert dict(zip(found.category_ids, found.names, strict=True)) == names


@pytest.mark.parametrize(
    "text",
    ["", "nc: 1", "names:", "names: []", "names: cat", "names: [a, [b]]", "names: {0: a, b}"]
    + [
        "names:\n  cat: 0",
        "names: &x [a]",
        "names: ['a', 'b'",
        "names: " + "[" * 9999,
        "\x00: \x01",
    ],
)
def test_class_names_that_are_not_understood(tmp_path: Path, text: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"data\.yaml: .*names") as caught:
        read_class_names(file)
    assert "\n" not in str(caught.value)


def test_folders_of_a_yaml_file(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("path: D:\\my data # there\ntrain: 'images/a b'\nval:\n")
    assert read_folders(file) == {"path": "D:\\my data", "train": "images/a b"}
    for value in ("[a, b]", "\n - a\n - b", "train.txt"):
        file.write_text(f"train: {value}")
        with pytest.raises(ValueError, match="expected one folder"):
            read_folders(file)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("9 0.1 0.1 0.5 0.1 0.5 0.5", "a class number without a name"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.7", "an x without its y"),
        ("0 10 10 50 10 50 30", "coordinates in pixels"),
        ("0 0.1 nan 0.5 0.1 0.5 0.5", "not numbers"),
        ("0 0.1 1e999 0.5 0.1 0.5 0.5", "not numbers"),
        ("nan 0.1 0.1 0.5 0.1 0.5 0.5", "not numbers"),
        ("cat 0.1 0.1 0.5 0.1 0.5 0.5", "not numbers"),
        ("0", "fewer than three points"),
        ("0 0.1 0.2", "fewer than three points"),
    ],
)
def test_lines_of_yolo_that_are_left_out(
    tmp_path: Path, line: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "images" / "train")
    write_yolo(two_images(), tmp_path)
    file = tmp_path / "labels" / "train" / "b.txt"
    file.write_text(f"{file.read_text()}\n\n{line}\n")
    content, (problem,) = read_yolo(tmp_path / "images" / "train", tmp_path / "data.yaml")
    assert what in problem.what
    assert problem.where == f"{file}, line 4"
    assert len(content["annotations"]) == 3
    opened(tmp_path, "train")
    assert f"{what} (1)" in caplog.text


def test_images_and_labels_of_yolo_that_do_not_belong_together(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images" / "train", ("a.png", "b.png", "c.png"))
    write_yolo(two_images(), tmp_path)
    labels = tmp_path / "labels" / "train"
    (images / "d.jpg").write_text("no image")
    (labels / "e.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5")
    (labels / "b.txt").write_bytes(b"\xff\xfe\x00")
    (labels / "a.txt").write_text((labels / "a.txt").read_text() + "\n0 0.5")
    content, problems = read_yolo(images, tmp_path / "data.yaml")
    assert [image["file_name"] for image in content["images"]] == ["a.png", "c.png"]
    assert [problem.what for problem in problems] == [
        "an x without its y",
        "labels that are no text",
        "an image that cannot be read",
        "labels without an image",
    ]


def test_byte_order_marks_and_hidden_files(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images" / "train", ("a.png", "b.png", ".c.png"))
    write_yolo(two_images(), tmp_path)
    for file in (tmp_path / "labels" / "train").glob("*.txt"):
        file.write_text(file.read_text(), encoding="utf-8-sig")
    content, problems = read_yolo(images, tmp_path / "data.yaml")
    assert not problems
    assert [image["file_name"] for image in content["images"]] == ["a.png", "b.png"]
    assert len(content["annotations"]) == 3


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.5 0.5 0.2 0.5", [24, 10, 12, 20]),
        ("0 0.5 0.5 0.2 0.5 0.9", [24, 10, 12, 20]),  # with a score
        ("0 0 0.5 0.2 1", [0, 0, 6, 40]),
    ],
)
def test_boxes_alone(tmp_path: Path, line: str, box: list[float]) -> None:
    write_images(tmp_path / "images" / "train")
    write_yolo(two_images(), tmp_path)
    (tmp_path / "labels" / "train" / "b.txt").write_text(f"{line}\n")
    dataset = opened(tmp_path, "train")
    assert len(dataset) == 2
    assert dataset.counts().boxes_only == 1
    (part,) = dataset.annotations(1)
    assert part["segmentation"] == []
    assert part["bbox"] == pytest.approx(box)


def test_an_image_of_lines_that_cannot_be_used_is_no_negative(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images" / "train")
    write_yolo(two_images(), tmp_path)
    (tmp_path / "labels" / "train" / "b.txt").write_text("0 0.5 0.5\n")
    content, problems = read_yolo(images, tmp_path / "data.yaml")
    assert [image["file_name"] for image in content["images"]] == ["a.png"]
    assert len(problems) == 1
