"""The files from which the page shows images, and counts what is right and wrong in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.sample import Dataset
from yolact.evaluation.confusion import MIN_OVERLAP, Outcome
from yolact.evaluation.matches import DETECTION, OBJECT, Matches, Rows
from yolact.files import whole_file

from .evaluation_data import EvaluationData
from .page import ASSETS, DATA, FOLDER, STYLE
from .pictures import PictureWriter
from .records import in_units, numbers_of, outlines_of

LEAST_SCORE = 0.05
"""Detections that score lower are left out, unless the report's own threshold is lower."""


@dataclass(frozen=True)
class ViewerData:
    """The input of the viewer.

    Attributes:
        data: detections and objects.
        matches: of boxes or of masks.
        outcome: at the report's threshold.
        names: label -> class name.
        files: image id -> file name, of every image looked at.
    """

    data: EvaluationData
    matches: Matches
    outcome: Outcome
    names: tuple[str, ...]
    files: Mapping[int, str]

    @property
    def least_score(self) -> float:
        """The score from which on detections are told to the page."""
        return min(LEAST_SCORE, self.outcome.score_threshold)

    def settings(self) -> dict[str, object]:
        """Return what the page knows beside the images."""
        of_page = self.least_score, self.outcome.score_threshold, MIN_OVERLAP
        least_score, score, overlap = in_units(np.array(of_page))
        kind = "mask" if self.data.masks else "box"
        thresholds = {"leastScore": least_score, "score": score, "overlap": overlap}
        return {"names": self.names, "kind": kind, **thresholds}

    def records(self, outlines: int) -> Iterator[dict[str, Any]]:
        """Describe all images, the worst first, and draw the outlines of the first ones."""
        data, hw = self.data, self.data.results.images
        found, actual = by_image(self.matches.detections), by_image(self.matches.objects)
        worst = [row.image_id for row in self.outcome.errors()]
        for place, image_id in enumerate(dict.fromkeys((*worst, *hw))):
            detections = found.get(image_id, np.zeros(0, DETECTION))
            detections = detections[detections["score"] >= self.least_score]
            detections = detections[np.argsort(-detections["score"], kind="stable")]
            objects = actual.get(image_id, np.zeros(0, OBJECT))
            shapes = data.detected(detections["number"]), data.objects(objects["number"])
            record = {"id": image_id, "file": self.files[image_id]}
            record |= numbers_of(detections, objects, *shapes, data.masks)
            if place < outlines:
                record["size"] = hw[image_id][::-1]
                record["outlines"] = [outlines_of(x, hw[image_id], data.masks) for x in shapes]
            yield record


def write_viewer(
    folder: Path, viewer_data: ViewerData, dataset: Dataset, max_pictures: int
) -> None:
    """Write scripts, numbers of all images, and pictures of the worst, in place of earlier ones.

    Args:
        folder: of the report; gets a folder `viewer`.
        viewer_data: what was detected, and what became of it.
        dataset: the images; of those that cannot be read there is no picture.
        max_pictures: at most so many images are shown; the others are counted only.
    """
    folder = folder / FOLDER
    pictures = PictureWriter(folder, dataset)
    for asset in (*STYLE.iterdir(), *ASSETS.iterdir()):
        if asset.suffix in (".css", ".js", ".svg"):
            shutil.copyfile(asset, folder / asset.name)
    with whole_file(folder / DATA) as part, part.open("w", encoding="utf-8") as file:
        file.write(f"const REPORT = {json.dumps(viewer_data.settings())};\nREPORT.images = [\n")
        for place, record in enumerate(viewer_data.records(max_pictures)):
            name = f"{place + 1:04}.jpg"
            if place < max_pictures and pictures.write(record["id"], name):
                record["picture"] = name
            file.write(json.dumps(record, separators=(",", ":")) + ",\n")
        file.write("];\n")


def by_image(rows: Rows) -> dict[int, Rows]:
    """Group rows by their image."""
    rows = rows[np.argsort(rows["image_id"], kind="stable")]
    images, starts = np.unique(rows["image_id"], return_index=True)
    parts = np.split(rows, starts[1:]) if len(rows) else ()
    return dict(zip(images.tolist(), parts, strict=True))
