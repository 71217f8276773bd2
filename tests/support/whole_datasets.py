"""COCO datasets of any objects, and all masks of a dataset that was opened."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from pycocotools import mask as mask_utils

from data.annotations.coco import CocoInstances

Bitmap = NDArray[np.bool_]
Objects = list[tuple[str, Any]]  # class, and outline in COCO's form


def raster(outline: Any, image_hw: tuple[int, int]) -> Bitmap:
    """Draw an outline by pycocotools itself."""
    if isinstance(outline, list):
        outline = mask_utils.merge(mask_utils.frPyObjects(outline, *image_hw))
    return np.asarray(mask_utils.decode(outline)).astype(bool)


def run_lengths(bitmap: Bitmap) -> dict[str, Any]:
    found = mask_utils.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def write_coco(
    folder: Path,
    splits: dict[str, dict[str, tuple[tuple[int, int], Objects]]],
    classes: tuple[str, ...] = ("cat", "dog", "unused"),
) -> Path:
    """Write images of noise with objects, by split and name of the image; "" is no split."""
    for split, images in splits.items():
        place = folder / (split or "images")
        content: dict[str, Any] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 5 * i, "name": name} for i, name in enumerate(classes, 1)]
        for number, (name, (image_hw, objects)) in enumerate(images.items(), start=1):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (*image_hw, 3), np.uint8)
            PilImage.fromarray(pixels).save(place / name)
            size = {"height": image_hw[0], "width": image_hw[1]}
            content["images"].append({"id": number, "file_name": name, **size})
            for category, outline in objects:
                is_crowd = category.startswith("crowd of ")
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": number,
                        "category_id": 5 * classes.index(category.removeprefix("crowd of ")) + 5,
                        "segmentation": outline,
                        "iscrowd": int(is_crowd),
                    }
                )
        name = f"annotations/instances_{split}.json" if split else "annotations.json"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def masks_of(dataset: CocoInstances) -> dict[str, Counter[tuple[str, bool, bytes]]]:
    """Class, whether it is a crowd, and pixels of all objects, by the stem of the image."""
    names = dict(zip(dataset.categories.category_ids, dataset.categories.names, strict=True))
    result = {}
    for index in range(len(dataset)):
        info = dataset.image_info(index)
        assert dataset.sample(index).image.shape[:2] == (info["height"], info["width"])
        result[Path(info["file_name"]).stem] = Counter(
            (names[a["category_id"]], bool(a["iscrowd"]), mask.tobytes())
            for a in dataset.annotations(index)
            for mask in [raster(a["segmentation"], (info["height"], info["width"]))]
        )
    return result


def pictures_of(dataset: CocoInstances) -> dict[str, bytes]:
    """Pixels of all images, by the stem."""
    return {
        Path(dataset.image_info(index)["file_name"]).stem: dataset.sample(index).image.tobytes()
        for index in range(len(dataset))
    }
