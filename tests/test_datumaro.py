"""Results, read by datumaro, which CVAT imports and exports with: pip install datumaro."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from support.odd_masks import HW, NAMES, iou, odd_bitmaps, odd_detections, photo

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


def pixels_of(annotation: Any) -> np.ndarray:
    if annotation.type.name == "mask":
        return np.asarray(annotation.image).astype(bool)
    parts = mask_utils.frPyObjects([list(annotation.points)], *HW)
    return mask_utils.decode(mask_utils.merge(parts)).astype(bool)
