"""Detections as JSON: COCO's result files, the web viewer's file, and one to resume from.

The original stored its results in a pickle. Reading a pickle runs any code in it, so results are
JSON here, and all values are checked when they are read.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data.annotations.run_lengths import check_counts
from data.problems import printable
from data.sample import RunLengths
from yolact.files import write_json
from yolact.runs.provenance import provenance

from .result_origin import Origin

logger = logging.getLogger(__name__)

FORMAT = "yolact results 2"
_WITHOUT_ORIGIN = "yolact results 1"


class Result(NamedTuple):
    """One detection, encoded.

    Attributes:
        image_id: id in the ground truth.
        category_id: category id in the ground truth; not a label.
        box: x, y, width, height in pixels.
        box_score: class probability; ranks boxes.
        mask_score: class probability, times the predicted IoU if the preset has it; ranks masks.
        mask_counts: COCO's compressed run lengths of the full-size mask.
    """

    image_id: int
    category_id: int
    box: tuple[float, float, float, float]
    box_score: float
    mask_score: float
    mask_counts: str


@dataclass
class CocoResults:
    """The detections of a set of images.

    Attributes:
        images: image id -> height and width in pixels, for every evaluated image.
        detections: detections in the order in which they were found.
    """

    images: dict[int, tuple[int, int]] = field(default_factory=dict)
    detections: list[Result] = field(default_factory=list)

    def of(self, image_ids: Collection[int]) -> CocoResults:
        """Return the results of some images, and log if some of these are missing."""
        wanted = set(image_ids)
        images = {key: hw for key, hw in self.images.items() if key in wanted}
        if len(images) < len(wanted):
            logger.info("detections of %d of %d images are kept", len(images), len(wanted))
        return CocoResults(images, [each for each in self.detections if each.image_id in wanted])

    def run_lengths(self, result: Result) -> RunLengths:
        """Return the mask of one detection in COCO's format."""
        return {"size": list(self.images[result.image_id]), "counts": result.mask_counts}


def merge_results(parts: Iterable[CocoResults]) -> CocoResults:
    """Join the results of several processes, each of which evaluated a share of the images.

    The metrics are exactly those of one process: pycocotools sorts images by id, so the ranking of
    equal scores depends only on the order within an image, which is kept. An image that several
    processes evaluated, for example if shares are padded to equal length, counts once.

    Args:
        parts: any number of results for one dataset.

    Returns:
        New results, sorted by image id.
    """
    images: dict[int, tuple[int, int]] = {}
    found: dict[int, list[Result]] = {}
    for part in parts:
        new = {image_id: hw for image_id, hw in part.images.items() if image_id not in images}
        images |= new
        for result in part.detections:
            if result.image_id in new:
                found.setdefault(result.image_id, []).append(result)
    order = sorted(images)
    detections = [result for image_id in order for result in found.get(image_id, ())]
    return CocoResults({image_id: images[image_id] for image_id in order}, detections)


def write_coco_json(
    path_box: Path,
    path_mask: Path | None,
    results: CocoResults,
    absent: Collection[int] = (),
) -> None:
    """Write COCO's two result files, in the format of its evaluation server.

    Args:
        path_box: file for the boxes, rounded to tenths of a pixel.
        path_mask: file for the masks; None for no masks.
        results: `CocoEvaluator.results`.
        absent: category ids that the dataset does not have: their objects are omitted.
    """
    boxes, masks = [], []
    for result in results.detections:
        if result.category_id in absent:
            continue
        names = {"image_id": result.image_id, "category_id": result.category_id}
        boxes.append({**names, "bbox": _tenths(result.box), "score": result.box_score})
        masks.append(
            {**names, "segmentation": results.run_lengths(result), "score": result.mask_score}
        )
    write_json(path_box, boxes)
    if path_mask is not None:
        write_json(path_mask, masks)


