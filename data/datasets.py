"""A dataset by name: catalogued, a folder, a JSON file, or generated shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .catalog import Categories, resolve_dataset
from .coco import CocoInstances
from .shapes import ShapeScenes, shapes_split

SHAPES = "shapes"

Split = Literal["train", "val"]


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
    if split == "train":
        images, annotations = paths.train_images, paths.train_annotations
    else:
        images, annotations = paths.val_images, paths.val_annotations
    if images is None or annotations is None:
        raise ValueError(f"dataset {name!r} has no {split} split")
    return CocoInstances(images, annotations, categories)
