"""Any dataset as a COCO file, and as pycocotools' ground truth."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from data.classes import Category
from data.sample import Annotation, Dataset, ImageInfo, RunLengths

from .run_lengths import measure

if TYPE_CHECKING:
    from pycocotools.coco import COCO


class CocoContent(TypedDict):
    """A COCO file."""

    info: dict[str, str]
    images: list[ImageInfo]
    annotations: list[Annotation]
    categories: list[Category]


def coco_content(dataset: Dataset, count: int | None = None, description: str = "") -> CocoContent:
    """Gather the first images of a dataset, by default all, and their objects."""
    indices = range(len(dataset) if count is None else count)
    return {
        "info": {"description": description} if description else {},
        "images": [dataset.image_info(index) for index in indices],
        "annotations": [part for index in indices for part in dataset.annotations(index)],
        "categories": dataset.categories.to_coco_json(),
    }


def annotation_of(
    run_lengths: RunLengths, number: int, image_id: int, category_id: int
) -> Annotation:
    """Return the entry of an object with this mask."""
    box, area = measure(run_lengths)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": run_lengths,
        "area": area,
        "bbox": box,
        "iscrowd": 0,
    }


def coco_index(content: Mapping[str, object]) -> COCO:
    """Hand the content of a COCO file to pycocotools."""
    from pycocotools.coco import COCO

    truth = COCO()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # it announces the index
        truth.createIndex()
    return truth
