"""A mended copy of a dataset, as COCO: what is there twice or cannot be used is gone."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from data.annotations.as_coco import coco_content
from data.annotations.coco import CocoInstances
from data.annotations.run_lengths import from_outline, measure
from data.images import read_image, read_image_hw
from data.sample import Annotation, ImageInfo
from yolact.files import write_json

from .findings import Findings
from .notices import twins_among

_MIN_AREA = 0.5  # pixels; what covers less is no object
_TOLERANCE = 1.5  # pixels that an outline may lie outside, which is rounding


def write_mended(findings: Findings, folder: Path, link: bool = False) -> dict[str, Counter[str]]:
    """Write a copy of a dataset without what a machine can tell to be wrong.

    Of images that are equal byte for byte the first stays, so the one in `train` before the one in
    `val`, with its labels; an image that is listed twice keeps those of both. Of two objects of one
    class in the same place the first stays, too. Images of another size than
    annotated go, and objects without area inside of the image. Boxes are made from the outlines.

    Args:
        findings: of the dataset.
        folder: gets `annotations/`, and a folder of images for each split.
        link: link the images instead of copying them.

    Returns:
        What was left out of each split, and what was corrected.

    Raises:
        ValueError: the folder has something in it, or the dataset has no files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: a mended copy needs a folder of its own")
    if not findings.splits:
        raise ValueError(f"{findings.name}: there is no split that could be opened and mended")
    counts = {}
    for split, dataset in findings.splits.items():
        mended = _Mended(findings, split, dataset)
        mended.write(folder, link)
        counts[split] = mended.counts
    return counts


Points = NDArray[np.float64]
"""(P, 2) x, y in pixels."""


class _Mended:
    """A split while it is mended.

    Attributes:
        counts: what was left out or corrected so far.
    """

    def __init__(self, findings: Findings, split: str, dataset: CocoInstances) -> None:
        self.counts = Counter({f"annotations with {k}": n for k, n in dataset.left_out.items()})
        self._split, self._dataset = split, dataset
        self._copies: set[int] = set()
        self._same_file: dict[int, list[int]] = defaultdict(
            list
        )  # of an image that is listed twice
        for twins, places in findings.copies:
            own = [place.image for place in places if place.split == split]
            is_first = places[0].split == split
            for index in own[is_first:] if twins.is_exact else ():
                self._copies.add(index)
                if is_first and dataset.image_path(index) == dataset.image_path(own[0]):
                    self._same_file[own[0]].append(index)

    def write(self, folder: Path, link: bool) -> None:
        """Write annotations and images."""
        content = coco_content(self._dataset)
        content["images"], content["annotations"] = [], []
        for index in range(len(self._dataset)):
            info = self._image(index)
            if info is None:
                continue
            target = folder / self._split / _safe_name(info["file_name"], index)
            info["file_name"] = target.relative_to(folder / self._split).as_posix()
            _place(self._dataset.image_path(index), target, link)
            content["images"].append(info)
            content["annotations"] += self._objects(index, (info["height"], info["width"]))
        write_json(folder / "annotations" / f"instances_{self._split}.json", {**content})

    def _image(self, index: int) -> ImageInfo | None:
        """Return the entry of an image with its real size, None to leave it out."""
        info, path = self._dataset.image_info(index), self._dataset.image_path(index)
        if index in self._copies:
            self.counts["images that were there twice"] += 1
            return None
        stated = info["height"], info["width"]
        try:
            actual = read_image_hw(path)
            if actual != stated:  # so it may be turned, by a note in it that the annotator ignored
                height, width = read_image(path, stated).shape[:2]
                actual = height, width
        except (OSError, ValueError):
            self.counts["images that cannot be read"] += 1
            return None
        if sorted(actual) != sorted(stated):
            self.counts["images of another size than annotated"] += 1
            return None
        self.counts["sizes corrected"] += actual != stated
        return {**info, "height": actual[0], "width": actual[1]}

    def _objects(self, index: int, image_hw: tuple[int, int]) -> Iterator[Annotation]:
        """Yield the objects of an image that can be used, with boxes around their outlines."""
        number = self._dataset.image_info(index)["id"]
        sources = (index, *self._same_file[index])
        parts = list(chain.from_iterable(map(self._dataset.annotations, sources)))
        twins = {
            later
            for earlier, later in twins_among(parts, image_hw)
            if parts[earlier]["category_id"] == parts[later]["category_id"]
        }
        self.counts["objects that were annotated twice"] += len(twins)
        for place, found in enumerate(parts):
            if place in twins:
                continue
            part: Annotation = {**found, "image_id": number}
            outline = part["segmentation"]
            if not outline:  # a box alone
                yield part
                continue
            if isinstance(outline, dict) and tuple(outline["size"]) != image_hw:
                self.counts["masks of another size than their image"] += 1
                continue
            mask = from_outline(outline, image_hw)
            box, area = measure(mask)
            if area < _MIN_AREA:
                self.counts["objects without area inside of the image"] += 1
                continue
            if isinstance(outline, list):
                points = np.concatenate([np.reshape(ring, (-1, 2)) for ring in outline])
                if _is_inside(points, image_hw):
                    box = _box_around(points, image_hw)
                else:
                    self.counts["outlines cut at the border of the image"] += 1
                    outline = mask
            self.counts["boxes corrected"] += not np.allclose(box, part["bbox"], atol=_TOLERANCE)
            yield {**part, "segmentation": outline, "bbox": box, "area": area}


def _is_inside(points: Points, image_hw: tuple[int, int]) -> bool:
    """Tell whether an outline leaves the image by no more than rounding does."""
    limits = np.array(image_hw[::-1]) + _TOLERANCE
    return bool((points >= -_TOLERANCE).all() and (points <= limits).all())


def _box_around(points: Points, image_hw: tuple[int, int]) -> list[float]:
    """Return x, y, width, height around an outline, as far as it is in the image."""
    inside = points.clip(0, image_hw[::-1])
    low, high = inside.min(axis=0), inside.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def _safe_name(name: str, index: int) -> PurePosixPath:
    """Return a name of an image, which may be anything, as a path that stays where it is put."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    kept = [part.replace(":", "_") for part in parts]
    return PurePosixPath(*kept) if kept else PurePosixPath(f"{index}.jpg")


def _place(source: Path, target: Path, link: bool) -> None:
    """Copy or link a file, never over another one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(source.resolve())
    elif target.exists():
        raise ValueError(f"two images would become {target}: rename one of them")
    else:
        shutil.copyfile(source, target)
