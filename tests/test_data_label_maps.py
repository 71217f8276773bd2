"""Formats whose masks are pictures, as their own tools write them."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage
from support.files_of_tools import LEFT, RIGHT, as_bytes, objects, save, segment, write_sam
from support.foreign_formats import DISC, HW, opened, write_images

from data.annotations import run_lengths
from data.catalog import resolve_dataset
from data.formats.label_maps.ids import ids_of_colours
from data.formats.label_maps.numbered import read_numbered
from data.formats.label_maps.pngs import read_pngs
from data.formats.label_maps.voc import colour_map, read_voc
from data.formats.recognise import read_split
from data.formats.sam import read_sam

VOID = 255


def write_voc(root: Path, name: str, classes: NDArray[Any], ids: NDArray[Any]) -> None:
    save(root / "SegmentationClass" / f"{name}.png", classes, palette=True)
    save(root / "SegmentationObject" / f"{name}.png", ids, palette=True)


def test_the_colours_of_voc() -> None:
    assert colour_map()[[0, 1, 2, 15, 20, 255]].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192]),
    ]


def test_voc_without_objects(tmp_path: Path) -> None:
    write_images(tmp_path / "JPEGImages", ("a.png",))
    write_voc(tmp_path, "a", np.zeros(HW), np.zeros(HW))
    with pytest.raises(ValueError, match="there are no objects"):
        read_voc(tmp_path / "JPEGImages", tmp_path)


@pytest.mark.parametrize("above", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_pascal_s_own_files(tmp_path: Path, above: str) -> None:
    """Void lines around objects are nothing, a void area is a crowd of every class."""
    root = tmp_path / above
    write_images(root / "JPEGImages", ("a.png", "b.png", "c.png"))
    ids = np.zeros(HW)
    ids[4:26, 2:21] = ids[9:39, 29:59] = VOID
    ids[LEFT], ids[RIGHT] = 1, 2
    classes = np.where(ids == 1, 15, np.where(ids == 2, 12, ids))
    write_voc(root, "a", classes, ids)
    crowd = np.zeros(HW, bool)
    crowd[20:40, 0:30] = True
    write_voc(root, "b", np.where(RIGHT, 15, crowd * VOID), np.where(RIGHT, 1, crowd * VOID))
    write_voc(root, "c", np.zeros(HW), np.zeros(HW))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, stems in (("train", "a\nc\n"), ("val", "b\n"), ("trainval", "a\nb\nc\n")):
        (lists / f"{name}.txt").write_text(stems)
    train = read_voc(root / "JPEGImages", lists / "train.txt")
    assert train.problems == []
    assert objects(train) == [("person", 1, 0, as_bytes(LEFT)), ("dog", 1, 0, as_bytes(RIGHT))]
    first, *crowds = objects(read_voc(root / "JPEGImages", lists / "val.txt"))
    assert first == ("person", 1, 0, as_bytes(RIGHT))
    assert len(crowds) == len({name for name, *_ in crowds}) == 20
    assert {rest for _, *rest in map(tuple, crowds) for rest in [tuple(rest)]} == {
        (1, 1, as_bytes(crowd & ~RIGHT))
    }
    assert len(opened(tmp_path, "train")) == 2
    assert [opened(tmp_path, "val").image_info(0)["file_name"]] == ["b.png"]


LABEL_MAP = """# label:color_rgb:parts:actions
background:0,0,0::
leaf: a:250,50,83::
stem:51,221,255::
"""


@pytest.mark.parametrize("has_colours", [True, False])
def test_cvat_s_segmentation_masks(tmp_path: Path, has_colours: bool) -> None:
    """Colours of the labels in labelmap.txt, and Pascal's for the objects, all of them RGB.

    Where labelmap.txt has no colours, those of the labels are Pascal's in their order, too.
    """
    text = LABEL_MAP if has_colours else re.sub(r":\d[\d,]+:", "::", LABEL_MAP)
    (tmp_path / "labelmap.txt").write_text(text)
    write_images(tmp_path / "JPEGImages", ("a.png",))
    classes, ids = np.zeros((*HW, 3), np.uint8), np.zeros((*HW, 3), np.uint8)
    stem, leaf = ((51, 221, 255), (250, 50, 83)) if has_colours else colour_map()[[2, 1]]
    classes[LEFT], classes[RIGHT] = stem, leaf
    ids[LEFT], ids[RIGHT] = colour_map()[[1, 2]]
    save(tmp_path / "SegmentationClass" / "a.png", classes)
    save(tmp_path / "SegmentationObject" / "a.png", ids)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("a\n")
    dataset = opened(tmp_path, "train")
    assert dataset.categories.names == ("leaf: a", "stem")
    found = objects(read_voc(tmp_path / "JPEGImages", lists / "default.txt"))
    assert sorted(found) == [("leaf: a", 1, 0, as_bytes(RIGHT)), ("stem", 1, 0, as_bytes(LEFT))]
    assert resolve_dataset(str(tmp_path)).is_shared


def test_voc_files_that_are_left_out(tmp_path: Path) -> None:
    names = [f"{letter}.png" for letter in "abcdef"]
    write_images(tmp_path / "JPEGImages", tuple(names))
    for name in "abcdef":
        write_voc(tmp_path, name, LEFT * 15, LEFT * 1)
    (tmp_path / "JPEGImages" / "b.png").unlink()
    (tmp_path / "SegmentationClass" / "c.png").unlink()
    save(tmp_path / "SegmentationObject" / "d.png", np.ones((3, 3)), palette=True)
    save(tmp_path / "SegmentationClass" / "e.png", np.zeros(HW), palette=True)
    (tmp_path / "SegmentationClass" / "f.png").write_bytes(b"\x89PNG")
    content, problems = read_voc(tmp_path / "JPEGImages", tmp_path)
    assert [image["file_name"] for image in content["images"]] == ["a.png"]
    assert [problem.what for problem in problems] == [
        "a missing image",
        "a missing mask",
        "a mask of another size than its image",
        "an object without a class",
        "an image that cannot be read",
    ]
    outside = tmp_path / "list.txt"
    outside.write_text("../../a\na\n")
    content, (problem,) = read_voc(tmp_path / "JPEGImages", outside)
    assert (len(content["images"]), problem.what) == (1, "a missing image")
    outside.write_text("../../a\n/etc/passwd\na\n")
    with pytest.raises(ValueError, match="2 of 3 images are missing"):
        read_voc(tmp_path / "JPEGImages", outside)


def test_a_mask_of_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs would fill the memory."""
    monkeypatch.setattr(run_lengths, "_MOST_RUNS", 100)
    write_images(tmp_path / "JPEGImages", ("a.png", "b.png"))
    write_voc(tmp_path, "a", LEFT * 15, LEFT * 1)
    write_voc(tmp_path, "b", LEFT * 15, np.random.default_rng(0).integers(0, 9, HW))
    content, (problem,) = read_voc(tmp_path / "JPEGImages", tmp_path)
    assert [image["file_name"] for image in content["images"]] == ["a.png"]
    assert problem.what == "a mask of noise"


