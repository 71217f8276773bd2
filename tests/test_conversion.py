"""Every format that is written is read back with the same masks, classes and splits."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from pycocotools.coco import COCO
from support.foreign_formats import opened
from support.odd_masks import HW, odd_bitmaps
from support.whole_datasets import (
    Objects,
    masks_of,
    pictures_of,
    raster,
    run_lengths,
    square,
    write_coco,
)

from data.catalog import open_dataset, resolve_dataset
from data.conversion import WRITERS, convert_dataset

FORMATS = sorted(WRITERS)
PAINTED = ("voc", "panoptic")  # a pixel has one object
SHAPES = {
    "no object beside one": {"a.png": (HW, []), "b.png": (HW, [("cat", [square(3, 4, 10)])])},
    "polygon": {"a.png": (HW, [("cat", [[10.3, 7.7, 90.1, 12.9, 41.5, 88.2]])])},
    "parts": {"a.png": (HW, [("dog", [square(10, 10, 20), square(60.5, 60.5, 21)])])},
    "parts that overlap": {"a.png": (HW, [("dog", [square(10, 10, 40), square(30, 30, 40)])])},
    "beyond the edge": {"a.png": (HW, [("dog", [square(-20, -10, 60), square(150, 110, 40)])])},
    "crossing itself": {"a.png": (HW, [("dog", [[5, 5, 90, 90, 90, 5, 5, 90]])])},
    "run lengths": {
        "a.png": (HW, [("cat", run_lengths(mask)) for mask in (*odd_bitmaps()[:1],)]),
        "b c.png": (HW, [("dog", run_lengths(mask)) for mask in odd_bitmaps()[1:]]),
    },
    "tiny images": {
        "a.png": ((1, 1), [("cat", run_lengths(np.ones((1, 1), bool)))]),
        "b.png": ((2, 3), [("dog", run_lengths(np.eye(2, 3, dtype=bool)))]),
        "c.png": ((1, 5), [("cat", run_lengths(np.array([[1, 0, 1, 0, 1]], bool)))]),
    },
    "folders": {
        "x/y z/a.png": (HW, [("cat", [square(1, 1, 9)])]),
        "x/b.png": (HW, [("dog", [square(2, 2, 9)])]),
        "c.png": (HW, []),
    },
    "names": {
        "ä ö.x.png": (HW, [("cat", [square(1, 1, 9)])]),
        '#1 & "2".png': (HW, [("dog", [square(2, 2, 9)])]),
    },
}


@pytest.mark.parametrize("format", FORMATS)
def test_no_objects_at_all(tmp_path: Path, format: str) -> None:
    source = write_coco(tmp_path / "in", {"": {"a.png": (HW, [])}})
    assert convert_dataset(str(source), tmp_path / "out", format) == []
    assert [path.name for path in (tmp_path / "out").rglob("a.png")][0] == "a.png"
    if format == "coco":
        assert masks_of(opened(tmp_path / "out", "train")) == {"a": Counter()}
    else:
        with pytest.raises(ValueError, match="nothing can be used: there are no objects"):
            open_dataset(str(tmp_path / "out"), "train")


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(tmp_path: Path, format: str, shapes: str) -> None:
    source = write_coco(tmp_path / "in", {"": SHAPES[shapes]})
    assert convert_dataset(str(source), tmp_path / "out", format) == []
    paths = resolve_dataset(str(tmp_path / "out"))
    assert paths.is_shared
    assert paths.split("train").format == format
    dataset = opened(tmp_path / "out", "train")
    assert dataset.categories.names == ("cat", "dog", "unused")
    assert masks_of(dataset) == masks_of(opened(source, "train"))
    assert pictures_of(dataset) == pictures_of(opened(source, "train"))


@pytest.mark.parametrize("format", FORMATS)
def test_splits_and_the_classes_of_both(tmp_path: Path, format: str) -> None:
    train = {"a.png": (HW, [("cat", [square(3, 4, 10)])]), "b.png": (HW, [])}
    val = {"a.png": (HW, [("dog", [square(30, 4, 10)])]), "c.png": (HW, [])}
    source = write_coco(tmp_path / "in", {"train": train, "val": val})
    assert convert_dataset(str(source), tmp_path / "out", format) == []
    for split, stems in (("train", ["a", "b"]), ("val", ["a_2" if format == "voc" else "a", "c"])):
        dataset = opened(tmp_path / "out", split)
        assert dataset.categories.names == ("cat", "dog", "unused")
        expected = masks_of(opened(source, split))
        assert masks_of(dataset) == dict(zip(stems, expected.values(), strict=True))


@pytest.mark.parametrize("source", ["", "data.yaml"])
@pytest.mark.parametrize("place", ["coco/test", "images/test2017"])
def test_a_split_to_test_on_is_told(tmp_path: Path, place: str, source: str) -> None:
    write_coco(tmp_path / "coco", {"train": SHAPES["polygon"]})
    assert convert_dataset(str(tmp_path / "coco"), tmp_path / "data", "yolo") == []
    name = str(tmp_path / "data" / source)
    assert convert_dataset(name, tmp_path / "out", "coco") == []
    folder = tmp_path / "data" / place.removeprefix("coco/")
    if place == "coco/test":
        write_coco(folder, {"": SHAPES["polygon"]})
    folder.mkdir(exist_ok=True)
    (problem,) = convert_dataset(name, tmp_path / "out", "coco")
    mend = "convert that by itself" if place == "coco/test" else "it stays where it is"
    assert str(problem) == f"a split to test on: {folder}; {mend}"


def test_a_split_to_test_on_may_be_used_to_validate(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", {"train": SHAPES["polygon"], "val": SHAPES["folders"]})
    convert_dataset(str(tmp_path / "coco"), tmp_path / "data", "yolo")
    for place in ("images", "labels"):
        (tmp_path / "data" / place / "val").rename(tmp_path / "data" / place / "test")
    places = "train: images/train\nval: images/test\n"
    (tmp_path / "data" / "data.yaml").write_text(f"names: [cat, dog, unused]\n{places}")
    assert convert_dataset(str(tmp_path / "data"), tmp_path / "out", "coco") == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_yolo_dataset_of_several_folders(tmp_path: Path, format: str) -> None:
    source = write_coco(tmp_path / "in", {"": SHAPES["folders"]})
    convert_dataset(str(source), tmp_path / "yolo", "yolo")
    images = tmp_path / "yolo" / "images"
    (images / "x").rename(images / "train")
    (tmp_path / "yolo" / "labels" / "x").rename(tmp_path / "yolo" / "labels" / "train")
    (images / "list.txt").write_text("images/c.png\n./train/b.png\n")
    names = "names: [cat, dog, unused]\n"
    places = "train: [images/train, images/list.txt]\nval: images/list.txt\n"
    (tmp_path / "yolo" / "data.yaml").write_text(names + places)
    assert convert_dataset(str(tmp_path / "yolo"), tmp_path / "out", format) == []
    for split, stems in (("train", ["a", "b", "c"]), ("val", ["b", "c"])):
        found = masks_of(opened(tmp_path / "out", split))
        assert sorted(stem[0] for stem in found) == stems
        expected = masks_of(opened(tmp_path / "yolo", split))
        assert Counter(map(str, found.values())) == Counter(map(str, expected.values()))


def test_crowds_stay_crowds_or_are_told(tmp_path: Path) -> None:
    ring, pair = odd_bitmaps()[:2]
    objects = [("cat", run_lengths(ring)), ("crowd of dog", run_lengths(pair))]
    alone = [("crowd of dog", run_lengths(pair))]
    source = write_coco(tmp_path / "in", {"": {"a.png": (HW, objects), "b.png": (HW, alone)}})
    expected = masks_of(opened(source, "train"))
    for format in FORMATS:
        problems = convert_dataset(str(source), tmp_path / format, format)
        found = masks_of(opened(tmp_path / format, "train"))
        if format in ("coco", "panoptic", "voc"):
            assert (found, problems) == (expected, [])
        else:  # b.png is no negative
            assert found == {"a": Counter([("cat", False, ring.tobytes())])}
            assert [problem.where for problem in problems] == ["a.png", "b.png", "b.png"]
            assert "a crowd" in problems[0].what


def test_boxes_stay_boxes_or_are_told(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "in", {"": SHAPES["no object beside one"]})
    content = json.loads((source / "annotations.json").read_text())
    (annotation,) = content["annotations"]
    box = [10.0, 20.0, 40.0, 30.0]
    content["annotations"].append(annotation | {"id": 2, "segmentation": [], "bbox": box})
    (source / "annotations.json").write_text(json.dumps(content))
    for format in FORMATS:
        problems = convert_dataset(str(source), tmp_path / format, format)
        dataset = opened(tmp_path / format, "train")
        boxes = [a["bbox"] for a in dataset.annotations(1) if not a["segmentation"]]
        assert len(dataset.annotations(1)) == 1 + len(boxes)
        if format in ("coco", "yolo"):
            assert problems == []
            assert np.allclose(boxes, [box], atol=1e-3)
        else:
            assert [problem.what for problem in problems] == ["a box without an outline"]
            assert boxes == []


@pytest.mark.parametrize("format", PAINTED)
def test_a_pixel_of_two_objects_is_the_smaller_one_s(tmp_path: Path, format: str) -> None:
    objects: Objects = [("dog", [square(50, 50, 20)]), ("cat", [square(10, 10, 50)])]
    source = write_coco(tmp_path / "in", {"": {"a.png": (HW, objects)}})
    (problem,) = convert_dataset(str(source), tmp_path / "out", format)
    assert (problem.where, problem.mend[:3]) == ("a.png", "100")
    small, large = (raster(outline, HW) for _, outline in objects)
    expected = [("dog", False, small.tobytes()), ("cat", False, (large & ~small).tobytes())]
    assert masks_of(opened(tmp_path / "out", "train"))["a"] == Counter(expected)


def test_more_objects_than_a_palette_has(tmp_path: Path) -> None:
    objects = [("cat", [square(5 * (i % 30), 5 * (i // 30), 4)]) for i in range(300)]
    source = write_coco(tmp_path / "in", {"": {"a.png": (HW, objects)}})
    (problem,) = convert_dataset(str(source), tmp_path / "voc", "voc")
    assert problem.mend.startswith("46 are left out")
    assert masks_of(opened(tmp_path / "voc", "train"))["a"].total() == 254
    assert convert_dataset(str(source), tmp_path / "panoptic", "panoptic") == []
    assert masks_of(opened(tmp_path / "panoptic", "train")) == masks_of(opened(source, "train"))


def test_more_classes_than_a_palette_has(tmp_path: Path) -> None:
    names = tuple(f"class {number}" for number in range(255))
    images = {"a.png": (HW, [("class 254", [square(5, 5, 5)])])}
    source = write_coco(tmp_path / "in", {"": images}, names)
    with pytest.raises(ValueError, match="255 classes: voc has at most 254"):
        convert_dataset(str(source), tmp_path / "voc", "voc")
    for format in ("panoptic", "pngs", "cvat"):
        convert_dataset(str(source), tmp_path / format, format)
        assert opened(tmp_path / format, "train").categories.names == names


def test_images_that_would_share_a_file(tmp_path: Path) -> None:
    """Of suffix or case alone; YOLO and labelme have a file for each stem."""
    names = ("x/a.png", "x/a.bmp", "x/A.png", "b.png")
    images = {name: (HW, [("cat", [square(5, 5, 5 + i)])]) for i, name in enumerate(names)}
    source = write_coco(tmp_path / "in", {"": images})
    convert_dataset(str(source), tmp_path / "out", "yolo")
    found = masks_of(opened(tmp_path / "out", "train"))
    assert sorted(found) == ["A_3", "a", "a_2", "b"]
    assert len({tuple(objects) for objects in found.values()}) == 4


def test_images_outside_the_image_folder(tmp_path: Path) -> None:
    """Their names lead out of it, but not out of the folder that is written."""
    images = {name: (HW, [("cat", [square(1, 2, 9)])]) for name in ("../other/a.png", "b.png")}
    source = write_coco(tmp_path / "in", {"": images})
    assert opened(source, "train").image_info(0)["file_name"] == "../other/a.png"
    for format in FORMATS:
        out = tmp_path / "out" / format / "x"
        convert_dataset(str(source), out, format)
        assert sorted(masks_of(opened(out, "train"))) == ["a", "b"]
        assert [path.name for path in out.parent.iterdir()] == ["x"]
    outside = [path for path in tmp_path.rglob("a.png") if "out" not in path.parts]
    assert outside == [tmp_path / "in" / "other" / "a.png"]


@pytest.mark.parametrize("format", FORMATS)
def test_again_with_fewer_objects(tmp_path: Path, format: str) -> None:
    square_of = {side: ("cat", [square(side, side, side)]) for side in (5, 20, 60)}
    for sides in ((5, 20, 60), (20,)):
        objects = [square_of[side] for side in sides]
        source = write_coco(tmp_path / "in", {"": {"a.png": (HW, objects)}})
        convert_dataset(str(source), tmp_path / "out", format)
        assert masks_of(opened(tmp_path / "out", "train")) == masks_of(opened(source, "train"))


@pytest.mark.parametrize("transfer", ["copy", "link", "none"])
def test_what_becomes_of_the_images(tmp_path: Path, transfer: Any) -> None:
    source = write_coco(tmp_path / "in", {"": SHAPES["polygon"]})
    for _ in range(2):  # again, over what is there
        convert_dataset(str(source), tmp_path / "out", "coco", transfer)
    original, image = source / "images" / "a.png", tmp_path / "out" / "images" / "a.png"
    assert image.exists() == (transfer != "none")
    if transfer != "none":
        assert image.samefile(original) == (transfer == "link")
        assert image.read_bytes() == original.read_bytes() != b""


def test_an_image_annotated_as_another_size(tmp_path: Path) -> None:
    """Formats that state no size would give other masks."""
    source = write_coco(tmp_path / "in", {"": SHAPES["run lengths"]})
    with PilImage.open(source / "images" / "a.png") as image:
        turned = image.getexif()
        turned[0x0112] = 6
        image.save(source / "images" / "a.png", exif=turned)
    for format in FORMATS:
        problems = convert_dataset(str(source), tmp_path / format, format)
        found = masks_of(opened(tmp_path / format, "train"))
        keeps_size = format in ("coco", "labelme", "cvat", "panoptic")
        assert len(problems) == (not keeps_size)
        assert sorted(found) == (["a", "b c"] if keeps_size else ["b c"])


def test_read_by_pycocotools(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "in", {"train": SHAPES["run lengths"]})
    convert_dataset(str(source), tmp_path / "out", "coco")
    truth = COCO(str(tmp_path / "out" / "annotations" / "instances_train.json"))
    masks = [truth.annToMask(annotation) for annotation in truth.anns.values()]
    assert (np.array(masks) == odd_bitmaps()).all()


def test_read_by_pillow(tmp_path: Path) -> None:
    """VOC's palette: classes 1 to 3 are dark red, green and olive, and objects are numbered."""
    objects: Objects = [("dog", [square(5, 5, 10)]), ("cat", [square(50, 50, 20)])]
    source = write_coco(tmp_path / "in", {"train": {"a.png": (HW, objects)}})
    convert_dataset(str(source), tmp_path / "out", "voc")
    with PilImage.open(tmp_path / "out" / "SegmentationClass" / "a.png") as classes:
        assert (classes.mode, classes.getpixel((7, 7)), classes.getpixel((60, 60))) == ("P", 2, 1)
        colours = classes.convert("RGB")
    assert colours.getpixel((7, 7)) == (0, 128, 0)
    assert colours.getpixel((60, 60)) == (128, 0, 0)
    with PilImage.open(tmp_path / "out" / "SegmentationObject" / "a.png") as instances:
        assert (instances.getpixel((7, 7)), instances.getpixel((60, 60))) == (1, 2)
        assert instances.getpalette()[765:] == [224, 224, 192]
    listing = tmp_path / "out" / "ImageSets" / "Segmentation" / "train.txt"
    assert listing.read_text() == "a\n"


