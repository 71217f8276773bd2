"""A dataset by name: catalogued, a folder in one of four formats, a file, or generated shapes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from .annotations import summarize
from .catalog import Categories, resolve_dataset
from .coco import CocoInstances
from .formats import READERS
from .shapes import ShapeScenes, shapes_split

_logger = logging.getLogger(__name__)

SHAPES = "shapes"

Split = Literal["train", "val"]


def has_one_split(name: str, root: Path = Path("data")) -> bool:
    """Tell whether the same images serve for training and validation; `name` as in `open_dataset`.

    Raises:
        ValueError: no such dataset.
    """
    return name != SHAPES and resolve_dataset(name, root).is_shared


def open_dataset(
    name: str,
    split: Split,
    categories: Categories | None = None,
    root: Path = Path("data"),
    length: int | None = None,
) -> CocoInstances | ShapeScenes:
    """Open one split of a dataset.

    Args:
        name: see `data.catalog.resolve_dataset`; "shapes" for generated scenes.
        split: which part. A dataset that has only one serves it for both.
        categories: classes of a trained model, to which labels are matched.
        root: the folder of the catalogued datasets.
        length: scenes to generate, for "shapes" alone.

    Raises:
        ValueError: no such dataset, or it lacks this split.
        FileNotFoundError: its files are not there.
    """
    if name == SHAPES:
        scenes = shapes_split(split, length)
        if categories is not None and categories.names != scenes.names:
            raise ValueError(
                f"dataset 'shapes' has other classes than the model's {len(categories)}"
            )
        return scenes
    paths = resolve_dataset(name, root)
    images, annotations = paths.split(split)
    content = None
    if paths.format != "coco":
        content, problems = READERS[paths.format](images, annotations)
        if problems:
            _logger.warning("%s: left out %s", annotations, summarize(problems))
    return CocoInstances(images, annotations, categories, content=content)
