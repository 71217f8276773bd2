from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.foreign_formats import (
    HW,
    opened,
    two_images,
    write_images,
    write_yolo,
)

from data.catalog import Split
from data.checks.dataset import check_dataset
from data.formats.data_yaml import MAX_BYTES, read_class_names, read_places
from data.formats.yolo import FROM_ONE, read_yolo
from yolact.doctor.findings import examine

# Twenty lists, each of nine times the one before: 10^19 texts.
LAUGHS = "y0: &y0 [ha]\n" + "".join(
    f"y{i}: &y{i} [{', '.join([f'*y{i - 1}'] * 9)}]\n" for i in range(1, 20)
)


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
        ("names: &x [no, 1.0, ~]\nname: 1", {0: "no", 1: "1.0", 2: "~"}),
        ("a: &a cat\nb: &b [*a, *a]\nnames: *b", {0: "cat", 1: "cat"}),
        (LAUGHS + "names: [cat]", {0: "cat"}),
        ("names: !!python/object/apply:os.system ['exit 1']", {0: "exit 1"}),
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
        LAUGHS + "names: *y19",
        "names: &x [*x]",
        "names: {cat: 0}",
        "names: [a, '']",
        "names:\n\t- a",
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


@pytest.mark.parametrize("text", ["[" * 51, "{[" * 9999, "names: [a, " + "{b: " * 60 + "}" * 60])
def test_brackets_in_brackets(tmp_path: Path, text: str) -> None:
    """Each took the parser longer than the one around it, until Python's recursion ended it."""
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"data\.yaml: no YAML .*: lists in lists, more than 50"):
        read_class_names(tmp_path / "data.yaml")


@pytest.mark.parametrize(
    ("text", "root", "splits"),
    [
        ("names: [a]", "", {}),
        ("train:\nval: ~\ntest: x\n", "", {}),
        (
            "path: D:\\my data # there\ntrain: 'images/a b'\nval:\n",
            "D:\\my data",
            {"train": ["images/a b"]},
        ),
        ("train: [a, b]\nvalid: c", "", {"train": ["a", "b"], "val": ["c"]}),
        (
            "train: # 3 images\n  - a\n  - b\nval: l.txt",
            "",
            {"train": ["a", "b"], "val": ["l.txt"]},
        ),
        ("train: a\ndownload: |\n  train: b\n  raise SystemExit", "", {"train": ["a"]}),
    ],
)
def test_places_of_a_yaml_file(
    tmp_path: Path, text: str, root: str, splits: dict[str, list[str]]
) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    assert read_places(file) == (root, splits)


