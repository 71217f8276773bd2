from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from data.annotations.locate import ImageFinder
from data.problems import Unusable

MISSING, AMBIGUOUS = "a missing image", "an image that could be several files"

# Files, separated by |, image folder and annotation file, a name in the latter, the file that is
# meant, the first one unless given.
FOUND = {
    "beside": ("a.png", ". a.json", "a.png", ""),
    "by the rest of a path": ("images/a.png", "images a.json", "images\\a.png", ""),
    "relative to the file": ("pics/a.png", "images a.json", "pics/a.png", ""),
    "dots": ("images/a.png", "labels labels/a.json", "../images/a.png", ""),
    "a dot": ("images/a.png", "images a.json", "./a.png", ""),
    "above": ("val/a.png", "val annotations/a.json", "val/a.png", ""),
    "the image folder first": ("a.png|images/a.png", "images a.json", "a.png", "images/a.png"),
    "quoted": ("my photo.png", ". a.json", "my%20photo.png", ""),
    "not quoted": ("my%20a.png|my a.png", ". a.json", "my%20a.png", ""),
    "quoted in a form": ("my photo.png", ". a.json", "my+photo.png", ""),
    "a plus": ("my+photo.png|my photo.png", ". a.json", "my+photo.png", ""),
    "blanks": ("a.png", ". a.json", " a.png\n", ""),
    "quoted slash": ("images/b c.png", ". a.json", "images%5Cb%20c.png", ""),
    "an upload": ("images/ab0-a.png", "images a.json", "/data/upload/3/ab0-a.png", ""),
    "an upload, renamed": ("images/a.png", "images a.json", "/data/upload/3/0a1b2c3d-a.png", ""),
    "an upload with a blank": ("my photo (2).png", ". a.json", "0a1b2c3d-my_photo_2.png", ""),
    "an upload with signs": ("a&b #4 100%.png", ". a.json", "/data/x/0a1b2c3d-ab_4_100.png", ""),
    "an upload with accents": (
        "Gro\u0308\xdfe 1.png",
        ". a.json",
        "0a1b2c3d-Gr%C3%B6%C3%9Fe_1.png",
        "",
    ),
    "an upload that lost them": ("Gro\u0308e 1.png", ". a.json", "0a1b2c3d-Groe_1.png", ""),
    "local files": (
        "images/s 1/a.png",
        "images a.json",
        "/data/local-files/?d=proj/s%201/a.png",
        "",
    ),
    "local files of Windows": ("s/a.png", ". a.json", "/data/local-files/?d=s%5Ca.png", ""),
    "a file address": ("images/a b.png", "images a.json", "file:///home/x/images/a%20b.png", ""),
    "a web address": ("a.png", ". a.json", "https://host:80/data/upload/a.png?token=1", ""),
    "a bucket": ("s/a.png", ". a.json", "s3://bucket/s/a.png", ""),
    "Windows": ("images/a.png", "images a.json", "C:\\Users\\me\\images\\a.png", ""),
    "another machine": ("train/images/a.png", ". a.json", "/home/me/train/a.png", ""),
    "case": ("IMG_1.JPG", ". a.json", "img_1.jpg", ""),
    "case that matters": ("a.JPG|a.jpg", ". a.json", "x/a.jpg", "a.jpg"),
    "accents": ("e\u0301.png", ". a.json", "\xe9.png", ""),
    "deeper": ("photos/day 1/a.png", "annotations annotations/a.json", "a.png", ""),
    "the folder that is named": (
        "d1/images/a.png|d2/images/a.png",
        ". a.json",
        "proj/d2/a.png",
        "d2/images/a.png",
    ),
    "a folder that is gone": ("imgs/a.png", ". a.json", "images/a.png", ""),
    "an archive of Windows": ("images\\a.png", ". a.xml", "a.png", ""),
    "a deep one": ("d1\\i\\a.png|d2\\i\\a.png", ". a.xml", "d2/i/a.png", "d2\\i\\a.png"),
    "a question mark": ("what?.png", ". a.json", "what?.png", ""),
    "a hash": ("a#1.png", ". a.json", "x/a#1.png", ""),
}

# As before, but for what is said instead.
REFUSED = {
    "missing": ("b.png", ". a.json", "a.png", MISSING),
    "another split": ("train/b.png|val/a.png", "train annotations/a.json", "a.png", MISSING),
    "another folder": ("s1/b.png|s2/a.png", ". a.json", "s1/a.png", MISSING),
    "two": ("s1/a.png|s2/a.png", ". a.json", "a.png", AMBIGUOUS),
    "two of one end": ("s1/i/a.png|s2/i/a.png", ". a.json", "x/i/a.png", AMBIGUOUS),
    "two cases": ("IMG.png|Img.png", ". a.json", "img.png", AMBIGUOUS),
    "two places": ("a/c/b.png|a/b.png", "a/images a/c/a.json", "b.png", AMBIGUOUS),
    "an upload of two": ("a b.png|a_b.png", ". a.json", "0a1b2c3d-a_b.png", AMBIGUOUS),
    "no upload": ("my photo.png", ". a.json", "my_photo.png", MISSING),
    "two of Windows": ("d1\\a.png|d2\\a.png", ". a.xml", "a.png", AMBIGUOUS),
    "outside": ("b.png|../up.png", ". a.json", "../up.png", MISSING),
    "absolute outside": ("b.png|../up.png", ". a.json", "{top}/up.png", MISSING),
    "deep outside": ("b.png|../up.png", ". a.json", "x/../../up.png", MISSING),
    "quoted outside": ("b.png|../up.png", ". a.json", "%2e%2e/up.png", MISSING),
    "backslashed outside": ("b.png|../up.png", ". a.json", "..\\up.png", MISSING),
    "zero": ("b.png", ". a.json", "a\x00.png", MISSING),
    "long": ("b.png", ". a.json", "a" * 5000, MISSING),
    "half an address": ("b.png", ". a.json", "http://[a.png", MISSING),
    "a half letter": ("b.png", ". a.json", "\ud800/a.png", MISSING),
    "nothing": ("b.png", ". a.json", "", MISSING),
    "a folder": ("images/b.png", ". a.json", "images", MISSING),
}