def write_web_json(
    path: Path,
    results: CocoResults,
    class_names: Mapping[int, str],
    config: Mapping[str, object],
) -> None:
    """Write the file for the original's web viewer.

    Args:
        path: usually web/dets/<config name>.json.
        results: `CocoEvaluator.results`.
        class_names: category id -> name.
        config: plain values that the viewer lists about the run.
    """
    found: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in sorted(results.images)}
    for result in results.detections:
        found[result.image_id].append(
            {
                "score": result.box_score,
                "bbox": _tenths(result.box),
                "category": class_names[result.category_id],
                "mask": results.run_lengths(result),
            }
        )
    images = [{"image_id": image_id, "dets": dets} for image_id, dets in found.items()]
    write_json(path, {"info": {"Config": dict(config)}, "images": images})


def save_results(path: Path, results: CocoResults, origin: Origin) -> None:
    """Write results without loss, to be scored again without running the network."""
    images = [[image_id, *image_hw] for image_id, image_hw in results.images.items()]
    content = {
        "format": FORMAT,
        "made_by": provenance(),
        "origin": origin.to_dict(),
        "images": images,
        "detections": results.detections,
    }
    write_json(path, content)


def load_results(path: Path, origin: Origin) -> CocoResults:
    """Read and check a file of `save_results`.

    Args:
        path: path of the file.
        origin: expected origin of the detections.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is a pickle of the original, is broken, or has another origin.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no stored results at {path}: evaluate once without --resume")
    content = path.read_bytes()
    is_named_so = path.suffix == ".pkl" and not content.startswith(b"{")
    if is_named_so or content.startswith(b"\x80"):
        raise ValueError(
            f"{path} is a pickle, which can run any code when read; "
            "evaluate once more without --resume to save the results as JSON"
        )
    with _refusing(path):
        parsed = json.loads(content)
    if isinstance(parsed, dict) and parsed.get("format") == _WITHOUT_ORIGIN:
        raise ValueError(
            f"{path} is of an earlier version, which did not note the model; "
            "evaluate once more without --resume"
        )
    with _refusing(path):
        results, stored = _parse(parsed)
    if differences := stored.differences(origin):
        raise ValueError(
            f"{path} holds what was found by {printable('; '.join(differences))}: "
            "give the flags that it was made with, or evaluate once more without --resume"
        )
    logger.info(
        "%s: %d images, by %s in %s", path, len(results.images), stored.engine, stored.precision
    )
    return results


def parse_results(path: Path, images: Sequence[Any], rows: Sequence[Any]) -> CocoResults:
    """Check and convert a file's list of images, each [id, height, width], and of detections.

    Raises:
        ValueError: invalid content; the message has the path.
    """
    with _refusing(path):
        return _results(images, rows)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Refuse a file whose content does not have the expected form."""
    try:
        yield
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} is not a file of saved results, or is broken: {error}") from error


def _parse(content: Any) -> tuple[CocoResults, Origin]:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'no "format": "{FORMAT}" in it')
    return _results(content["images"], content["detections"]), Origin.from_dict(content["origin"])


def _results(sizes: Sequence[Any], rows: Sequence[Any]) -> CocoResults:
    images = {}
    for row in sizes:
        image_id, height, width = row
        images[_whole(image_id, -math.inf)] = (_whole(height), _whole(width))
    return CocoResults(images, [_parse_detection(row, images) for row in rows])


def _parse_detection(row: Any, images: Mapping[int, tuple[int, int]]) -> Result:
    image_id, category_id, (x, y, width, height), box_score, mask_score, counts = row
    if image_id not in images:
        raise ValueError(f"a detection in image {image_id!r}, which is not listed")
    check_counts(counts, math.prod(images[image_id]))
    return Result(
        image_id,
        _whole(category_id, -math.inf),
        (_finite(x), _finite(y), _finite(width), _finite(height)),
        _finite(box_score),
        _finite(mask_score),
        counts,
    )


def _whole(value: object, least: float = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _tenths(values: Iterable[float]) -> list[float]:
    return [round(value, 1) for value in values]