@pytest.mark.parametrize("value", ["{a: b}", "[[a]]", "\n - a: b"])
def test_places_that_are_not_understood(tmp_path: Path, value: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(f"train: {value}")
    with pytest.raises(ValueError, match="train: expected a folder as in images/train, or a list"):
        read_places(file)


def test_a_yaml_file_without_end(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("names: [a]\n" + "#" * MAX_BYTES)
    with pytest.raises(ValueError, match="more than 1048576 bytes"):
        read_class_names(file)


def yolo_of(folder: Path, yaml: str, places: tuple[str, ...]) -> Path:
    """Two images, with three objects, in each folder of images, and a dataset file."""
    for place in places:
        labels = folder / place.replace("images", "labels")
        labels.mkdir(parents=True)
        (labels / "a.txt").write_text(LINE)
        (labels / "b.txt").write_text(LINE * 2)
        write_images(folder / place)
    (folder / "data.yaml").write_text(f"names: [leaf]\n{yaml}")
    return folder


def count(folder: Path, split: Split) -> tuple[int, int]:
    dataset = opened(folder, split)
    for index in range(len(dataset)):
        assert dataset.sample(index).image.shape == (*HW, 3)
    return len(dataset), sum(len(dataset.annotations(i)) for i in range(len(dataset)))


LINE = "0 0.1 0.1 0.5 0.1 0.5 0.5\n"
TRAIN, VAL, EXTRA = "images/train", "images/val", "images/extra"


@pytest.mark.parametrize(
    ("yaml", "places", "train", "val"),
    [
        ("train: images/train\nval: images/val", (TRAIN, VAL), (2, 3), (2, 3)),
        (
            "path: .\ntrain:\n- images/train\n- images/val\nval: images/val",
            (TRAIN, VAL),
            (4, 6),
            (2, 3),
        ),
        (
            "train: [images/train, images/extra]\nval: [images/val]",
            (TRAIN, VAL, EXTRA),
            (4, 6),
            (2, 3),
        ),
        (
            "train: [images/train, images/train]\nvalidation: images/val",
            (TRAIN, VAL),
            (2, 3),
            (2, 3),
        ),
        (
            "path: ../datasets/leaf8\ntrain: images/train\nval: images/val",
            (TRAIN, VAL),
            (2, 3),
            (2, 3),
        ),
        (
            "train: ../train/images\nval: ../valid/images",
            ("train/images", "valid/images"),
            (2, 3),
            (2, 3),
        ),
        ("train: C:\\me\\images\\train\nval: /me/images/val", (TRAIN, VAL), (2, 3), (2, 3)),
        ("train: .\nval: .", ("a/images", "b/images"), (4, 6), (4, 6)),
    ],
)
def test_where_a_yaml_file_finds_its_images(
    tmp_path: Path, yaml: str, places: tuple[str, ...], train: tuple[int, int], val: tuple[int, int]
) -> None:
    folder = yolo_of(tmp_path / "mine", yaml, places)
    assert (count(folder, "train"), count(folder, "val")) == (train, val)


@pytest.mark.parametrize("place", ["datasets/leaf8", "../datasets/leaf8"])
def test_a_dataset_beside_its_yaml_file(tmp_path: Path, place: str) -> None:
    beside = tmp_path / "project"
    folder = yolo_of(beside / place, "", (TRAIN, VAL))
    (folder / "data.yaml").unlink()
    file = beside / "leaf8.yaml"
    file.write_text("path: leaf8\ntrain: images/train\nval: images/val\nnames: {0: leaf}")
    assert (count(file, "train"), count(file, "val")) == ((2, 3), (2, 3))


@pytest.mark.parametrize(
    "lines",
    [
        "./images/train/a.png\n./images/extra/b.png\n",
        "images\\train\\a.png\r\nimages\\extra\\b.png",
        "{root}/images/train/a.png\n\n{root}/images/extra/b.png",
        "/elsewhere/mine/images/train/a.png\nD:\\mine\\images\\extra\\b.png",
        "data/images/train/a.png\ndata/images/extra/b.png",  # as CVAT writes it
        "../mine/images/train/a.png\n../../../images/extra/b.png\nimages/train/a.png",
    ],
)
@pytest.mark.parametrize("listing", ["train.txt", "images/listed.txt"])
def test_a_list_of_images(tmp_path: Path, lines: str, listing: str) -> None:
    folder = tmp_path / "mine"
    yolo_of(folder, f"path: .\ntrain: {listing}\nval: images/val", (TRAIN, VAL, EXTRA))
    (folder / listing).write_text(lines.format(root=folder))
    assert (count(folder, "train"), count(folder, "val")) == ((2, 3), (2, 3))


def test_a_list_names_no_image_outside_the_dataset(tmp_path: Path) -> None:
    write_images(tmp_path / "secret", ("s.png", "t.png"))
    folder = yolo_of(tmp_path / "mine", "train: train.txt", (TRAIN,))
    own = ["images/train/a.png", "images/train/b.png"]
    (folder / "train.txt").write_text("\n".join(["../secret/s.png", *own, "gone.png"]))
    content, problems = read_yolo(folder, folder / "data.yaml", "train")
    assert [image["file_name"] for image in content["images"]] == own
    assert [problem.what for problem in problems] == ["a missing image"] * 2
    names = [*own, str(tmp_path / "secret/t.png"), "gone.png", "lost.png"]
    (folder / "train.txt").write_text("\n".join(names))
    with pytest.raises(ValueError, match="3 of 5 images are missing"):
        read_yolo(folder, folder / "data.yaml", "train")


@pytest.mark.parametrize(
    "yaml",
    [
        "train: images/trian\nval: images/val",
        "train: images/train\nval: images/valid",
        "train: [images/train, images/trian]\nval: images/val",
        "path: ../elsewhere\ntrain: images/train\nval: lost/val",
        "train: images/train\nval: val.txt",
    ],
)
def test_a_split_that_is_not_there(tmp_path: Path, yaml: str) -> None:
    folder = yolo_of(tmp_path, yaml, (TRAIN, VAL))
    with pytest.raises(ValueError, match="(train|val): no such folder or list of images: /"):
        check_dataset(str(folder))


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
        "a line that is not numbers",
        "an image that cannot be read",
        "labels without an image",
        "images without a label file",
    ]


@pytest.mark.parametrize(
    ("images", "labels", "suffix"),
    [
        ("images/train", "labels/train", ".TXT"),
        ("Images/train", "Labels/train", ".txt"),
        ("train/IMAGES", "train/LABELS", ".TXT"),
    ],
)
def test_names_of_systems_that_ignore_case(
    tmp_path: Path, images: str, labels: str, suffix: str
) -> None:
    """No image becomes a negative, since its text file is called otherwise."""
    write_images(tmp_path / images)
    (tmp_path / labels).mkdir(parents=True)
    for name, lines in (("a", 1), ("b", 2), ("gone", 1)):
        (tmp_path / labels / f"{name}{suffix}").write_text(LINE * lines)
    (tmp_path / "data.yaml").write_text(f"names: [leaf]\ntrain: {images}\n")
    assert count(tmp_path, "train") == (2, 3)
    assert [each.what for each in check_dataset(str(tmp_path))["train"]][:1] == [
        "labels without an image"
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


def labelled(folder: Path, *texts: str | None, names: str = "[leaf, stem]") -> Path:
    """An image for each text file, None for an image without one."""
    images = [f"{number}.png" for number in range(len(texts))]
    write_images(folder / "images", tuple(images))
    (folder / "labels").mkdir()
    for number, text in enumerate(texts):
        if text is not None:
            (folder / "labels" / f"{number}.txt").write_text(text)
    (folder / "data.yaml").write_text(f"names: {names}\ntrain: images\n")
    return folder


def lines(*labels: int) -> str:
    return "".join(f"{label} 0.1 0.1 0.5 0.1 0.5 0.5\n" for label in labels)


SHORT = "0 0.1 0.1 0.2 0.2\n"


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ((lines(0), "", ""), ""),
        ((lines(0), None, None), "images without a label file: 2 of 3, such as .*1.png; they are"),
        ((lines(*[0] * 20) + SHORT,), "a few boxes among polygons: 1 of 21 objects, such as .*21;"),
        ((lines(*[0] * 8) + SHORT,), ""),
        ((SHORT,), ""),
    ],
)
def test_what_deserves_a_look(tmp_path: Path, texts: tuple[str | None, ...], told: str) -> None:
    folder = labelled(tmp_path, *texts)
    _, found = read_yolo(folder / "images", folder / "data.yaml")
    assert all(problem.is_notice for problem in found)
    assert [bool(re.match(told, str(problem))) for problem in found] == [True] * bool(told)