def finder(top: Path, files: str, folders: str) -> ImageFinder:
    folder, annotations = folders.split()
    for name in [annotations, *filter(None, files.split("|"))]:
        path = top / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (top / "data" / folder).mkdir(parents=True, exist_ok=True)
    return ImageFinder(top / "data" / folder, top / "data" / annotations)


@pytest.mark.parametrize(("files", "folders", "name", "expected"), FOUND.values(), ids=FOUND)
def test_an_image_is_found(
    tmp_path: Path, files: str, folders: str, name: str, expected: str
) -> None:
    found = finder(tmp_path, files, folders)
    meant = tmp_path / "data" / (expected or files.split("|")[0])
    assert found.find(name) == meant
    (relative,) = found.find_all([name])
    assert isinstance(relative, str)
    assert (tmp_path / "data" / folders.split()[0] / relative).samefile(meant)


@pytest.mark.parametrize(("files", "folders", "name", "expected"), REFUSED.values(), ids=REFUSED)
def test_nothing_else_is_taken_for_it(
    tmp_path: Path, files: str, folders: str, name: str, expected: str
) -> None:
    found = finder(tmp_path, files, folders)
    with pytest.raises(Unusable, match=expected):
        found.find(name.format(top=tmp_path))
    (problem,) = found.find_all([name.format(top=tmp_path)])
    assert isinstance(problem, Unusable)
    assert problem.what == expected


def test_both_candidates_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unusable) as refused:
        finder(tmp_path, "s1/a.png|s2/a.png", ". a.json").find("a.png")
    assert str(tmp_path / "data/s1/a.png") in refused.value.mend
    assert str(tmp_path / "data/s2/a.png") in refused.value.mend


def test_the_name_of_a_missing_upload_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unusable) as refused:
        finder(tmp_path, "b.png", ". a.json").find("/data/upload/1/0a1b2c3d-my_photo.png")
    assert refused.value.mend.startswith(f"put my_photo.png into {tmp_path}/data, or")


def test_what_lies_outside_is_told(tmp_path: Path) -> None:
    found = finder(tmp_path, "b.png|../up.png", ". a.json")
    for name, told in (("../up.png", True), (f"{tmp_path}/up.png", True), ("gone.png", False)):
        with pytest.raises(Unusable) as refused:
            found.find(name)
        assert (f"it is not below {tmp_path}/data: put it into" in refused.value.mend) == told


@pytest.mark.parametrize(
    "name",
    [
        "\\\\other\\share\\a.png",
        "//other/share/a.png",
        "%5C%5Cother%5Cshare%5Ca.png",
        "/data/?d=//other/a.png",
    ],
)
def test_no_other_machine_is_asked(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, a path of two slashes at its start would send it the name of the user."""
    asked: list[str] = []
    for function in ("scandir", "stat", "lstat"):
        real = getattr(os, function)

        def listen(path: object = ".", *rest: object, real: Any = real, **more: object) -> Any:
            asked.append(str(path))
            return real(path, *rest, **more)

        monkeypatch.setattr(os, function, listen)
    with pytest.raises(Unusable, match="a missing image"):
        finder(tmp_path, "b.png", ". a.json").find(name)
    assert asked and not [path for path in asked if path.startswith("//")]


def test_no_names(tmp_path: Path) -> None:
    assert finder(tmp_path, "", ". a.json").find_all([]) == []
    assert ImageFinder(tmp_path / "gone", tmp_path / "gone.json").find_all([]) == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png", "gone/a.png"], ["a.png", None]),  # the second only ends like it
        (["one/a.png", "two/a.png"], [None, None]),
        (["one/a.png", "one/a.png"], ["a.png", "a.png"]),  # of one image, twice
    ],
)
def test_one_file_is_not_taken_for_two_names(
    tmp_path: Path, names: list[str], expected: list[str | None]
) -> None:
    found = finder(tmp_path, "a.png", ". a.json").find_all(names)
    assert [each if isinstance(each, str) else None for each in found] == expected


def test_links_are_followed_only_where_the_user_put_them(tmp_path: Path) -> None:
    found = finder(tmp_path, "images/b.png", "images a.json")
    outside = tmp_path / "cache" / "a.png"
    outside.parent.mkdir()
    outside.touch()
    (tmp_path / "data/other").symlink_to(outside.parent)
    (tmp_path / "data/c.png").symlink_to(outside)
    (tmp_path / "data/images/d.png").symlink_to(outside)
    for name in ("other/a.png", "a.png", "c.png", "../c.png"):
        with pytest.raises(Unusable, match="a missing image"):
            found.find(name)
    assert ImageFinder(tmp_path / "data/images", tmp_path / "data/a.json").find("d.png")


def test_a_linked_image_folder_is_the_users_choice(tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    (elsewhere / "a.png").touch()
    finder(tmp_path, "", ". a.json")
    (tmp_path / "data/images").symlink_to(elsewhere)
    found = ImageFinder(tmp_path / "data/images", tmp_path / "data/a.json")
    assert found.find_all(["a.png", "x/A.PNG"])[0] == "a.png"
    assert found.find("images\\a.png") == tmp_path / "data/images/a.png"
