"""What users give that is no dataset, or only nearly: each mistake gets one line with its mend."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from support.files_of_tools import cvat_entry, cvat_shape, polygon, task, write_cvat
from support.foreign_formats import two_images, write_images, write_labelme, write_via

from data.annotations.coco import CocoInstances
from data.catalog import Split, open_dataset
from data.checks.dataset import check_dataset
from data.checks.trainable import check_trainable
from data.options import DataOptions
from data.problems import Problem, reason_of
from yolact.doctor.findings import examine
from yolact.doctor.notices import names_alike

SPLITS: dict[Split, str] = {"train": "train", "val": "valid"}
SHAPE = cvat_shape("polygon", 'points="1,1;9,1;9,9"')


def said(folder: Path | str) -> str:
    """The error of opening a dataset, without the working folder."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        open_dataset(str(folder), "train")
    return str(error.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError(), "ValueError"),
        (ValueError("\nfirst\nsecond"), "first"),
        (FileNotFoundError(errno.ENOENT, "gone", "a.jpg"), "gone"),
        (OSError("unknown"), "unknown"),
        (OSError(errno.ENOSPC, "no space"), "disk full"),
    ],
)
def test_a_reason_is_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_an_empty_folder(tmp_path: Path) -> None:
    assert f"no annotations in {str(tmp_path)!r}: expected " in said(tmp_path)


def test_photographs_without_labels_are_counted(tmp_path: Path) -> None:
    write_images(tmp_path, ("a.png", "b.JPG"))
    assert f"{str(tmp_path)!r}, which has 2 images and nothing about them: " in said(tmp_path)


@pytest.mark.parametrize("name", ["labels.zip", "labels.ZIP", "labels.tar.gz", "labels.7z"])
def test_an_archive_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    archive = tmp_path / name
    archive.touch()
    assert said(archive) == f"{archive} is an archive: unpack it, and give the folder"
    assert said(tmp_path) == f"no annotations in {str(tmp_path)!r}: unpack {name} first"


@pytest.mark.parametrize("inside", ["export", "my photos"])
def test_the_folder_above_is_told(tmp_path: Path, inside: str) -> None:
    write_via(two_images(), write_images(tmp_path / inside))
    expected = f"no annotations in {str(tmp_path)!r}: did you mean {str(tmp_path / inside)!r}?"
    assert said(tmp_path) == expected