@pytest.mark.parametrize("number", [-1, 255, 300, 2_000_000_000])
def test_numbers_that_are_no_class(tmp_path: Path, number: int) -> None:
    """A class that a TIFF gives, whose numbers are larger, is counted in no memory."""
    write_images(tmp_path / "JPEGImages", ("a.png", "b.png"))
    write_voc(tmp_path, "a", LEFT * 15, LEFT * 1)
    write_voc(tmp_path, "b", LEFT * 15, LEFT * 1)
    numbers = PilImage.fromarray((LEFT * number).astype(np.int32))
    numbers.save(tmp_path / "SegmentationClass" / "b.png", "TIFF")
    content, (problem,) = read_voc(tmp_path / "JPEGImages", tmp_path)
    assert [image["file_name"] for image in content["images"]] == ["a.png"]
    assert problem.what == "an object without a class"


@pytest.mark.parametrize("colour", ["", "1,2", "-1,2,3", "1e3,0,0", f"{10**30},0,0", "9" * 5000])
def test_colours_that_are_none(tmp_path: Path, colour: str) -> None:
    """Such a class has Pascal's colour of its number."""
    write_images(tmp_path / "JPEGImages", ("a.png",))
    write_voc(tmp_path, "a", LEFT * 1, LEFT * 1)
    (tmp_path / "labelmap.txt").write_text(f"background:0,0,0::\nleaf:{colour}::\n")
    content, _ = read_voc(tmp_path / "JPEGImages", tmp_path)
    assert [category["name"] for category in content["categories"]] == ["leaf"]


def test_numbers_of_colours_take_little_memory() -> None:
    """Twice the numbers themselves; all channels at once took eight times as much."""
    colours = np.full((1000, 1000, 4), (1, 2, 3, 255), np.uint8)
    tracemalloc.start()
    ids = ids_of_colours(colours)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (ids == 1 + 256 * 2 + 65536 * 3).all()
    assert peak < 2 * ids.nbytes


