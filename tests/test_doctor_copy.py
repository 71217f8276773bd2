"""The mended copy of a dataset, as `yolact check` writes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import pytest
from support.planted_faults import (
    HW,
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

from data.catalog import open_dataset
from data.checks.dataset import check_dataset
from data.images import read_image
from yolact.doctor.mend import write_mended


def tree(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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
        "annotations with an empty box": 1,
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


def test_doubles_are_found_in_each_class(tmp_path: Path) -> None:
    """Between an object and its double another class may stand."""
    annotations = content(1)
    place = boxes_of(1)[0][1]
    annotations["annotations"] = [
        part(number, 1, label, place) for number, label in ((1, RED), (2, RED + 1), (3, RED + 1))
    ]
    counts = write_mended(opened(write(tmp_path / "data", annotations)), tmp_path / "mended")
    assert counts["train"]["objects that were annotated twice"] == 1
    assert check_dataset(str(tmp_path / "mended")) == {"train": []}


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


@pytest.mark.parametrize("bare", ["train", "val"])
def test_of_copies_the_labelled_one_stays(tmp_path: Path, bare: str) -> None:
    folder = write(write(tmp_path / "data", content()), content(2), "val")
    (folder / "val" / "1.png").write_bytes((folder / "train" / "1.png").read_bytes())
    file = folder / "annotations" / f"instances_{bare}.json"
    annotations = json.loads(file.read_text())
    entries = annotations["annotations"]
    annotations["annotations"] = [entry for entry in entries if entry["image_id"] != 1]
    file.write_text(json.dumps(annotations))
    write_mended(opened(folder), tmp_path / "mended")
    for split in ("train", "val"):
        text = (tmp_path / f"mended/annotations/instances_{split}.json").read_text()
        images = {entry["id"] for entry in json.loads(text)["images"]}
        assert (1 in images) == (split != bare), split
        assert (1 in {part["image_id"] for part in json.loads(text)["annotations"]}) == (
            split != bare
        )


def test_classes_of_a_mended_copy_have_the_same_ids_in_both_splits(tmp_path: Path) -> None:
    other = content(2)
    for category in other["categories"]:
        category["id"] += 70
    for entry in other["annotations"]:
        entry["category_id"] += 70
    other["categories"].append({"id": 1, "name": "only here"})
    folder = write(write(tmp_path / "data", content()), other, "val")
    write_mended(opened(folder), tmp_path / "mended")
    train, val = (
        json.loads((tmp_path / f"mended/annotations/instances_{split}.json").read_text())
        for split in ("train", "val")
    )
    assert train["categories"] == val["categories"]
    assert {part["category_id"] for part in val["annotations"]} <= {
        part["category_id"] for part in train["annotations"]
    }


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
