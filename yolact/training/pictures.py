"""Pictures of a training run: its input, and its detections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.utils import make_grid

from data.annotations.run_lengths import decode
from data.augment.transform import TrainTransform
from data.images import Image
from data.loader import TrainingData
from data.sample import Dataset, Sample
from layers.instances import Instances
from yolact.config import Config
from yolact.drawing.detections import draw_detections
from yolact.drawing.side_by_side import (
    GAP,
    Panel,
    grid,
    objects_to_draw,
    side_by_side,
    write_jpeg,
)
from yolact.evaluation.coco import eval_order

logger = logging.getLogger(__name__)


def training_data(dataset: Dataset, config: Config, seed: int = 0) -> TrainingData:
    """Return a dataset as a configuration asks to augment it."""
    augment = config.augment
    transform = TrainTransform(config.model.image_size, augment)
    return TrainingData(dataset, transform, seed, augment.copy_paste, augment.paste_beside)


def picture_of_training_data(data: TrainingData, path: Path, count: int = 16) -> Path:
    """Write a grid of images as training sees them: augmented, with their ground truth drawn.

    Images that cannot be read are skipped with a warning.

    Args:
        data: images and their augmentation; its seed determines all random choices.
        path: JPEG file to write.
        count: maximum number of images, drawn at random.

    Returns:
        The path.

    Raises:
        ValueError: no image can be read.
    """
    rng = np.random.default_rng(data.seed)
    tiles: list[Tensor] = []
    for index in rng.permutation(len(data)).tolist():
        if len(tiles) == count:
            break
        try:
            tiles.append(_tile(data, index, rng))
        except (ValueError, OSError) as error:
            logger.warning("not drawn: %s", error)
    if not tiles:
        raise ValueError("no image of the dataset can be read")
    columns = int(np.ceil(np.sqrt(len(tiles))))
    grid = make_grid(torch.stack(tiles), nrow=columns, padding=4, pad_value=255)
    return write_jpeg(path, grid.permute(1, 2, 0).numpy())


def _tile(data: TrainingData, index: int, rng: np.random.Generator) -> Tensor:
    image, target = data.paste_onto(data.transform(data.dataset.sample(index), rng), rng)
    target = target[~target.is_crowd]
    pixels: NDArray[np.uint8] = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    objects = objects_to_draw(
        target.masks.numpy(),
        target.boxes.numpy(),
        target.labels.tolist(),
        (pixels.shape[0], pixels.shape[1]),
        data.dataset.categories.names,
    )
    drawn = draw_detections(pixels, objects, scores=False)
    return torch.from_numpy(drawn).permute(2, 0, 1)


VALIDATION_PICTURES = "val_pictures.jpg"


def write_validation_pictures(
    folder: Path,
    dataset: Dataset,
    predict: Callable[[Image], Instances],
    count: int = 8,
    score_threshold: float = 0.15,
) -> Path | None:
    """Show what a model finds in the first validation images, beside the ground truth.

    They are the same images every time, see `eval_order`; those that cannot be read are skipped.

    Args:
        folder: folder for `VALIDATION_PICTURES`, which replaces an earlier one.
        dataset: images with their ground truth.
        predict: (H, W, 3) uint8 RGB -> detections of that image.
        count: maximum number of images.
        score_threshold: minimum score of drawn detections.

    Returns:
        The picture's path, or None for a dataset without images.
    """
    tiles = []
    for index in eval_order(dataset.image_ids)[:count]:
        try:
            sample = dataset.sample(index)
            found = predict(sample.image)
            truth = _ground_truth(sample, found.class_names)
        except (OSError, ValueError) as error:
            logger.warning("not drawn: %s", error)
            continue
        found = found.to("cpu")[found.scores.cpu() >= score_threshold]
        panels = (Panel("ground truth", truth, False), Panel("detected", found, True))
        tiles.append(side_by_side(sample.image, panels, 400))
    if not tiles:
        return None
    return write_jpeg(folder / VALIDATION_PICTURES, grid(tiles, 2, GAP))


def _ground_truth(sample: Sample, class_names: Sequence[str]) -> Instances:
    image_hw = (sample.image.shape[0], sample.image.shape[1])
    shown = np.flatnonzero(~sample.is_crowd)
    bitmaps = (decode(sample.segmentations[index], image_hw) for index in shown)
    labels = sample.labels[shown].tolist()
    return objects_to_draw(bitmaps, sample.boxes[shown], labels, image_hw, class_names)
