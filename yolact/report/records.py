"""What the viewer is told of an image; `assets/matching.js` is its reader.

The page matches anew whenever a threshold moves, so it gets overlaps instead of matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.annotations.polygons import Polygon, trace
from data.annotations.run_lengths import decode_checked, measure
from data.sample import RunLengths
from yolact.evaluation.matches import Rows

from .evaluation_data import Shape, overlaps

LEAST_OVERLAP = 0.1
VIEW = 1024  # units along the longer side of an image
_UNITS = 10_000  # of a score or an overlap: whole numbers are short, and compare exactly
_TOLERANCE = 0.7  # of outlines, in pixels


def in_units(values: NDArray[np.float64]) -> list[Any]:
    """Round scores or overlaps down to ten-thousandths, so that they pass the same thresholds."""
    units: list[Any] = np.floor(values * _UNITS + 1e-6).astype(int).tolist()
    return units


def numbers_of(
    detections: Rows, objects: Rows, found: Sequence[Shape], actual: Sequence[Shape], masks: bool
) -> dict[str, object]:
    """Describe an image in numbers.

    Args:
        detections: (D,) rows of `matches.DETECTION`, in their order there.
        objects: (G,) rows of `matches.OBJECT`.
        found: D shapes.
        actual: G shapes.
        masks: whether detections are matched by masks, and not by boxes.

    Returns:
        Labels and scores of the detections, labels of the objects, which of these are crowds; and
        of each pair that overlaps the detection, the object, and the overlaps of masks (or boxes)
        and of boxes, one behind the other, the closest pair first.
    """
    is_crowd = objects["is_crowd"]
    of_boxes = overlaps(found, actual, is_crowd, masks=False)
    main = overlaps(found, actual, is_crowd, masks=True) if masks else of_boxes
    rows, columns = np.nonzero(np.maximum(main, of_boxes) >= LEAST_OVERLAP)
    # Of two objects that are equally close pycocotools takes the later one.
    order = np.lexsort((-columns, rows, -main[rows, columns]))
    rows, columns = rows[order], columns[order]
    of_pairs = (rows, columns, in_units(main[rows, columns]), in_units(of_boxes[rows, columns]))
    return {
        "found": detections["label"].tolist(),
        "scores": in_units(detections["score"]),
        "objects": objects["label"].tolist(),
        "crowds": np.flatnonzero(is_crowd).tolist(),
        "pairs": np.column_stack(of_pairs).ravel().tolist(),
    }


def outlines_of(shapes: Sequence[Shape], image_hw: tuple[int, int], masks: bool) -> dict[str, Any]:
    """Return what draws N shapes: 4 N numbers x, y, width, height, and N paths of their masks.

    Args:
        shapes: of one image.
        image_hw: its height and width in pixels.
        masks: whether paths are wanted.
    """
    scale = VIEW / max(image_hw)
    boxes = np.rint(np.array([box for box, _ in shapes]).reshape(-1) * scale)
    drawn: dict[str, Any] = {"boxes": boxes.astype(int).tolist()}
    if masks:
        drawn["paths"] = [_path_of_mask(mask, scale) for _, mask in shapes]
    return drawn


def _path_of_mask(mask: RunLengths, scale: float) -> str:
    left, top, width, height = map(int, measure(mask)[0])
    bitmap = decode_checked(mask)[top : top + height, left : left + width]
    return svg_path(trace(bitmap, (left, top), max(_TOLERANCE, 1 / scale)), scale)


def svg_path(polygons: Sequence[Polygon], scale: float) -> str:
    """Write outlines and holes as an SVG path of relative whole steps, which is short."""
    parts, start = [], np.zeros(2, int)
    for polygon in polygons:
        for ring in (polygon.outline, *polygon.holes):
            points = np.rint(ring * scale).astype(int)
            steps = np.diff(points, axis=0, prepend=start[None])
            steps = np.concatenate((steps[:1], steps[1:][steps[1:].any(axis=1)]))
            parts.append("m" + " ".join(map(str, steps.ravel().tolist())) + "z")
            start = points[0]  # where the line returns to
    return "".join(parts).replace(" -", "-")