SIDES = st.integers(1, 24)
SEEDS = st.integers(0, 2**32 - 1)
# Without a search for the smallest example, which would write files for minutes.
QUIET: dict[str, Any] = {
    "deadline": None,
    "phases": (Phase.explicit, Phase.generate),
    "suppress_health_check": list(HealthCheck),
}


def random_objects(seed: int, image_hw: tuple[int, int], are_apart: bool) -> Objects:
    """Masks of noise, and polygons of any points, some of them outside of the image."""
    random = np.random.default_rng(seed)
    count = int(random.integers(0, 5))
    names = random.choice(["cat", "dog"], count).tolist()
    if are_apart:
        ids = random.integers(0, count + 1, image_hw)
        return [(name, run_lengths(ids == i)) for i, name in enumerate(names, start=1)]
    objects: Objects = []
    for name in names:
        if random.random() < 0.4:
            bitmap = random.random(image_hw) < random.random()
            objects.append((name, run_lengths(bitmap)))
        else:
            sides = np.array(image_hw[::-1])
            points = random.uniform(-0.3, 1.3, (random.integers(3, 9), 2)) * sides
            if random.random() < 0.3:
                points = np.round(points * 2) / 2
            parts = [points, points[::-1] + random.uniform(0, 5)][: random.integers(1, 3)]
            objects.append((name, [part.reshape(-1).tolist() for part in parts]))
    return objects


