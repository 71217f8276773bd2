"""Label Studio: a JSON file of all tasks, as it exports JSON and JSON_MIN."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.annotations.entries import stated_hw
from data.annotations.locate import ImageFinder
from data.annotations.run_lengths import encode
from data.files import IMAGE_SUFFIXES, is_number, read_json
from data.images import MAX_PIXELS
from data.problems import Unusable

from .builder import (
    DRAW_AGAIN,
    CocoBuilder,
    ConversionResult,
    Object,
    Part,
    ellipse,
    header_hw,
    numbers_of,
    polygon,
    rectangle,
)

_HEADS = (32, 5, 4, 4, 4, 4)  # bits: length, size of a value, sizes of four kinds of run lengths
_IMAGE = re.compile(rf"({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))})($|\?)", re.IGNORECASE)
_CHANNELS = 4  # of the picture that is encoded; the last one is the mask


class _Region(NamedTuple):
    """A region of an image: its shape, and the texts that are said of it."""

    value: dict[str, object]
    labels: list[str]
    entry: dict[str, object]


def read_label_studio(image_folder: Path, file: Path) -> ConversionResult:
    """Read the regions of an export: polygons, brush strokes, rectangles and ellipses.

    Of several annotations of a task, the one that is the ground truth counts, else the last one
    that was changed; predictions do not count. Images are found under the names of uploads, too.

    Args:
        image_folder: to which the image names are relative.
        file: JSON or JSON_MIN.

    Raises:
        ValueError: it is no such file, or nothing can be used.
    """
    tasks = read_json(file)
    if not isinstance(tasks, list):
        raise ValueError(f"{file}: expected a list of tasks, found a {type(tasks).__name__}")
    found = CocoBuilder()
    finder = ImageFinder(image_folder, file)
    for number, task in enumerate(tasks, start=1):
        where = f"{file}, task {task.get('id', number) if isinstance(task, dict) else number}"
        with found.leaving_out(where):
            if not isinstance(task, dict):
                raise Unusable("a task that is no object", "export again")
            entries = _entries(task, found, where)
            path = finder.find(_image_name(task))
            regions = list(_regions(entries))
            stated = (stated_hw(entry, "original_height", "original_width") for entry in entries)
            image_hw = next(filter(None, stated), None) or header_hw(path)
            objects: list[Object] = []
            for position, region in enumerate(regions, start=1):
                with found.leaving_out(f"{where}, region {position}"):
                    outline = _outline(region, image_hw)
                    shape = [outline] if isinstance(outline, list) else outline
                    objects.append(Object(_label(region), shape))
            found.add(finder.relative(path), image_hw, objects, len(regions))
    return found.finish(file)


def decode_brush(numbers: object, image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode the run lengths of brush strokes, which are thi.ng's rle-pack of an RGBA picture.

    After the header comes, for each run, a bit that tells whether its values are equal, two that
    tell which of the four sizes its length has, the length less one, and the value or values.

    Args:
        numbers: bytes, as a JSON file may have them.
        image_hw: height and width of the image.

    Returns:
        (H, W) where the picture is not transparent.

    Raises:
        Unusable: they are not of such a picture.
    """
    is_bytes = isinstance(numbers, list) and all(type(n) is int and 0 <= n < 256 for n in numbers)
    bits = _Bits(bytes(numbers) if is_bytes and isinstance(numbers, list) else b"")
    count, size, *sizes = map(bits.number, _HEADS)
    if count != _CHANNELS * image_hw[0] * image_hw[1] or count > _CHANNELS * MAX_PIXELS:
        raise Unusable("a brush stroke of another size than its image", DRAW_AGAIN)
    values = np.zeros(count, np.uint8)
    done = 0
    while done < count:
        is_run = bits.number(1)
        length = bits.number(sizes[bits.number(2)] + 1) + 1
        end = min(done + length, count)
        values[done:end] = bits.number(size + 1) > 0 if is_run else bits.flags(end - done, size + 1)
        done = end
    return values.reshape(*image_hw, _CHANNELS)[..., -1] > 0


class _Bits:
    """A stream of bits, highest first."""

    def __init__(self, content: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(content, np.uint8))
        self._content = content
        self._position = 0

    def number(self, width: int) -> int:
        """Read a number of so many bits."""
        start = self._take(width)
        first, last = start // 8, (start + width + 7) // 8
        number = int.from_bytes(self._content[first:last], "big")
        return number >> last * 8 - start - width & (1 << width) - 1

    def flags(self, count: int, width: int) -> NDArray[np.bool_]:
        """Read numbers, and tell which are not 0."""
        start = self._take(count * width)
        bits = self._bits[start : start + count * width].reshape(count, width)
        return np.asarray(bits.any(axis=1))

    def _take(self, width: int) -> int:
        start, self._position = self._position, self._position + width
        if self._position > len(self._bits):
            raise Unusable("a brush stroke that is cut short", DRAW_AGAIN)
        return start