@pytest.mark.parametrize("below", ["images", "Images", "train"])
def test_the_folder_below_is_told(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cvat(tmp_path, cvat_entry("a.png", SHAPE))
    (tmp_path / below).mkdir()
    assert said(tmp_path / below).endswith(f": did you mean {str(tmp_path)!r}?")
    monkeypatch.chdir(tmp_path / below)
    assert said(".") == f"no annotations in '.': did you mean {str(tmp_path)!r}?"


@pytest.mark.parametrize("name", ["train\\a.txt", "images\\deep\\a.png"])
def test_an_archive_of_windows_without_annotations(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert said(tmp_path).endswith("so unpack it with another program")


def test_an_archive_of_windows_is_read_as_it_is(tmp_path: Path) -> None:
    for split, folder in SPLITS.items():
        content = two_images()
        for image in content["images"]:
            image["file_name"] = split + image["file_name"]
            write_images(tmp_path, (f"{folder}\\{image['file_name']}",))
        (tmp_path / f"{folder}\\_annotations.coco.json").write_text(json.dumps(content))
    for split, folder in SPLITS.items():
        data = open_dataset(str(tmp_path), split)
        found = [data.image_info(i)["file_name"] for i in range(2)]
        assert found == [f"{folder}\\{split}{name}.png" for name in "ab"]


@pytest.mark.parametrize("tool", ["cvat", "via", "label_studio", "labelme"])
@pytest.mark.parametrize("others", [0, 2])
def test_labels_without_their_images(tmp_path: Path, tool: str, others: int) -> None:
    """Also labels of another dataset."""
    write_images(tmp_path, ("c.png", "d.png")[:others])
    if tool == "cvat":
        write_cvat(tmp_path, cvat_entry("a.png", SHAPE), cvat_entry("b.png", SHAPE))
    elif tool == "via":
        write_via(two_images(), tmp_path)
    elif tool == "labelme":
        write_labelme(two_images(), tmp_path)
    else:
        tasks = [task([polygon()], f"/data/upload/1/0a1b2c3d-{name}.png") for name in "ab"]
        (tmp_path / "project.json").write_text(json.dumps(tasks))
    line = said(tmp_path)
    assert "nothing can be used: a missing image (2), such as " in line
    what = "a.png" if tool == "label_studio" else "it"
    assert line.endswith(f"; put {what} into {tmp_path}, or delete its entry")
    (problem,) = check_dataset(str(tmp_path))["train"]
    assert problem.what == "annotations that cannot be read"
    assert problem.mend == f"put {what} into {tmp_path}, or delete its entry"


@pytest.mark.parametrize("tool", ["cvat", "labelme", "label_studio"])
def test_an_image_too_large_to_be_read(tmp_path: Path, tool: str) -> None:
    write_images(tmp_path, ("a.png",))
    if tool == "cvat":
        entry = '<image id="0" name="a.png" width="16000" height="12000">' + SHAPE + "</image>"
        write_cvat(tmp_path, entry)
    elif tool == "labelme":
        size = {"imageHeight": 12000, "imageWidth": 16000}
        content = {"shapes": [{"label": "cat", "points": [[0, 0], [9, 0], [9, 9]]}], **size}
        (tmp_path / "a.json").write_text(json.dumps(content))
    else:
        shape = polygon() | {"original_height": 12000, "original_width": 16000}
        (tmp_path / "p.json").write_text(json.dumps([task([shape])]))
    line = said(tmp_path)
    assert "an image of impossible size (1)" in line
    assert "16000 x 12000, but at most 178,000,000 pixels are read: cut it into parts, or" in line


@pytest.mark.parametrize(
    ("error", "where", "mend"),
    [
        ("", "", "mend it"),
        ("broken", "broken", "mend it"),
        ("a; b.json is broken; close it", "a; b.json is broken", "close it"),
    ],
)
def test_what_to_do_is_kept(error: str, where: str, mend: str) -> None:
    found = Problem.of_error("a file", ValueError(error), "mend it")
    assert (found.where, found.mend) == (where, mend)


def test_one_image_cannot_be_shared(tmp_path: Path) -> None:
    write_labelme(two_images(), write_images(tmp_path))
    (tmp_path / "b.json").unlink()
    data = open_dataset(str(tmp_path), "val", options=DataOptions(val="0.2"))
    assert isinstance(data, CocoInstances)
    (problem,) = check_trainable(data, "val")
    assert str(problem) == "not one object to learn: val, which has no image; label more images"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), []),
        (("person", "dog", "hot dog", "cat"), []),
        (("person", "Person", "dog"), ["'person', 'Person'"]),
        (("a b", "a", "a_b", "AB"), ["'a b', 'a_b', 'AB'"]),
        (("Größe", "GRÖSSE", "+", "-", "++"), ["'Größe', 'GRÖSSE'"]),
    ],
)
def test_classes_that_may_be_one(names: tuple[str, ...], expected: list[str]) -> None:
    assert [notice.where for notice in names_alike(names)] == expected


def test_classes_that_may_be_one_are_told(tmp_path: Path) -> None:
    content = two_images()
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "Cat"}]
    write_labelme(content, write_images(tmp_path))
    data = open_dataset(str(tmp_path), "train")
    notices = examine("mine", {"train": data}, {}, 550).notices["train"]
    assert "classes of nearly the same name" in [notice.what for notice in notices]
