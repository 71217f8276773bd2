"""COCO's panoptic files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.files_of_tools import LEFT, RIGHT, as_bytes, objects, write_panoptic
from support.foreign_formats import opened, write_images

from data.catalog import resolve_dataset
from data.formats.label_maps.panoptic import read_panoptic


def test_panoptic_without_objects(tmp_path: Path) -> None:
    file = write_panoptic(tmp_path, annotations=[])
    with pytest.raises(ValueError, match=r"an image without an annotation \(2\)"):
        read_panoptic(tmp_path / "val2017", file)


def test_coco_s_panoptic_files(tmp_path: Path) -> None:
    file = write_panoptic(tmp_path)
    converted = read_panoptic(tmp_path / "val2017", file)
    assert converted.problems == []
    (car, person, crowd) = objects(converted)
    assert (car, person) == (("car", 1, 0, as_bytes(LEFT)), ("person", 1, 0, as_bytes(RIGHT)))
    assert crowd[:3] == ("person", 1, 1)
    dataset = opened(tmp_path, "val")
    assert dataset.categories.category_ids == (1, 3)
    assert [len(dataset.annotations(index)) for index in range(2)] == [3, 0]
    assert resolve_dataset(str(tmp_path)).split("val").format == "panoptic"


def test_panoptic_classes_that_are_all_marked_as_stuff(tmp_path: Path) -> None:
    file = write_panoptic(tmp_path)
    content = json.loads(file.read_text())
    content["categories"] = [entry | {"isthing": 0} for entry in content["categories"]]
    file.write_text(json.dumps(content))
    found = read_panoptic(tmp_path / "val2017", file)
    assert [(problem.what, problem.is_used) for problem in found.problems] == [
        ("no class that is a thing", True)
    ]
    assert len(objects(found)) == 5


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"file_name": "../../val2017/a.png"}, "a mask outside the dataset"),
        ({"file_name": "/etc/passwd"}, "a mask outside the dataset"),
        ({"file_name": "c.png"}, "a missing mask"),
        ({"file_name": 5}, "a missing mask"),
        ({"image_id": 5}, "an annotation with unknown image_id"),
        ({"image_id": "x"}, "an annotation with unknown image_id"),
        ({"segments_info": None}, "an annotation without 'segments_info'"),
        ({"segments_info": [{"id": 5, "category_id": 1}]}, "a segment without a pixel"),
        ({"segments_info": [{"category_id": 1}]}, "a segment without a pixel"),
        ({"segments_info": [{"id": 300, "category_id": 2}]}, "a segment of an unknown class"),
        ({"segments_info": [{"id": 300}, None]}, "a segment of an unknown class"),
    ],
)
def test_panoptic_annotations_that_are_left_out(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    file = write_panoptic(tmp_path)
    content = json.loads(file.read_text())
    first = content["annotations"][0]
    content["images"].append({"id": 3, "file_name": "a.png"})
    content["annotations"] = [first | {"image_id": 3}, first | changes]
    file.write_text(json.dumps(content))
    converted = read_panoptic(tmp_path / "val2017", file)
    assert what in [problem.what for problem in converted.problems]
    assert len(objects(converted)) == 3


def test_panoptic_images_with_unknown_classes_alone_are_no_negatives(tmp_path: Path) -> None:
    file = write_panoptic(tmp_path)
    content = json.loads(file.read_text())
    content["annotations"][1]["segments_info"] = [{"id": 12, "category_id": 99}]
    file.write_text(json.dumps(content))
    found = read_panoptic(tmp_path / "val2017", file)
    assert [entry["file_name"] for entry in found.content["images"]] == ["a.png"]
    (told,) = found.problems
    assert told.what == "a segment of an unknown class"


@pytest.mark.parametrize("change", [str, float])
def test_panoptic_ids_in_every_form(tmp_path: Path, change: Any) -> None:
    file = write_panoptic(tmp_path)
    content = json.loads(file.read_text())
    usual = objects(read_panoptic(tmp_path / "val2017", file))
    for entry in content["categories"]:
        entry["id"] = change(entry["id"])
    file.write_text(json.dumps(content))
    found = read_panoptic(tmp_path / "val2017", file)
    assert (objects(found), found.problems) == (usual, [])


@pytest.mark.parametrize(
    ("masks", "images", "is_told"),
    [
        ("panoptic", "images", False),
        ("panoptic", ".", False),
        ("cells_panoptic", "imgs", False),
        ("cells", "img", False),
        ("train", "elsewhere", True),
    ],
)
def test_panoptic_masks_are_not_taken_for_the_images(
    tmp_path: Path, masks: str, images: str, is_told: bool
) -> None:
    """Both may be called alike."""
    file = write_panoptic(tmp_path / "in")
    (tmp_path / "out").mkdir()
    file.with_suffix("").rename(tmp_path / "out" / masks)
    file.rename(tmp_path / "out" / f"{masks}.json")
    write_images(tmp_path / "out" / images)
    if is_told:
        with pytest.raises(ValueError, match=r"a mask in place of its image \(2\)"):
            opened(tmp_path / "out", "train")
    else:
        dataset = opened(tmp_path / "out", "train")
        assert dataset.image_path(0).samefile(tmp_path / "out" / images / "a.png")
