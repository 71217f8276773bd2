"""Objects as plain values: rows of a table, COCO's lists, JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TypedDict

from data.annotations.polygons import Polygon, flat_rings, trace
from data.annotations.run_lengths import encode
from data.classes import COCO_CLASSES
from data.sample import Polygons, RunLengths
from layers.instances import Instances
from yolact.files import as_cell


class Row(TypedDict):
    """An object in a table: the corners of its box in pixels, its area in mask pixels.

    The track id is None except in a video with tracking.
    """

    source: str
    name: str
    label: int
    score: float
    x1: float
    y1: float
    x2: float
    y2: float
    area: int
    track_id: int | None


class CocoObject(TypedDict):
    """An object as COCO lists it; `bbox` is x, y, width, height in pixels."""

    image_id: int
    category_id: int
    bbox: list[float]
    area: int
    segmentation: Polygons | RunLengths
    iscrowd: int
    score: float


def run_lengths(objects: Instances, index: int) -> RunLengths:
    """Return COCO's compressed run lengths of one full-size mask, as pycocotools does."""
    window, inside = objects.crop(index)
    return encode(inside.cpu().numpy(), objects.image_hw, window[:2])


def polygons(objects: Instances, index: int, tolerance: float = 0.0) -> list[Polygon]:
    """Return one mask as polygons, see `data.annotations.polygons.trace`."""
    window, inside = objects.crop(index)
    return trace(inside.cpu().numpy(), window[:2], tolerance)


def rows(objects: Instances, source: str = "") -> Iterator[Row]:
    """Yield the objects as rows of a table."""
    values = zip(
        objects.names(),
        objects.labels.tolist(),
        objects.scores.tolist(),
        objects.boxes.tolist(),
        objects.areas.tolist(),
        [None] * len(objects) if objects.track_ids is None else objects.track_ids.tolist(),
        strict=True,
    )
    for name, label, score, (x1, y1, x2, y2), area, track_id in values:
        row = Row(
            source=source,
            name=name,
            label=label,
            score=score,
            x1=x1,
            y1=y1,
            x2=x2,
            y2=y2,
            area=area,
            track_id=track_id,
        )
        yield row


def columns(objects: Instances) -> list[str]:
    """Return the names of a table's columns."""
    names = list(Row.__annotations__)
    return names[:-1] if objects.track_ids is None else names


def csv_header(objects: Instances) -> str:
    """Return the first line of a table as CSV."""
    return ",".join(columns(objects)) + "\n"


def csv_lines(objects: Instances, source: str = "") -> str:
    """Return the other lines: scores in four digits, pixels in hundredths."""
    text, names = io.StringIO(), columns(objects)
    writer = csv.writer(text, lineterminator="\n")
    digits = dict.fromkeys(("x1", "y1", "x2", "y2"), ".2f") | {"score": ".4f"}
    for row in rows(objects, source):
        cells = {
            name: as_cell(value) if isinstance(value, str) else format(value, digits.get(name, ""))
            for name, value in row.items()
        }
        writer.writerow(cells[name] for name in names)
    return text.getvalue()


def coco_objects(
    objects: Instances,
    image_id: int,
    ids: Sequence[int] | None = None,
    tolerance: float | None = None,
) -> list[CocoObject]:
    """Return a list of objects in COCO's format.

    Args:
        objects: N objects.
        image_id: id of their image.
        ids: label -> category id; see `coco_ids` for the default.
        tolerance: write outlines as polygons, simplified by this many pixels; None for run lengths.
    """
    ids = coco_ids(objects.class_names) if ids is None else ids
    found: list[CocoObject] = []
    for index, row in enumerate(rows(objects)):
        outline: Polygons | RunLengths
        if tolerance is None:
            outline = run_lengths(objects, index)
        else:
            outline = flat_rings(polygons(objects, index, tolerance))
        entry = CocoObject(
            image_id=image_id,
            category_id=ids[row["label"]],
            bbox=[row["x1"], row["y1"], row["x2"] - row["x1"], row["y2"] - row["y1"]],
            area=row["area"],
            segmentation=outline,
            iscrowd=0,
            score=row["score"],
        )
        found.append(entry)
    return found


def coco_ids(class_names: Sequence[str]) -> Sequence[int]:
    """Return COCO's own ids for COCO's classes, else 1, 2, 3, ..."""
    is_coco = tuple(class_names) == COCO_CLASSES.names
    return COCO_CLASSES.category_ids if is_coco else range(1, len(class_names) + 1)


def plain_values(
    objects: Instances, source: str, seconds: float | None = None
) -> dict[str, object]:
    """Return all data of the objects as plain values for JSON."""
    found = [
        {
            **({} if row["track_id"] is None else {"track_id": row["track_id"]}),
            "name": row["name"],
            "label": row["label"],
            "score": row["score"],
            "box": [row["x1"], row["y1"], row["x2"], row["y2"]],
            "area": row["area"],
            "segmentation": run_lengths(objects, index),
        }
        for index, row in enumerate(rows(objects))
    ]
    height, width = objects.image_hw
    time = {} if seconds is None else {"seconds": seconds}
    return {"source": source, **time, "width": width, "height": height, "objects": found}
