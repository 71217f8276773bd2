"""The worst images of an evaluation: objects missed, and detections where nothing is."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from data.annotations.run_lengths import decode
from data.sample import Dataset
from layers.instances import Instances
from yolact.drawing.detections import PALETTE, Color
from yolact.drawing.side_by_side import Panel, objects_to_draw, side_by_side, write_jpeg
from yolact.evaluation.confusion import Integers, Outcome
from yolact.evaluation.matches import Rows
from yolact.evaluation.result_files import CocoResults

from .page import Picture

logger = logging.getLogger(__name__)

_RED, _BLUE, _ORANGE = PALETTE[0], PALETTE[1], PALETTE[3]
_NO_MASK = np.zeros((1, 1), np.uint8)
_SIDE = 540  # of a panel, in pixels


@dataclass(frozen=True)
class Shown:
    """The input of the pictures.

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
        objects = self._drawn(image_id, rows, boxes, bitmaps)
        missed = np.count_nonzero(~outcome.is_found[here])
        title = f"ground truth: {len(here)} objects, {missed} not found"
        return Panel(title, objects, False, self._colors(rows, outcome.seen_as[here]))

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
        objects = self._drawn(image_id, rows, boxes, bitmaps, scores)
        wrong = np.count_nonzero(~outcome.is_right[here])
        title = f"detected: {len(here)}, {wrong} wrong"
        return Panel(title, objects, True, self._colors(rows, outcome.shows[here]))

    def _drawn(
        self,
        image_id: int,
        rows: Rows,
        boxes: Sequence[Sequence[float]],
        bitmaps: Iterable[NDArray[np.uint8]],
        scores: Sequence[float] | None = None,
    ) -> Instances:
        """Make drawable objects of N boxes x, y, width, height and (H, W) bitmaps."""
        corners = np.array(boxes, np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        return objects_to_draw(
            bitmaps if self.masks else repeat(_NO_MASK, len(rows)),
            corners,
            rows["label"].tolist(),
            self.results.images[image_id],
            self.names,
            scores,
        )

    def _colors(self, rows: Rows, other: Integers) -> list[Color]:
        """Return the colour of each object, or detection, by the label the other side gives it."""
        nothing = self.outcome.num_classes
        pairs = zip(rows["label"].tolist(), other.tolist(), strict=True)
        return [
            _RED if theirs == nothing else _BLUE if theirs == own else _ORANGE
            for own, theirs in pairs
        ]


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