def _entries(task: dict[str, object], found: CocoBuilder, where: str) -> list[dict[str, object]]:
    """Return the regions of the annotation that counts, with what else was said of the image."""
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list):  # JSON_MIN: a list for each control
        lists = [value for value in task.values() if isinstance(value, list)]
        return [entry for value in lists for entry in value if isinstance(entry, dict)]
    usable = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
    if not usable:
        raise Unusable("a task that is not annotated", "annotate or delete it")
    truths = [annotation for annotation in usable if annotation.get("ground_truth") is True]
    if len(usable) > 1 and len(truths) != 1:
        mend = "the newest is taken: mark one as ground truth, or delete the others"
        found.note("a task that is annotated several times", where, mend)
    chosen = max(truths or usable, key=_changed)
    result = chosen.get("result")
    return (
        [entry for entry in result if isinstance(entry, dict)] if isinstance(result, list) else []
    )


def _changed(annotation: dict[str, object]) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _image_name(task: dict[str, object]) -> str:
    """Return the path or address of the image: what is called so, or looks like one."""
    data = task.get("data", task)
    texts = {k: v for k, v in data.items() if isinstance(v, str)} if isinstance(data, dict) else {}
    named = [texts[key] for key in ("image", "img", "image_url", "url") if key in texts]
    like = [text for text in texts.values() if _IMAGE.search(text)]
    upload = task.get("file_upload")
    names = [*named, *like, *([upload] if isinstance(upload, str) else [])]
    if not names:
        raise Unusable("a task without an image", "keep only tasks of images")
    return names[0]


def _regions(entries: list[dict[str, object]]) -> Iterator[_Region]:
    """Yield the regions; what is said of one stands in it, or in another entry of its id."""
    by_id: dict[object, list[dict[str, object]]] = {}
    for position, entry in enumerate(entries):
        number = entry.get("id")
        by_id.setdefault(number if isinstance(number, str) else position, []).append(entry)
    for group in by_id.values():
        shapes = [
            (entry, value) for entry in group for value in [_value(entry)] if _is_shape(value)
        ]
        if shapes:
            entry, value = shapes[0]
            labels = [label for other in group for label in _labels(_value(other))]
            yield _Region(value, list(dict.fromkeys(labels)), entry)


def _value(entry: dict[str, object]) -> dict[str, object]:
    """Return shape and labels: in `value`, in JSON_MIN the entry itself."""
    value = entry.get("value", entry)
    return value if isinstance(value, dict) else {}


def _is_shape(value: dict[str, object]) -> bool:
    return not {"points", "rle", "x", "vertices"}.isdisjoint(value)


def _labels(value: dict[str, object]) -> list[str]:
    """Return the values of `polygonlabels`, `brushlabels`, `labels` and alike."""
    lists = [found for key, found in value.items() if key.endswith("labels")]
    return [
        label
        for found in lists
        if isinstance(found, list)
        for label in found
        if isinstance(label, str) and label.strip()
    ]


def _label(region: _Region) -> str:
    if len(region.labels) > 1:
        raise Unusable("a region of several classes", "give it one")
    if not region.labels:
        raise Unusable("a region without a class", "give it one")
    return region.labels[0].strip()


def _outline(region: _Region, image_hw: tuple[int, int]) -> Part:
    """Return the outline in pixels; the file has percent of width and height."""
    value = region.value
    if region.entry.get("image_rotation") not in (None, 0):
        raise Unusable("a region on a turned image", "turn it back in Label Studio")
    if "rle" in value:
        return encode(decode_brush(value["rle"], image_hw))
    across, down = image_hw[1] / 100, image_hw[0] / 100
    if "points" in value:
        points = value["points"]
        pairs = [p for p in points if isinstance(p, list)] if isinstance(points, list) else []
        if not pairs or not all(len(p) == 2 and all(map(is_number, p)) for p in pairs):
            raise Unusable("an outline without points", DRAW_AGAIN)
        return polygon([x * across for x, _ in pairs], [y * down for _, y in pairs], image_hw)
    angle = math.radians(numbers_of(value | {"rotation": value.get("rotation", 0)}, "rotation")[0])
    if "radiusX" in value:
        x, y, radius_x, radius_y = numbers_of(value, "x", "y", "radiusX", "radiusY")
        radii = (radius_x * across, radius_y * down)
        return ellipse((x * across, y * down), radii, image_hw, angle)
    if "vertices" in value or "height" not in value:
        raise Unusable("a region without an area", "draw a polygon")
    x, y, width, height = numbers_of(value, "x", "y", "width", "height")
    corner, size = (x * across, y * down), (width * across, height * down)
    return rectangle(corner, size, image_hw, angle)
