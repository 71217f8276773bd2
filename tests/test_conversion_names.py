"""Classes and images of any name, written in every format and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.odd_masks import HW
from support.whole_datasets import masks_of, square, write_coco

from data.catalog import open_dataset, resolve_dataset
from data.conversion import WRITERS, convert_dataset

FORMATS = sorted(WRITERS)
AS_THEY_ARE = (
    *("with space", "a/b", "quote \"x\" 'y'", "comma, semi;", "ünïcødé 猫", "1", "2.5", "-1", "no"),
    *("null", "~", "- a", "a:b", "x::y", "back\\slash", "<tag>&amp;", "{x}", "%s", "cat#1"),
    *("a  b", "no\u00a0break", "Cat", "cat", "background", "# label", "void"),
)
CHANGED = {
    "line\nbreak": "line break",
    "carriage\r\nreturn": "carriage return",
    "sep\u2028arated": "sep arated",
    "next\x85line": "next line",
    "tab\tbed": "tab bed",
    " lead": "lead",
    "trail ": "trail",
}


def written(folder: Path, format: str, classes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Write an image with an object of each class; return their classes, and what was noted."""
    images = {
        f"{i:02}.png": (HW, [(name, [square(5, 5, 20 + i)])]) for i, name in enumerate(classes)
    }
    source = write_coco(folder / "in", {"": images}, classes)
    notes = convert_dataset(str(source), folder / "out", format)
    dataset = open_dataset(str(folder / "out"), "train")
    names = [name for found in masks_of(dataset).values() for name, *_ in found]
    assert set(dataset.categories.names) == set(names)
    return names, list(map(str, notes))


@pytest.mark.parametrize("format", FORMATS)
def test_names_that_stay(tmp_path: Path, format: str) -> None:
    assert written(tmp_path, format, AS_THEY_ARE) == (list(AS_THEY_ARE), [])


@pytest.mark.parametrize("format", FORMATS)
def test_names_that_only_json_holds(tmp_path: Path, format: str) -> None:
    """Where a class is a line, none moves to the next one, and every change is told."""
    classes = ("first", *CHANGED, "last")
    names, notes = written(tmp_path, format, classes)
    if format in ("coco", "panoptic"):
        assert (names, notes) == (list(classes), [])
        return
    assert names == ["first", *CHANGED.values(), "last"]
    assert len(notes) == len(CHANGED)
    what = "a class with a name that this format cannot hold"
    assert notes[0] == f"{what}: line?break; it is called line break now"


@pytest.mark.parametrize("classes", [("a b", "a\nb"), ("cat", "cat "), ("cat", ""), ("cat", " \n")])
def test_names_that_would_become_one(tmp_path: Path, classes: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="^class '.*': yolo would call it '.*', as no class or "):
        written(tmp_path, "yolo", classes)
    names, _ = written(tmp_path / "coco", "coco", classes)
    assert names == list(classes)


def test_two_classes_of_one_name_are_told(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "in", {"": {"a.png": (HW, [("cat", [square(5, 5, 20)])])}})
    listing = source / "annotations.json"
    listing.write_text(listing.read_text().replace('"dog"', '"cat"'))
    (told,) = convert_dataset(str(source), tmp_path / "out", "yolo")
    assert str(told) == "a class that is listed twice: cat; it is written once"
    assert open_dataset(str(tmp_path / "out"), "train").categories.names == ("cat", "unused")


FILES = (
    *("new\nline.png", "tab\t.png", " lead.png", "trail .png", "u\u2028.png", "no\u00a0break.png"),
    *(".hidden.png", "no_suffix", "\udcff\udcfe.png", "x%20y.png", "a:b.png", "{stem}.png"),
)


@pytest.mark.parametrize("format", FORMATS)
def test_images_of_any_name(tmp_path: Path, format: str) -> None:
    images = {f"{i}.png": (HW, [("cat", [square(5, 5, 20 + i)])]) for i in range(len(FILES))}
    source = write_coco(tmp_path / "in", {"": images})
    listing = source / "annotations.json"
    for number, name in reversed(list(enumerate(FILES))):
        (source / "images" / f"{number}.png").rename(source / "images" / name)
        escaped = name.encode("unicode_escape").decode().replace("\\x", "\\u00")
        listing.write_text(listing.read_text().replace(f'"{number}.png"', f'"{escaped}"'))
    before = list(masks_of(open_dataset(str(source), "train")).values())
    assert len(before) == len(FILES)
    assert convert_dataset(str(source), tmp_path / "out", format) == []
    after = masks_of(open_dataset(str(tmp_path / "out"), "train")).values()
    assert sorted(map(str, after)) == sorted(map(str, before))


@pytest.mark.parametrize("folder", ["train", "val", "test/x"])
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_not_split_stays_so(tmp_path: Path, format: str, folder: str) -> None:
    """Also if a folder in it is called like a split."""
    images = {name: (HW, [("cat", [square(5, 5, 20)])]) for name in ("a.png", f"{folder}/b.png")}
    source = write_coco(tmp_path / "in", {"": images})
    convert_dataset(str(source), tmp_path / "out", format)
    assert resolve_dataset(str(tmp_path / "out")).is_shared
    assert masks_of(open_dataset(str(tmp_path / "out"), "train")).keys() == {"a", "b"}


@pytest.mark.parametrize("format", FORMATS)
def test_half_a_character(tmp_path: Path, format: str) -> None:
    """JSON can hold one; no other file can, no font has it, and OpenCV crashes at it."""
    assert written(tmp_path, format, ("half \ud800", "cat")) == (["half ?", "cat"], [])
