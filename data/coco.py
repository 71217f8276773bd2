"""Instance annotations in COCO's JSON format, checked once at the door."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from .catalog import Categories
from .images import MAX_PIXELS, read_image, read_image_hw
from .outlines import parse_counts, run_lengths
from .transforms import Sample

_logger = logging.getLogger(__name__)

_FAR = 1e9  # pixels; no image is as large


class CocoInstances:
    """The images and annotated objects of one split of a COCO-style dataset.

    Everything in the file is checked here. What makes the file useless is an error; an annotation
    that cannot be used is left out and counted in a warning. Images without objects stay, as
    negatives.

    Args:
        image_folder: where the images are.
        annotation_file: COCO-style JSON: `images`, `categories` and, unless it is a test set,
            `annotations` with polygons or run lengths.
        categories: the classes of a trained model, whose labels are to be used. Annotations of
            other classes are left out.
        keep_empty: keep the images without any object.

    Raises:
        FileNotFoundError: the file, the folder or an image is missing.
        ValueError: the file is not what was expected.
    """

    def __init__(
        self,
        image_folder: Path,
        annotation_file: Path,
        categories: Categories | None = None,
        keep_empty: bool = True,
    ) -> None:
        """Read and check the annotation file."""
        self._file = Path(annotation_file)
        self._folder = Path(image_folder)
        content = _read_json(self._file)
        with _blaming(self._file):
            self.categories, self._label_of = _checked_categories(content, categories)
            self._images = _checked_images(_entries(content, "images"), self._folder)
            found = _entries(content, "annotations") if "annotations" in content else []
            self._annotations = self._checked_annotations(found)
        if not keep_empty:
            self._images = [image for image in self._images if self._annotations[image["id"]]]
        self._warned_of_size = False

    @property
    def names(self) -> tuple[str, ...]:
        """One class name for each label value."""
        return self.categories.names

    @cached_property
    def image_ids(self) -> tuple[int, ...]:
        """The dataset's own identifiers, in the order of the indices."""
        return tuple(image["id"] for image in self._images)

    @cached_property
    def coco(self) -> COCO:
        """The ground truth as pycocotools sees it, without the annotations that were left out."""
        names = zip(self.categories.category_ids, self.names, strict=True)
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": self._images,
            "annotations": [part for image in self.image_ids for part in self._annotations[image]],
            "categories": [{"id": number, "name": name} for number, name in names],
        }
        with contextlib.redirect_stdout(io.StringIO()):  # it announces the index
            truth.createIndex()
        return truth

    def __len__(self) -> int:
        """Count the images."""
        return len(self._images)

    def image_info(self, index: int) -> dict[str, Any]:
        """Return `id`, `file_name`, `height` and `width` of an image, from the annotation file."""
        return {key: self._images[index][key] for key in ("id", "file_name", "height", "width")}

    def image_path(self, index: int) -> Path:
        """Return where an image is stored."""
        return self._folder / str(self._images[index]["file_name"])

    def sample(self, index: int) -> Sample:
        """Load one image with its objects.

        Raises:
            FileNotFoundError: the image is gone.
            ValueError: the image cannot be read.
        """
        info = self._images[index]
        annotated_hw = (info["height"], info["width"])
        image = read_image(self.image_path(index), annotated_hw)
        if image.shape[:2] != annotated_hw:
            self._warn_of_size(index, image.shape[:2])
        parts = self._annotations[info["id"]]
        boxes = np.array([part["bbox"] for part in parts], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return Sample(
            image=image,
            boxes=boxes,
            labels=np.array([self._label_of[part["category_id"]] for part in parts], np.int64),
            is_crowd=np.array([part["iscrowd"] for part in parts], np.bool_),
            segmentations=tuple(part["segmentation"] for part in parts),
            image_id=info["id"],
        )

    def _warn_of_size(self, index: int, actual_hw: tuple[int, ...]) -> None:
        if not self._warned_of_size:
            info = self._images[index]
            _logger.warning(
                "%s is %d x %d pixels, but %d x %d according to %s; the image is trusted, "
                "here and in all further cases",
                *(self.image_path(index), actual_hw[1], actual_hw[0]),
                *(info["width"], info["height"], self._file),
            )
        self._warned_of_size = True

    def _checked_annotations(self, entries: list[Any]) -> dict[int, list[dict[str, Any]]]:
        """Group the usable annotations by image and report the others."""
        sizes = {image["id"]: (image["height"], image["width"]) for image in self._images}
        grouped: dict[int, list[dict[str, Any]]] = {image: [] for image in sizes}
        left_out: Counter[str] = Counter()
        for entry in entries:
            checked = _checked_annotation(entry, sizes, self._label_of)
            if isinstance(checked, str):
                left_out[checked] += 1
            else:
                grouped[checked["image_id"]].append(checked)
        reasons = ", ".join(f"{reason} ({count})" for reason, count in left_out.most_common())
        if entries and left_out.total() == len(entries):
            raise ValueError(f"none of the {len(entries)} annotations can be used: {reasons}")
        if left_out:
            _logger.warning(
                "%s: left out %d of %d annotations: %s",
                *(self._file, left_out.total(), len(entries), reasons),
            )
        _number_anew(grouped.values())
        return grouped


@contextlib.contextmanager
def _blaming(file: Path) -> Iterator[None]:
    """Put the name of the file in front of what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"no such annotation file: {file}") from None
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{file}: expected an object with 'images', 'annotations' and 'categories', "
            f"found a {type(content).__name__}"
        )
    return content


def _entries(content: dict[str, Any], key: str) -> list[Any]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise ValueError(f"expected a list {key!r}, found {', '.join(content) or 'nothing'}")
    return entries


def _checked_categories(
    content: dict[str, Any], wanted: Categories | None
) -> tuple[Categories, dict[int, int]]:
    """Return the classes and the label of each category id in the file."""
    if wanted is not None and "categories" not in content:
        return wanted, wanted.label_of
    own = Categories.from_coco_json(_entries(content, "categories"))
    return (own, own.label_of) if wanted is None else _matched(own, wanted)


def _matched(own: Categories, wanted: Categories) -> tuple[Categories, dict[int, int]]:
    """Label the file's classes like the model's, and say so if that is a guess."""
    matched, label_of = own.matched_to(wanted)
    if len(own) and not label_of:
        raise ValueError(f"none of its classes is known to the model: {', '.join(own.names)}")
    if not {name.lower() for name in own.names} & {name.lower() for name in wanted.names}:
        _logger.warning("no class name agrees with the model's: classes are matched by id")
    return matched, label_of


def _checked_images(entries: list[Any], folder: Path) -> list[dict[str, Any]]:
    """Check that every image has a distinct id, a file, and a size."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no such image folder: {folder}")
    images: dict[int, dict[str, Any]] = {}
    listed = {path.name for path in folder.iterdir()}
    missing = []
    for entry in entries:
        image = _checked_image(entry)
        if image["id"] in images:
            raise ValueError(f"image id {image['id']} occurs twice")
        images[image["id"]] = image
        path = folder / image["file_name"]
        if image["file_name"] not in listed and not path.is_file():
            missing.append(image["file_name"])
        elif not {"height", "width"} <= image.keys():
            image["height"], image["width"] = read_image_hw(path)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(entries)} images are not in {folder}, such as {missing[0]}"
        )
    return list(images.values())


