"""A dataset of generated scenes, with which everything can be tried without a download.

Overlapping, textured, shadowed objects of eight classes on cluttered backgrounds, with exact masks
of their visible parts. A scene depends on (seed, index) alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.annotations.as_coco import annotation_of, coco_content, coco_index
from data.annotations.run_lengths import encode
from data.classes import SHAPE_CLASSES, Categories
from data.files import replace_file
from data.images import Image
from data.sample import Annotation, ImageInfo, Sample
from layers.masks import mask_boxes

from .drawing import (
    TEXTURES,
    Rng,
    expose,
    paint_background,
    paint_shape,
    random_colors,
    random_light,
)
from .objects import FULL_TURN, Floats, RasterizedShape, Shape, rasterize

if TYPE_CHECKING:
    from pycocotools.coco import COCO

MIN_VISIBLE_PIXELS = 60
MIN_VISIBLE_SHARE = 0.6


@dataclass(frozen=True, eq=False)
class _Layout:
    """The M objects of a scene, front to back; `owner` (H, W) is each pixel's object, or -1."""

    shapes: list[tuple[Shape, RasterizedShape]]
    owner: NDArray[np.int8]

    @property
    def labels(self) -> NDArray[np.int64]:
        names = [SHAPE_CLASSES.names.index(shape.outline) for shape, _ in self.shapes]
        return np.array(names, dtype=np.int64)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """The visible part of each object, (M, H, W)."""
        numbers = np.arange(len(self.shapes), dtype=np.int8)[:, None, None]
        return np.asarray(self.owner[None] == numbers, dtype=np.bool_)


@dataclass(frozen=True)
class ShapeScenes:
    """Generated scenes; the same arguments give the same pixels.

    Args:
        length: number of scenes.
        image_size: side of the square images in pixels.
        seed: non-negative; another seed gives other scenes.

    Raises:
        ValueError: an argument is out of range.
    """

    length: int = 5000
    image_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("length", 0), ("image_size", 16), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    def __len__(self) -> int:
        return self.length

    @property
    def categories(self) -> Categories:
        """Class names with their COCO identifiers, 1 to 8."""
        return SHAPE_CLASSES

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The identifiers of the scenes: index + 1."""
        return tuple(range(1, self.length + 1))

    def image_info(self, index: int) -> ImageInfo:
        """Return the COCO `images` entry of a scene."""
        image_id, side = self._check(index) + 1, self.image_size
        return {"id": image_id, "file_name": f"{image_id:06d}.jpg", "height": side, "width": side}

    def sample(self, index: int) -> Sample:
        """Generate a scene; the outlines are bitmaps of the visible parts."""
        rng, palette, layout = self._layout(index)
        masks = layout.masks
        return Sample(
            image=_paint(rng, layout, palette),
            boxes=mask_boxes(torch.from_numpy(masks)).float().numpy(),
            labels=layout.labels,
            is_crowd=np.zeros(len(masks), dtype=np.bool_),
            segmentations=tuple(masks),
            image_id=index + 1,
        )

    def annotations(self, index: int) -> list[Annotation]:
        """Return the COCO `annotations` entries of a scene, without painting it."""
        _, _, layout = self._layout(index)
        pairs = enumerate(zip(layout.labels, layout.masks, strict=True), start=1)
        ids = self.categories.category_ids
        return [
            annotation_of(encode(mask), 100 * index + number, index + 1, ids[label])
            for number, (label, mask) in pairs
        ]

    @cached_property
    def coco(self) -> COCO:
        """The ground truth of all scenes for COCO's evaluation, made on first use."""
        return coco_index(coco_content(self))

    def _check(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} is out of range for {self.length} scenes")
        return index

    def _layout(self, index: int) -> tuple[Rng, Floats, _Layout]:
        rng = np.random.default_rng((self.seed, self._check(index)))
        palette = random_colors(rng)
        return rng, palette, _arrange(rng, (self.image_size, self.image_size), palette)


