"""A mended copy of a dataset in COCO format, without duplicates and unusable objects."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.annotations.as_coco import coco_content
from data.annotations.coco import CocoInstances
from data.annotations.run_lengths import from_outline, measure
from data.checks.objects import MIN_AREA, TOLERANCE
from data.classes import Categories
from data.conversion import WRITERS, ImagePlaces, all_classes
from data.images import read_image
from data.sample import Annotation
from yolact.files import write_json

from .findings import Findings
from .notices import find_duplicate_pairs

Points = NDArray[np.float64]
"""(P, 2) x, y in pixels."""


def write_mended(findings: Findings, folder: Path, link: bool = False) -> dict[str, Counter[str]]:
    """Write a copy of a dataset without errors that can be recognised for certain.

    Among byte-identical images, the one with most objects is kept, with its labels; with equal
    numbers the first one, so the one in `train` before the one in `val`. Of two objects of one
    class in the same place, the first is kept. Objects without area inside the image are dropped.
    Sizes are those of the files, boxes those of the outlines.

    Args:
        findings: findings in the dataset.
        folder: folder for `annotations/`, and a folder of images for each split.
        link: link the images instead of copying them, if the system can.

    Returns:
        Counts of what was left out of each split, and of what was cut.

    Raises:
        ValueError: the folder is not empty, or the dataset has no files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: a mended copy needs a folder of its own")
    if not findings.splits:
        raise ValueError(f"{findings.name}: there is no split that could be opened and mended")
    counts = {}
    categories = all_classes([dataset.categories for dataset in findings.splits.values()])
    images = ImagePlaces(folder, WRITERS["coco"].images, "link" if link else "copy")
    for split, dataset in findings.splits.items():
        mended = _Mended(findings, split, dataset, categories)
        content = mended.content(images)
        write_json(folder / "annotations" / f"instances_{split}.json", content)
        counts[split] = mended.counts
    return counts


class _Mended:
    """A split while it is mended.

    Attributes:
        counts: counts of objects and images left out or corrected so far.
    """

    def __init__(
        self, findings: Findings, split: str, dataset: CocoInstances, categories: Categories
    ) -> None:
        self.counts = Counter({f"annotations with {k}": n for k, n in dataset.left_out.items()})
        self.counts += dataset.mended
        self._split, self._dataset, self._categories = split, dataset, categories
        self._copies: set[int] = set()
        for group, places in findings.image_duplicates:
            if group.is_exact:
                kept = max(places, key=lambda p: len(findings.splits[p.split].annotations(p.image)))
                self._copies.update(p.image for p in places if p.split == split and p != kept)

    def content(self, images: ImagePlaces) -> dict[str, object]:
        """Return the annotations, and copy or link the images."""
        content = coco_content(self._dataset, 0)
        content["categories"] = self._categories.to_coco_json()
        for index in range(len(self._dataset)):
            info, source = self._dataset.image_info(index), self._dataset.image_path(index)
            image_hw = info["height"], info["width"]
            if self._is_good(index, image_hw):
                info["file_name"] = images.put(source, info["file_name"], self._split)
                content["images"].append(info)
                content["annotations"] += self._objects(index, image_hw)
        for found in content["annotations"]:
            name = self._dataset.categories.name_of[found["category_id"]]
            found["category_id"] = self._categories.id_of[name]
        return {**content}

    def _is_good(self, index: int, image_hw: tuple[int, int]) -> bool:
        if index in self._copies:
            self.counts["images that were there twice"] += 1
            return False
        try:
            actual_hw = read_image(self._dataset.image_path(index), image_hw).shape[:2]
        except (OSError, ValueError):
            self.counts["images that cannot be read"] += 1
            return False
        self.counts["images of another size than annotated"] += actual_hw != image_hw
        return actual_hw == image_hw

    def _objects(self, index: int, image_hw: tuple[int, int]) -> Iterator[Annotation]:
        """Yield the usable objects of an image, with boxes around their outlines."""
        parts = self._dataset.annotations(index)
        classes: dict[int, list[int]] = defaultdict(list)
        for place, found in enumerate(parts):
            classes[found["category_id"]].append(place)
        duplicates = {
            places[later]
            for places in classes.values()
            for _, later in find_duplicate_pairs([parts[place] for place in places], image_hw)
        }
        self.counts["objects that were annotated twice"] += len(duplicates)
        for place, found in enumerate(parts):
            if place in duplicates:
                continue
            outline = found["segmentation"]
            if not outline:  # a box alone
                yield found
                continue
            mask = from_outline(outline, image_hw)
            box, area = measure(mask)
            if area < MIN_AREA:
                self.counts["objects without area inside of the image"] += 1
                continue
            if isinstance(outline, list):
                points = np.concatenate([np.reshape(ring, (-1, 2)) for ring in outline])
                if _is_inside(points, image_hw):
                    box = _box_around(points, image_hw)
                else:
                    self.counts["outlines cut at the border of the image"] += 1
                    outline = mask
            yield {**found, "segmentation": outline, "bbox": box, "area": area}


def _is_inside(points: Points, image_hw: tuple[int, int]) -> bool:
    """Tell whether an outline is inside the image, up to rounding."""
    limits = np.array(image_hw[::-1]) + TOLERANCE
    return bool((points >= -TOLERANCE).all() and (points <= limits).all())


def _box_around(points: Points, image_hw: tuple[int, int]) -> list[float]:
    """Return x, y, width, height of the part of an outline inside the image."""
    inside = points.clip(0, image_hw[::-1])
    low, high = inside.min(axis=0), inside.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]
