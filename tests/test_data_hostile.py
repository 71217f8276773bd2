"""Readers of files in which anything may stand where anything is expected."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.files_of_tools import (
    BOX,
    TRIANGLE,
    cvat_entry,
    cvat_shape,
    pack,
    polygon,
    region,
    segment,
    task,
    write_cvat,
    write_panoptic,
    write_sam,
)
from support.foreign_formats import DISC, write_images
from support.odd_masks import HW, odd_bitmaps
from support.whole_datasets import run_lengths, square, write_coco

from data.annotations.coco import CocoInstances
from data.annotations.polygons import Polygon, one_ring
from data.catalog import open_dataset
from data.conversion import convert_dataset
from data.files import xml_elements
from yolact.doctor.findings import examine

JUNK: list[Any] = [
    *(None, True, -1, 0, 7, 1e308, 10**30, 0.5, "", "x", "-5", "nan", "\0", "../../etc/passwd"),
    *([], {}, [[]], [None], {"a": 1}, [1, 2, 3], ["x"] * 3, [[1e9, 1]] * 3),
]


def spoiled(content: Any, random: np.random.Generator) -> Any:
    """Put junk into one place, chosen by a walk from the root."""
    if isinstance(content, (dict, list)) and content and random.random() < 0.93:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = keys[int(random.integers(len(keys)))]
        copy: Any = content.copy()
        copy[key] = spoiled(content[key], random)
        return copy
    return JUNK[int(random.integers(len(JUNK)))]


def label_studio(folder: Path) -> Path:
    regions = [
        polygon(),
        region("brush", {"format": "rle", "rle": pack(DISC)}),
        region("rectangle", BOX | {"rotation": 5}),
        region("ellipse", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 12.5, "rotation": 9}),
    ]
    minimal = {"image": "b.png", "id": 1, "label": [regions[0]["value"]]}
    (folder / "a.json").write_text(json.dumps([task(regions), minimal]))
    write_images(folder)
    return folder / "a.json"


def sam(folder: Path) -> Path:
    write_images(folder)
    write_sam(folder, "b", [segment(DISC)])
    write_sam(folder, "a", [segment(DISC, label="x")] * 2)
    return folder / "a.json"


def coco(folder: Path) -> Path:
    masks = [("dog", run_lengths(mask)) for mask in odd_bitmaps()]
    parts = [("cat", [square(10, 10, 20), square(60.5, 60.5, 21)])]
    write_coco(folder, {"": {"a.png": (HW, masks), "b.png": (HW, parts)}})
    return folder / "annotations.json"


@pytest.mark.parametrize("write", [label_studio, sam, write_panoptic, coco])
def test_json_with_junk_in_it(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """It is read, or refused in one line."""
    file = write(tmp_path)
    sound = json.loads(file.read_text())
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(120):
        file.write_text(json.dumps(spoiled(sound, random)))
        refused += is_refused(tmp_path)
    assert refused < 110


def is_refused(folder: Path) -> bool:
    try:
        open_dataset(str(folder), "train" if not (folder / "val2017").exists() else "val")
    except (ValueError, OSError) as error:
        assert "\n" not in str(error)
        return True
    return False


def test_xml_with_junk_in_it(tmp_path: Path) -> None:
    write_images(tmp_path)
    shapes = [
        cvat_shape("polygon", f'points="{TRIANGLE}" group_id="2"'),
        cvat_shape("box", 'xtl="5" ytl="6" xbr="25" ybr="16" rotation="4"'),
        cvat_shape("ellipse", 'cx="30" cy="20" rx="15" ry="6"'),
        cvat_shape("mask", 'rle="1, 2, 4, 1" left="8" top="3" width="2" height="4"'),
    ]
    sound = write_cvat(
        tmp_path, cvat_entry("a.png", *shapes), cvat_entry("b.png", shapes[0])
    ).read_text()
    values = sound.split('"')
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        spot = int(random.integers(5, len(values) // 2)) * 2 + 1  # what stands in quotes
        junk = random.choice(["", "x", "-1", "nan", "1e308", "9" * 30, "-2", "1,2;3", "0.5", ";"])
        changed = [*values[:spot], str(junk), *values[spot + 1 :]]
        (tmp_path / "annotations.xml").write_text('"'.join(changed))
        refused += is_refused(tmp_path)
    assert refused < 50


NAME = "a\nb\x1b[31m"


@pytest.mark.parametrize(
    "content",
    [
        {NAME: 1},
        {"images": [], "annotations": [], NAME: []},
        {"images": [{"id": 1, "file_name": NAME}], "categories": [{"id": 1, "name": "x"}]},
        {"images": [], "categories": [{"id": 1, "name": NAME}, {"id": 1, "name": NAME}]},
    ],
)
def test_errors_about_hostile_names_are_one_line(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        open_dataset(str(tmp_path / "annotations.json"), "train")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", ["<image name='{}'/>", "<image><!--{}--></image>", "<?x {}?>"])
def test_a_tag_of_xml_that_goes_on_is_refused(tmp_path: Path, text: str) -> None:
    """The parser begins such a tag again at each megabyte."""
    file = tmp_path / "a.xml"
    file.write_text("<annotations>" + text.format("a" * 60_000_000) + "</annotations>")
    with pytest.raises(ValueError, match=r"a\.xml is not valid XML: a tag in it has more than"):
        list(xml_elements(file, ("image",)))
    file.write_text("<annotations>" + text.format("a" * 10_000_000) + "<image/></annotations>")
    assert list(xml_elements(file, ("image",)))


def one_image(folder: Path, names: list[str], annotations: list[dict[str, Any]]) -> Path:
    """Write a dataset of one image with many objects or classes; return its file."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / "images" / "a.png")
    content: dict[str, Any] = {
        "images": [{"id": 0, "file_name": "a.png", "height": 64, "width": 64}],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


def seconds_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize("kind", ["same", "two classes", "run lengths"])
def test_objects_of_one_image_take_no_square_of_time(tmp_path: Path, kind: str) -> None:
    """A thousand are looked at as one by one, also where each is there twice."""
    outline: Any = [square(8, 8, 16)]
    if kind == "run lengths":
        outline = run_lengths(np.eye(64, dtype=np.bool_))
    objects = [
        {"id": i, "image_id": 0, "category_id": i % 2 * (kind == "two classes"), "bbox": None}
        | {"segmentation": outline}
        for i in range(1500)
    ]
    dataset = CocoInstances(tmp_path / "images", one_image(tmp_path, ["a", "b"], objects))
    assert seconds_of(lambda: examine("a", {"train": dataset}, {}, 64).to_record()) < 5


@pytest.mark.parametrize("format", ["yolo", "labelme", "voc"])
def test_classes_take_no_square_of_time(tmp_path: Path, format: Any) -> None:
    """A file of a megabyte can list tens of thousands."""
    names = [f"class {number}" for number in range(250 if format == "voc" else 40_000)]
    objects = [{"id": 1, "image_id": 0, "category_id": 0, "segmentation": [square(8, 8, 16)]}]
    one_image(tmp_path / "in", names, objects)
    work = partial(convert_dataset, str(tmp_path / "in"), tmp_path / "out", format)
    assert seconds_of(work) < 5


@pytest.mark.parametrize("parts", [1, 501, 20_000])
def test_parts_of_an_outline_take_no_square_of_time(parts: int) -> None:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    polygons = [Polygon(corners + (number % 97, number // 97)) for number in range(parts)]
    rings: list[Any] = []
    assert seconds_of(lambda: rings.append(one_ring(polygons))) < 2
    assert len(rings[0]) == 4 + (parts - 1) * 6