def write_cityscapes(folder: Path, split: str, city: str, ids: NDArray[Any]) -> None:
    stem = f"{city}_000000_000019"
    save(folder / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png", ids.astype(np.uint16))
    save(folder / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", ids.astype(np.uint8))
    write_images(folder / "leftImg8bit" / split / city, (f"{stem}_leftImg8bit.png",))


def test_cityscapes(tmp_path: Path) -> None:
    crowd = np.zeros(HW, bool)
    crowd[30:, :20] = True
    ids = np.full(HW, 23)  # sky
    ids[LEFT], ids[RIGHT], ids[crowd] = 26_003, 24_000, 26
    write_cityscapes(tmp_path, "train", "aachen", ids)
    write_cityscapes(tmp_path, "train", "bonn", np.full(HW, 7))
    write_cityscapes(tmp_path, "val", "ulm", np.where(LEFT, 33_001, 0))
    found = read_pngs(tmp_path / "leftImg8bit/train", tmp_path / "gtFine/train")
    assert found.problems == []
    assert objects(found) == [
        ("car", 1, 1, as_bytes(crowd)),
        ("person", 1, 0, as_bytes(RIGHT)),
        ("car", 1, 0, as_bytes(LEFT)),
    ]
    train, val = opened(tmp_path, "train"), opened(tmp_path, "val")
    assert [len(train.annotations(index)) for index in range(len(train))] == [3, 0]
    assert (val.categories.names, len(val.annotations(0))) == (("bicycle",), 1)


def test_the_archives_of_cityscapes(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "train", "aachen", LEFT * 26_001)
    for name in ("gtFine", "leftImg8bit"):
        (tmp_path / f"{name}_trainvaltest").mkdir()
        (tmp_path / name).rename(tmp_path / f"{name}_trainvaltest" / name)
    assert len(opened(tmp_path, "train").annotations(0)) == 1


def test_numbered_objects_beside_their_images(tmp_path: Path) -> None:
    write_images(tmp_path, ("a.png", "b.png"))
    save(tmp_path / "a_instanceIds.png", (LEFT * 1001 + RIGHT * 2001).astype(np.uint16))
    save(tmp_path / "c_instanceIds.png", (LEFT * 1001).astype(np.uint16))
    found = read_pngs(tmp_path, tmp_path)
    assert objects(found) == [("class 1", 1, 0, as_bytes(LEFT)), ("class 2", 1, 0, as_bytes(RIGHT))]
    assert [problem.what for problem in found.problems] == ["a missing image"]
    assert len(opened(tmp_path, "train")) == 1


@pytest.mark.parametrize(
    ("images", "masks", "name", "kind"),
    [
        ("images", "masks", "{}.png", np.uint8),
        ("images", "masks", "{}_cp_masks.tif", np.uint16),
        ("train/images", "train/masks", "{}.tif", np.float32),
        ("images/train", "masks/train", "{}_masks.png", np.uint16),
    ],
)
def test_numbered_masks(tmp_path: Path, images: str, masks: str, name: str, kind: Any) -> None:
    write_images(tmp_path / images, ("a.png", "b.jpg", "c.png", "d.png"))
    ids = {"a": LEFT * 3 + RIGHT * 200, "b": DISC, "c": np.zeros(HW), "gone": DISC}
    for stem, pixels in ids.items():
        save(tmp_path / masks / name.format(stem), pixels.astype(kind))
    split = resolve_dataset(str(tmp_path)).split("train")
    assert split.format == "numbered"
    found = read_split(split)
    told = [("a missing image", False), ("images without a mask", True)]
    assert [(problem.what, problem.is_notice) for problem in found.problems] == told
    expected = [(1, as_bytes(LEFT)), (1, as_bytes(RIGHT)), (2, as_bytes(DISC))]
    assert objects(found) == [("object", i, 0, mask) for i, mask in expected]
    assert len(opened(tmp_path, "train")) == 3


def test_masks_of_one_number(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    for name in ("a", "b"):
        save(tmp_path / "masks" / f"{name}.png", ((LEFT | RIGHT) * 255).astype(np.uint8))
    (problem,) = read_numbered(tmp_path / "images", tmp_path / "masks").problems
    assert problem.is_notice
    assert problem.what == "masks of one number each"


def test_masks_with_smoothed_edges(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ("a.png", "b.png"))
    smooth = cv2.GaussianBlur((DISC * 255).astype(np.uint8), (5, 5), 0)
    save(tmp_path / "masks" / "a.png", smooth)
    save(tmp_path / "masks" / "b.jpg", smooth)
    problems = read_numbered(tmp_path / "images", tmp_path / "masks").problems
    told = [(problem.what, problem.is_notice) for problem in problems]
    assert told == [("a mask that is stored with loss", False), ("masks of many numbers", True)]


@pytest.mark.parametrize("folder", ["stage1_train", "train", ""])
def test_a_picture_for_each_object(tmp_path: Path, folder: str) -> None:
    """As in the Data Science Bowl of 2018, where names are hashes and all objects are nuclei."""
    root = tmp_path / folder
    for name, masks in (("0a7d", [LEFT, RIGHT]), ("ffe1", [DISC])):
        write_images(root / name / "images", (f"{name}.png",))
        for number, mask in enumerate(masks):
            save(root / name / "masks" / f"{number}e5f.png", (mask * 255).astype(np.uint8))
    write_images(tmp_path / "stage1_test" / "77" / "images", ("77.png",))
    expected = [(1, as_bytes(LEFT)), (1, as_bytes(RIGHT)), (2, as_bytes(DISC))]
    assert objects(read_pngs(root, root)) == [("object", i, 0, mask) for i, mask in expected]
    dataset = opened(tmp_path, "train")
    assert (len(dataset), dataset.categories.names) == (2, ("object",))


@pytest.mark.parametrize("suffix", ["PNG", "tif", "bmp", "jpg"])
def test_pictures_of_objects_in_every_format(tmp_path: Path, suffix: str) -> None:
    """An image whose masks are not PNG is no negative."""
    write_images(tmp_path / "a" / "images", ("a.png",))
    save(tmp_path / "a" / "masks" / f"1.{suffix}", (LEFT * 255).astype(np.uint8))
    (found,) = objects(read_pngs(tmp_path, tmp_path))
    assert (drawn_pixels(found) != LEFT).mean() < (0.02 if suffix == "jpg" else 1e-9)


def drawn_pixels(found: tuple[str, int, int, bytes]) -> NDArray[np.bool_]:
    return np.frombuffer(found[3], np.uint8).reshape(HW).astype(bool)


def test_a_photograph_in_place_of_masks(tmp_path: Path) -> None:
    """It would have as many objects as colours, each looked for in all of its pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    save(tmp_path / "JPEGImages" / "a.png", pixels)
    save(tmp_path / "SegmentationObject" / "a.png", pixels)
    save(tmp_path / "SegmentationClass" / "a.png", np.ones((300, 300)), palette=True)
    with pytest.raises(ValueError, match="a mask of too many objects"):
        read_voc(tmp_path / "JPEGImages", tmp_path)


def test_pictures_of_objects_that_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path / "a" / "images", ("a.png",))
    save(tmp_path / "a" / "masks" / "1.png", (LEFT * 255).astype(np.uint8))
    save(tmp_path / "a" / "masks" / "2.png", np.zeros(HW, np.uint8))
    save(tmp_path / "a" / "masks" / "3.png", np.ones((2, 2), np.uint8))
    write_images(tmp_path / "b" / "images")
    save(tmp_path / "b" / "masks" / "1.png", (LEFT * 255).astype(np.uint8))
    found = read_pngs(tmp_path, tmp_path)
    assert len(objects(found)) == 1
    assert [problem.what for problem in found.problems] == [
        "a mask without a pixel",
        "a mask of another size than its image",
        "masks without an image",
    ]


def test_splits_of_segment_anything_s_files(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        write_images(tmp_path / split, (f"{name}.png",))
        write_sam(tmp_path / split, name, [segment(DISC)])
        assert opened(tmp_path, split).image_info(0)["file_name"] == f"{name}.png"


def test_segment_anything_s_files(tmp_path: Path) -> None:
    write_images(tmp_path, ("a.png", "b.png"))
    write_sam(tmp_path, "a", [])
    with pytest.raises(ValueError, match="there are no objects"):
        read_sam(tmp_path, tmp_path)
    write_sam(tmp_path, "b", [segment(DISC), segment(LEFT, category_name="leaf")])
    found = read_sam(tmp_path, tmp_path)
    assert found.problems == []
    assert objects(found) == [("object", 2, 0, as_bytes(DISC)), ("leaf", 2, 0, as_bytes(LEFT))]
    dataset = opened(tmp_path, "train")
    assert [len(dataset.annotations(index)) for index in range(2)] == [0, 2]
    assert resolve_dataset(str(tmp_path)).split("train").format == "sam"
    with pytest.raises(ValueError, match="sam's file of one image: give the folder"):
        resolve_dataset(str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (5, "an annotation that is no object"),
        ({}, "run lengths without size"),
        ({"segmentation": {"size": [2, 2], "counts": [4]}}, "run lengths without size"),
        ({"segmentation": {"size": list(HW), "counts": [4]}}, "of the wrong sum"),
        ({"segmentation": {"size": list(HW), "counts": "oo"}}, "of the wrong sum"),
    ],
)
def test_annotations_of_sam_that_are_left_out(tmp_path: Path, entry: Any, what: str) -> None:
    write_images(tmp_path, ("a.png", "b.png"))
    write_sam(tmp_path, "a", [segment(DISC), entry])
    write_sam(tmp_path, "b", [segment(DISC)], file_name="../b.png/x.png")
    (tmp_path / "c.json").write_text('{"image": {')
    found = read_sam(tmp_path, tmp_path)
    assert [what in found.problems[0].what, len(found.problems), len(objects(found))] == [
        True,
        3,
        1,
    ]