def shapes_split(
    split: Literal["train", "val"],
    length: int | None = None,
    image_size: int = 256,
    seed: int = 0,
) -> ShapeScenes:
    """Return the training or the validation scenes; no scene is in both.

    Args:
        split: which one.
        length: number of scenes; None for 20,000 in training and 500 in validation.
        image_size: side of the images in pixels.
        seed: another seed gives another pair of splits.

    Raises:
        ValueError: there is no such split.
    """
    defaults = {"train": 20_000, "val": 500}
    if split not in defaults:
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(defaults)}")
    stream = 2 * seed + list(defaults).index(split)
    return ShapeScenes(defaults[split] if length is None else length, image_size, stream)


def export_coco(dataset: ShapeScenes, folder: Path, split: str, count: int | None = None) -> Path:
    """Write FOLDER/SPLIT/000001.jpg ... and FOLDER/annotations/instances_SPLIT.json, as COCO does.

    Args:
        dataset: the scenes.
        folder: made if absent.
        split: name of the image folder and of the annotation file.
        count: how many scenes, from the first; None for all.

    Returns:
        The annotation file, which is written last and in one step.

    Raises:
        ValueError: there are fewer scenes than `count`.
    """
    count = len(dataset) if count is None else count
    if not 0 <= count <= len(dataset):
        raise ValueError(f"count is {count}; the dataset has {len(dataset)} scenes")
    images = folder / split
    images.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        bgr = cv2.cvtColor(dataset.sample(index).image, cv2.COLOR_RGB2BGR)
        encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        (images / dataset.image_info(index)["file_name"]).write_bytes(encoded.tobytes())
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    content = coco_content(dataset, count, f"generated shapes, seed {dataset.seed}")
    partial.write_text(json.dumps(content), encoding="ascii")
    replace_file(partial, path)
    return path


def random_shape(rng: Rng, name: str, image_hw: tuple[int, int], palette: Floats) -> Shape:
    """Draw an object; one in eight is small, the others span 20% to 60% of the image side."""
    size = rng.uniform(0.12, 0.2) if rng.random() < 1 / 8 else rng.uniform(0.2, 0.6)
    pair = rng.permutation(palette)[:2] + rng.uniform(-0.08, 0.08, (2, 3))
    x, y = rng.uniform(0.04, 0.96, 2) * image_hw[::-1]
    return Shape(
        outline=name,
        center=(float(x), float(y)),
        radius=size * min(image_hw) / 2,
        angle=rng.uniform(0, FULL_TURN),
        stretch=rng.uniform(0.72, 1.0),
        texture=str(rng.choice(tuple(TEXTURES))),
        colors=pair.clip(0, 1).astype(np.float32),
        frequency=rng.uniform(1.2, 3.2),
        grain=rng.random((9, 9), dtype=np.float32),
    )


def _arrange(rng: Rng, image_hw: tuple[int, int], palette: Floats) -> _Layout:
    """Place up to 6 objects from front to back, leaving out those that would be mostly hidden."""
    wanted = int(rng.integers(2, 7))
    shapes: list[tuple[Shape, RasterizedShape]] = []
    owner = np.full(image_hw, -1, dtype=np.int8)
    for _ in range(4 * wanted):
        shape = random_shape(rng, str(rng.choice(SHAPE_CLASSES.names)), image_hw, palette)
        place_behind(shape, shapes, owner)
        if len(shapes) == wanted:
            break
    return _Layout(shapes, owner)


def place_behind(
    shape: Shape, placed: list[tuple[Shape, RasterizedShape]], owner: NDArray[np.integer]
) -> None:
    """Append an object to those before it, unless they hide most of it; `owner` as in `_Layout`."""
    raster = rasterize(shape)
    outer, inner = raster.overlap((owner.shape[0], owner.shape[1]))
    visible = raster.solid[inner] & (owner[outer] < 0)
    least = max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * np.count_nonzero(raster.solid))
    if np.count_nonzero(visible) >= least:
        owner[outer][visible] = len(placed)
        placed.append((shape, raster))


def _paint(rng: Rng, layout: _Layout, palette: Floats) -> Image:
    image_hw = layout.owner.shape[0], layout.owner.shape[1]
    light = random_light(rng, image_hw)
    image = paint_background(rng, image_hw, palette)
    for shape, raster in reversed(layout.shapes):
        paint_shape(image, shape, raster, light)
    return expose(rng, image, light)
