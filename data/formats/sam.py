"""Segment Anything's way: a JSON file for each image, with run lengths and without classes."""

from __future__ import annotations

from pathlib import Path

from data.annotations.entries import stated_hw
from data.annotations.locate import ImageFinder
from data.annotations.run_lengths import check_counts, compress
from data.files import read_json
from data.problems import Unusable
from data.sample import RunLengths

from .builder import UNNAMED, CocoBuilder, ConversionResult, Object, header_hw

_AGAIN = "write the file again"


def read_sam(image_folder: Path, label_folder: Path) -> ConversionResult:
    """Read every file of a folder, as SA-1B has them.

    A file has an `image` and `annotations` with run lengths. Their class is `category_name` or
    `label`, where there is one, else "object".

    Args:
        image_folder: to which the image names are relative.
        label_folder: where the JSON files are.

    Raises:
        ValueError: nothing can be used.
    """
    found = CocoBuilder()
    finder = ImageFinder(image_folder, label_folder)
    for file in sorted(label_folder.glob("*.json")):
        with found.leaving_out(str(file)):
            image, entries = _content(file)
            name = image.get("file_name")
            if not isinstance(name, str):
                raise Unusable("an image without a 'file_name'", "name its file")
            path = finder.find(name)
            image_hw = stated_hw(image) or header_hw(path)
            objects: list[Object] = []
            for number, entry in enumerate(entries, start=1):
                with found.leaving_out(f"{file}, annotation {number}"):
                    objects.append(_object(entry, image_hw))
            found.add(finder.relative(path), image_hw, objects, len(entries))
    return found.finish(label_folder)


def _content(file: Path) -> tuple[dict[str, object], list[object]]:
    try:
        content = read_json(file)
    except ValueError:
        raise Unusable("a file that is not valid JSON", _AGAIN) from None
    image = content.get("image") if isinstance(content, dict) else None
    entries = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(image, dict) or not isinstance(entries, list):
        raise Unusable("a JSON file without 'image' and 'annotations'", "keep only such files here")
    return image, entries


def _object(entry: object, image_hw: tuple[int, int]) -> Object:
    if not isinstance(entry, dict):
        raise Unusable("an annotation that is no object", _AGAIN)
    names = (entry.get("category_name"), entry.get("label"))
    name = next((name.strip() for name in names if isinstance(name, str) and name.strip()), None)
    return Object(name or UNNAMED, _run_lengths(entry.get("segmentation"), image_hw))


def _run_lengths(outline: object, image_hw: tuple[int, int]) -> RunLengths:
    if not isinstance(outline, dict) or outline.get("size") != list(image_hw):
        raise Unusable("run lengths without size, or of another size", _AGAIN)
    counts = outline.get("counts")
    try:
        if not isinstance(counts, str):
            return compress(counts, image_hw)
        check_counts(counts, image_hw[0] * image_hw[1])
    except ValueError:
        raise Unusable("run lengths without counts, or of the wrong sum", _AGAIN) from None
    return {"size": list(image_hw), "counts": counts}