def _checked_image(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or type(entry.get("id")) is not int:
        raise ValueError(f"an image needs a whole number as its 'id': {entry!r:.80}")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise ValueError(f"image {entry['id']} needs a text as its 'file_name'")
    size = {key: entry[key] for key in ("height", "width") if _is_positive(entry.get(key))}
    if math.prod(size.values()) > MAX_PIXELS:
        raise ValueError(f"image {entry['id']} is too large: {size['width']} x {size['height']}")
    return {"id": entry["id"], "file_name": entry["file_name"], **size}


def _is_positive(value: Any) -> bool:
    return type(value) is int and value > 0


def _checked_annotation(
    entry: Any, sizes: dict[int, tuple[int, int]], label_of: dict[int, int]
) -> dict[str, Any] | str:
    """Return the annotation with every key filled in, or the reason to leave it out."""
    if not isinstance(entry, dict):
        return "not an object"
    image_id, category_id = entry.get("image_id"), entry.get("category_id")
    if type(image_id) is not int or image_id not in sizes:
        return "unknown image_id"
    if type(category_id) is not int or category_id not in label_of:
        return "unknown category_id"
    outline = _checked_outline(entry.get("segmentation"), sizes[image_id])
    if isinstance(outline, str):
        return outline
    bbox: Any = entry.get("bbox")
    if not _are_numbers(bbox, 4):
        bbox = mask_utils.toBbox(run_lengths(outline, sizes[image_id])).tolist()
    box = _clipped(bbox, sizes[image_id])
    if box[2] <= 0 or box[3] <= 0:
        return "empty box"
    area = entry.get("area")
    if not _are_numbers([area], 1):
        area = float(mask_utils.area(run_lengths(outline, sizes[image_id])))
    return {
        "id": entry.get("id"),
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": outline,
        "bbox": box,
        "area": area,
        "iscrowd": int(entry.get("iscrowd") in (1, True)),
    }


def _checked_outline(outline: Any, image_hw: tuple[int, int]) -> Any:
    """Return polygons or run lengths that can be drawn, or the reason why there are none."""
    if isinstance(outline, list):
        polygons = [part for part in outline if _is_polygon(part)]
        return polygons or "no polygon of three points"
    if not isinstance(outline, dict):
        return "no segmentation"
    if outline.get("size") != list(image_hw):
        return "run lengths without size, or of another size"
    counts = outline.get("counts")
    if isinstance(counts, str):
        counts = parse_counts(counts)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return "run lengths without counts, or of the wrong sum"
    return outline if sum(counts) == image_hw[0] * image_hw[1] else "run lengths of the wrong sum"


def _is_polygon(part: Any) -> bool:
    return isinstance(part, list) and len(part) % 2 == 0 and _are_numbers(part, len(part), 6)


def _are_numbers(values: Any, count: int, at_least: int = 0) -> bool:
    """Tell whether this is a list of numbers that can be coordinates, so not of NaN."""
    return (
        isinstance(values, list)
        and len(values) == count >= at_least
        and set(map(type, values)) <= {int, float}
        and all(abs(value) < _FAR for value in values)
    )


def _clipped(bbox: list[float], image_hw: tuple[int, int]) -> list[float]:
    """Cut an x, y, width, height box at the edge of the image; inside, it stays as it is."""
    x, y, width, height = bbox
    if x >= 0 and y >= 0 and x + width <= image_hw[1] and y + height <= image_hw[0]:
        return bbox
    x1, y1 = max(x, 0), max(y, 0)
    return [x1, y1, min(x + width, image_hw[1]) - x1, min(y + height, image_hw[0]) - y1]


def _number_anew(groups: Iterable[list[dict[str, Any]]]) -> None:
    """Give annotations new ids if theirs are missing, repeated, or 0, which COCOeval ignores."""
    parts = [part for group in groups for part in group]
    numbers = [part["id"] for part in parts]
    if not all(map(_is_positive, numbers)) or len(set(numbers)) < len(numbers):
        _logger.warning("annotation ids are missing, repeated or 0: numbered anew")
        for number, part in enumerate(parts, start=1):
            part["id"] = number