def check_random(folder: Path, format: str, seeds: list[tuple[int, int, int]]) -> None:
    """Convert images of random objects; all that have a pixel come back, to the pixel."""
    shutil.rmtree(folder, ignore_errors=True)
    one = {"one.png": ((9, 9), [("cat", [square(2, 2, 4)]), ("dog", [square(7, 7, 2)])])}
    images = {
        f"{number}.png": (image_hw, random_objects(seed, image_hw, format in PAINTED))
        for number, (*image_hw, seed) in enumerate(seeds)
    }
    source = write_coco(folder / "in", {"": one | images}, ("cat", "dog"))
    convert_dataset(str(source), folder / "out", format)
    expected = {
        Path(name).stem: Counter(
            (category, False, mask.tobytes())
            for category, outline in objects
            for mask in [raster(outline, image_hw)]
            if mask.any()
        )
        for name, (image_hw, objects) in (one | images).items()
    }
    assert masks_of(opened(folder / "out", "train")) == expected


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seeds=st.lists(st.tuples(SIDES, SIDES, SEEDS), min_size=10, max_size=10))
def test_random_objects(tmp_path: Path, format: str, seeds: list[tuple[int, int, int]]) -> None:
    check_random(tmp_path, format, seeds)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@settings(**QUIET, max_examples=20)
@given(seeds=st.lists(st.tuples(SIDES, SIDES, SEEDS), min_size=35, max_size=35))
def test_many_random_objects(
    tmp_path: Path, format: str, seeds: list[tuple[int, int, int]]
) -> None:
    check_random(tmp_path, format, seeds)
