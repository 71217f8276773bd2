"""Results and datasets, read by datumaro, which CVAT imports with: pip install datumaro."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from support.foreign_formats import opened
from support.odd_masks import HW, NAMES, iou, odd_bitmaps, odd_detections, photo
from support.whole_datasets import masks_of, run_lengths, write_coco

from data.conversion import convert_dataset
from yolact import CocoFile

datumaro = pytest.importorskip("datumaro", reason="needs datumaro")
pytestmark = pytest.mark.slow


def as_coco(folder: Path, tolerance: float | None) -> None:
    images = folder / "images" / "train"
    images.mkdir(parents=True)
    path, _ = photo(images)
    with CocoFile(folder / "annotations" / "instances_train.json", images, tolerance) as file:
        file.add(odd_detections(source=str(path)))


def as_cvat(folder: Path, _: float | None) -> None:
    (folder / "images").mkdir(parents=True)
    path, _ = photo(folder / "images")
    (folder / "annotations.xml").write_text(odd_detections(source=str(path)).to_cvat())


@pytest.mark.parametrize(
    ("write", "format", "tolerance", "least"),
    [
        (as_coco, "coco_instances", None, 1.0),
        (as_coco, "coco_instances", 0.0, 1.0),
        (as_coco, "coco_instances", 1.0, 0.97),
        (as_cvat, "cvat", None, 1.0),
    ],
)
def test_read_by_datumaro(
    tmp_path: Path,
    write: Callable[[Path, float | None], None],
    format: str,
    tolerance: float | None,
    least: float,
) -> None:
    write(tmp_path / "export", tolerance)
    dataset = datumaro.Dataset.import_from(str(tmp_path / "export"), format)
    (item,) = dataset
    names = dataset.categories()[datumaro.AnnotationType.label]
    masks = {name: np.zeros(HW, bool) for name in NAMES}
    for annotation in item.annotations:
        if annotation.type.name in ("mask", "polygon"):
            masks[names[annotation.label].name] |= pixels_of(annotation)
    for mask, expected in zip(masks.values(), odd_bitmaps(), strict=True):
        assert iou(mask, expected) >= least


def converted(folder: Path, format: str) -> Path:
    """Write all of those masks in train and a part of them in val, in one of our formats."""
    names = ("cat", "dog", "cat", "dog")
    objects = [(name, run_lengths(m)) for name, m in zip(names, odd_bitmaps(), strict=True)]
    images = {"train": {"a.png": (HW, objects)}, "val": {"b.png": (HW, objects[:2])}}
    source = write_coco(folder / "in", images, ("cat", "dog"))
    assert convert_dataset(str(source), folder / "out", format) == []
    return folder / "out"


@pytest.mark.parametrize(
    ("ours", "format"),
    [
        ("coco", "coco_instances"),
        ("panoptic", "coco_panoptic"),
        ("voc", "voc_segmentation"),
        ("cvat", "cvat"),
    ],
)
def test_converted_datasets(tmp_path: Path, ours: str, format: str) -> None:
    dataset = datumaro.Dataset.import_from(str(converted(tmp_path, ours)), format)
    names = dataset.categories()[datumaro.AnnotationType.label]
    expected = list(zip(("cat", "dog", "cat", "dog"), odd_bitmaps(), strict=True))
    for item in dataset:
        found = [
            (names[annotation.label].name, pixels_of(annotation))
            for annotation in item.annotations
            if annotation.type.name in ("mask", "polygon")
        ]
        wanted = expected[: 4 if item.id == "a" else 2]
        assert sorted((name, mask.sum()) for name, mask in found) == sorted(
            (name, mask.sum()) for name, mask in wanted
        )
        assert all(any((mask == other).all() for _, other in wanted) for _, mask in found)


@pytest.mark.parametrize("format", ["cvat", "voc_segmentation", "coco_panoptic"])
def test_what_datumaro_writes(tmp_path: Path, format: str) -> None:
    source = converted(tmp_path, "coco")
    dataset = datumaro.Dataset.import_from(str(source), "coco_instances")
    dataset.export(str(tmp_path / "theirs"), format, save_media=True)
    for split in ("train", "val"):
        found = masks_of(opened(tmp_path / "theirs", split))
        assert found == masks_of(opened(source, split))


def pixels_of(annotation: Any) -> np.ndarray:
    if annotation.type.name == "mask":
        return np.asarray(annotation.image).astype(bool)
    parts = mask_utils.frPyObjects([list(annotation.points)], *HW)
    return mask_utils.decode(mask_utils.merge(parts)).astype(bool)
