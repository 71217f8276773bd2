"""Pictures of findings: what is annotated beside what the model sees, cut out and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np

from data.annotations.run_lengths import decode
from data.images import Image
from layers.instances import Instances
from yolact.drawing.detections import Color
from yolact.drawing.side_by_side import (
    GAP,
    TITLE_HEIGHT,
    Panel,
    grid,
    objects_to_draw,
    side_by_side,
    titled,
    write_jpeg,
)

from .findings import Findings
from .image_comparison import Detection, labels_of
from .notices import Place
from .suspects import Suspect

Window = tuple[int, int, int, int]
Shown = TypeVar("Shown", Suspect, Place)

SAID: Color = (230, 159, 0)
SEES: Color = (0, 114, 178)
_SIDE, _SMALL = 220, 320  # in pixels, of a panel and of a single picture
_MARGIN = 0.6  # around what is suspected, as a share of its longer side
_LEAST = 96  # pixels of an image that are shown at least
_COLUMNS = 3


def draw(findings: Findings, shown: Suspect | Place, image: Image) -> Image:
    """Show a suspect, as annotated beside what the model sees; or a place with its objects."""
    if isinstance(shown, Place):
        objects = _labels(findings, shown, shown.objects)
        window = _window(objects, image)
        panel = Panel("", _placed(objects, window), False)
        return side_by_side(_cut(image, window), [panel], _SMALL)[TITLE_HEIGHT:]
    label, detection = shown.label, shown.detection
    said = _labels(findings, shown, (label.place,) if label else ())
    sees = [detection] if detection else []
    window = _window([*said, *sees], image)
    panels = [
        Panel(title if objects else nothing, _placed(objects, window), scores, colors)
        for title, nothing, objects, scores, colors in (
            ("annotated", "not annotated", said, False, [SAID] * len(said)),
            ("the model sees", "the model sees none", sees, True, [SEES] * len(sees)),
        )
    ]
    return side_by_side(_cut(image, window), panels, _SIDE)


def write_sheet(findings: Findings, path: Path) -> Path:
    """Write one JPEG with all suspects, the first one first, each under what is said of it.

    Raises:
        ValueError: there are none to show.
    """
    tiles = [
        titled(f"{number}  {caption(findings, suspect)}", picture)
        for number, suspect in enumerate(findings.suspects, start=1)
        for _, picture in pictures(findings, [suspect])
    ]
    if not tiles:
        raise ValueError(f"{path}: the model contradicts no label that could be shown")
    return write_jpeg(path, grid(tiles, _COLUMNS, 2 * GAP))


def pictures(findings: Findings, shown: Iterable[Shown]) -> Iterator[tuple[Shown, Image]]:
    """Yield pictures of what can be read: what cannot is told as a problem already."""
    for each in shown:
        try:
            image = findings.splits[each.split].sample(each.image).image
        except (OSError, ValueError):
            continue
        yield each, draw(findings, each, image)


def caption(findings: Findings, suspect: Suspect) -> str:
    """Say what is suspected, in which image."""
    name = findings.info(suspect)["file_name"]
    return f"{suspect.kind} {suspect.score:.2f}  {name}: {suspect.describe()}"


def _labels(findings: Findings, shown: Shown, objects: Sequence[int]) -> list[Detection]:
    dataset = findings.splits[shown.split]
    info, annotations = dataset.image_info(shown.image), dataset.annotations(shown.image)
    names = dataset.categories.name_of
    chosen = [annotations[number] for number in objects]
    labels = chain(*labels_of(chosen, names, (info["height"], info["width"])))
    return [Detection(label.name, 1.0, label.box, label.mask) for label in labels]


def _window(objects: Sequence[Detection], image: Image) -> Window:
    """Choose the part of an image that shows objects with some of what is around; all for none."""
    height, width = image.shape[:2]
    if not objects:
        return 0, 0, width, height
    boxes = np.array([each.box for each in objects])
    start, end = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    half = np.maximum(_LEAST, (1 + _MARGIN) * (end - start).max()) / 2
    x1, y1 = np.clip((start + end) / 2 - half, 0, None).round().astype(int).tolist()
    x2, y2 = np.ceil((start + end) / 2 + half).astype(int).tolist()
    return min(x1, width - 1), min(y1, height - 1), min(x2, width), min(y2, height)


def _cut(image: Image, window: Window) -> Image:
    x1, y1, x2, y2 = window
    return np.ascontiguousarray(image[y1:y2, x1:x2])


def _placed(objects: Sequence[Detection], window: Window) -> Instances:
    """Move objects into a part of their image."""
    x1, y1, x2, y2 = window
    boxes = np.array([each.box for each in objects], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return objects_to_draw(
        (decode(each.mask, (0, 0))[y1:y2, x1:x2] for each in objects),
        boxes - np.array((x1, y1, x1, y1), np.float32),
        range(len(objects)),
        (y2 - y1, x2 - x1),
        [each.name for each in objects],
        [each.score for each in objects],
    )
