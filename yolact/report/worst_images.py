"""The worst images of an evaluation: what was missed, and what was seen where nothing is."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO

from data.annotations.run_lengths import decode
from data.sample import Dataset
from yolact.drawing.detections import PALETTE
from yolact.drawing.side_by_side import Panel, objects_to_draw, side_by_side, write_jpeg
from yolact.evaluation.confusion import Integers, Outcome
from yolact.evaluation.result_files import CocoResults
from yolact.results.detections import Detections

from .page import Picture

logger = logging.getLogger(__name__)

_RED, _BLUE, _ORANGE = 0, 1, 3  # of the palette
_NO_MASK = np.zeros((1, 1), np.uint8)
_SIDE = 540  # of a panel, in pixels


@dataclass(frozen=True)
class Shown:
    """What the pictures are drawn from.

    Attributes:
        results: the detections.
        truth: the objects, `CocoEvaluator.ground_truth`.
        outcome: what became of them.
        names: label -> class name.
        masks: whether to draw masks.
    """

    results: CocoResults
    truth: COCO
    outcome: Outcome
    names: tuple[str, ...]
    masks: bool

    def objects(self, image_id: int) -> Panel:
        """Show the objects of an image: found blue, missed red, confused orange."""
        outcome = self.outcome
        here = np.flatnonzero(outcome.objects["image_id"] == image_id)
        here = here[np.argsort(outcome.is_found[here], kind="stable")]  # errors on top
        parts = [self.truth.anns[number] for number in outcome.objects["number"][here]]
        boxes = [part["bbox"] for part in parts]
        rows, bitmaps = outcome.objects[here], map(self.truth.annToMask, parts)
        objects = self._drawn(image_id, rows, outcome.seen_as[here], boxes, bitmaps)
        missed = np.count_nonzero(~outcome.is_found[here])
        return Panel(f"ground truth: {len(here)} objects, {missed} not found", objects, False)

    def detections(self, image_id: int) -> Panel:
        """Show the detections in an image: right blue, false red, confused orange."""
        outcome = self.outcome
        here = np.flatnonzero(outcome.detections["image_id"] == image_id)
        here = here[np.argsort(-outcome.detections["score"][here], kind="stable")]
        rows = outcome.detections[here]
        parts = [self.results.detections[number - 1] for number in rows["number"]]
        bitmaps = (
            decode(self.results.run_lengths(part), self.results.images[image_id]) for part in parts
        )
        boxes = [part.box for part in parts]
        scores = rows["score"].tolist()
        objects = self._drawn(image_id, rows, outcome.shows[here], boxes, bitmaps, scores)
        wrong = np.count_nonzero(~outcome.is_right[here])
        return Panel(f"detected: {len(here)}, {wrong} wrong", objects, True)

    def _drawn(
        self,
        image_id: int,
        rows: NDArray[Any],
        other: Integers,
        boxes: Sequence[Sequence[float]],
        bitmaps: Iterable[NDArray[np.uint8]],
        scores: Sequence[float] | None = None,
    ) -> Detections:
        """Draw objects or detections by what the other side says of them."""
        corners = np.array(boxes, np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        objects = objects_to_draw(
            bitmaps if self.masks else repeat(_NO_MASK, len(rows)),
            corners,
            rows["label"].tolist(),
            self.results.images[image_id],
            self.names,
            scores,
        )
        nothing = other == self.outcome.num_classes
        colors = np.where(nothing, _RED, np.where(other == rows["label"], _BLUE, _ORANGE))
        return _colored(objects, torch.from_numpy(colors))


def write_worst_pictures(
    folder: Path, shown: Shown, dataset: Dataset, files: Mapping[int, str], count: int
) -> list[Picture]:
    """Draw the worst images, and delete the pictures of an earlier report.

    Args:
        folder: gets worst_01.jpg and so on.
        shown: objects and detections.
        dataset: the images; those that cannot be read are left out.
        files: image id -> file name.
        count: at most so many.
    """
    for old in folder.glob("worst_??.jpg"):
        old.unlink()
    index_of = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    pictures: list[Picture] = []
    for image_id, missed, false in shown.outcome.errors()[:count]:
        try:
            image = dataset.sample(index_of[image_id]).image
        except (OSError, ValueError) as error:
            logger.warning("not drawn: %s", error)
            continue
        panels = (shown.objects(image_id), shown.detections(image_id))
        path = folder / f"worst_{len(pictures) + 1:02}.jpg"
        write_jpeg(path, side_by_side(image, panels, _SIDE))
        caption = f"{files[image_id]}: {missed} missed, {false} false"
        pictures.append(Picture(path.name, "ground truth and detections", caption))
    return pictures


def _colored(objects: Detections, colors: torch.Tensor) -> Detections:
    """Relabel objects so that each is drawn in a chosen colour of the palette."""
    names = tuple(name for name in objects.class_names for _ in PALETTE)
    return replace(objects, labels=objects.labels * len(PALETTE) + colors, class_names=names)