@pytest.mark.parametrize(
    ("labels", "is_shifted"),
    [((1, 2, 2), True), ((2,), True), ((0, 1, 2), False), ((1,), False), ((1, 3), False)],
)
def test_numbers_that_begin_at_1(
    tmp_path: Path, labels: tuple[int, ...], is_shifted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = labelled(tmp_path, lines(*labels, *[1] * (1 in labels)))
    if labels == (2,):
        with pytest.raises(ValueError, match="begin at 1.*; YOLO counts from 0: subtract 1"):
            read_yolo(folder / "images", folder / "data.yaml")
        return
    _, found = read_yolo(folder / "images", folder / "data.yaml")
    assert any(problem.what == FROM_ONE for problem in found) == is_shifted
    assert all("name it in" not in problem.mend for problem in found) or not is_shifted
    dataset = opened(folder, "train")
    notices = examine("mine", {"train": dataset}, {"train": found}, 550).notices["train"]
    is_taken_out = any("take it out" in notice.mend for notice in notices)
    assert is_taken_out == (0 not in labels and not is_shifted)


def test_labels_at_another_place(tmp_path: Path) -> None:
    write_images(tmp_path / "images/train")
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text("names: [leaf]\ntrain: images/train\n")
    where = "no image has a label file: .*a.png has no .*a.txt"
    with pytest.raises(ValueError, match=f"{where}$"):
        opened(tmp_path, "train")
    (tmp_path / "labels" / "a.txt").write_text(LINE)
    with pytest.raises(ValueError, match=f"{where}; .*labels/a.txt lies elsewhere: move"):
        opened(tmp_path, "train")


def test_a_last_number_that_is_a_score(tmp_path: Path) -> None:
    folder = labelled(tmp_path, lines(0), "0 0.1 0.1 0.5 0.1 0.5 0.5 0.93\n")
    _, (problem,) = read_yolo(folder / "images", folder / "data.yaml")
    assert "or is the last number a score?" in problem.mend
