"""COCO panoptic: a JSON file, and a PNG for each image whose colours are numbers of segments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image as PilImage

from data.annotations.entries import Key, entries_of, id_key, read_categories, read_content
from data.annotations.images import parse_images
from data.annotations.locate import ImageFinder
from data.annotations.run_lengths import measure
from data.formats.builder import CocoBuilder, ConversionResult, Object, header_hw
from data.formats.output import Output, Picture, write
from data.problems import Unusable

from .ids import Ids, colours_of_ids, mask_file, paint, read_ids, regions, save

_MOST = 1 << 24


def read_panoptic(image_folder: Path, file: Path) -> ConversionResult:
    """Read the segments of things; those of stuff are no objects.

    Args:
        image_folder: to which the image names are relative.
        file: JSON; its PNG files are in a folder of the same name, or beside it.

    Raises:
        ValueError: it is no such file, or nothing can be used.
    """
    content = read_content(file)
    classes = entries_of(content, "categories")
    things = [entry for entry in classes if _is_thing(entry)]
    categories, label_of = read_categories({"categories": things or classes}, None)
    number_of = {key: categories.category_ids[label] for key, label in label_of.items()}
    stuff = {id_key(entry["id"]) for entry in classes if isinstance(entry, dict) and "id" in entry}
    stuff -= number_of.keys()
    found = CocoBuilder()
    if not things:  # datumaro marks all as stuff
        found.note("no class that is a thing", file, "all are taken: correct 'isthing'")
    images = parse_images(entries_of(content, "images"), found.problems.append)
    masks, pictures = _mask_folder(file), ImageFinder(image_folder, file)
    for number, entry in enumerate(entries_of(content, "annotations"), start=1):
        where = f"{file}, annotation {number}"
        with found.leaving_out(where):
            if not isinstance(entry, dict):
                raise Unusable("an annotation that is no object", "export it again")
            key = id_key(entry.get("image_id"))
            image = images.pop(key, None) if key is not None else None
            if image is None:
                raise Unusable("an annotation with unknown image_id", "correct it, or delete it")
            path = pictures.find(image.file_name)
            png = entry.get("file_name") or f"{image.file_name.rpartition('.')[0]}.png"
            mask = mask_file(masks, str(png))
            if mask == path:
                raise Unusable("a mask in place of its image", "put the images into 'images'")
            ids = read_ids(mask, image.image_hw or header_hw(path)).ids
            segments = [s for s in _segments(entry) if s.get("category_id") not in stuff]
            objects = _objects(found, segments, ids, number_of, where)
            found.add(pictures.relative(path), ids.shape, objects, len(segments))
    for image in images.values():
        with found.leaving_out(f"{file}, {image.file_name:.80}"):
            raise Unusable("an image without an annotation", "add one, if without segments")
    return found.finish(file, categories)


def write_panoptic(output: Output, pictures: Iterable[Picture]) -> None:
    """Write the JSON file and its folder, in `annotations` if the dataset is split."""
    name = f"annotations/panoptic_{output.split}" if output.split else "panoptic"
    images, annotations = [], []
    for number, picture in enumerate(pictures, start=1):
        ids, objects = paint(output, picture, _MOST - 1)
        png = f"{picture.stem}.png"
        save(output.folder / name / png, PilImage.fromarray(colours_of_ids(ids)))
        height, width = picture.image_hw
        images.append({"id": number, "file_name": picture.name, "height": height, "width": width})
        segments = [
            {
                "id": segment,
                "category_id": objects[segment - 1]["category_id"],
                "iscrowd": objects[segment - 1]["iscrowd"],
                **dict(zip(("bbox", "area"), measure(pixels), strict=True)),
            }
            for segment, pixels in regions(ids).items()
            if segment
        ]
        annotations.append({"image_id": number, "file_name": png, "segments_info": segments})
    categories = [entry | {"isthing": 1} for entry in output.categories.to_coco_json()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write(output.folder / f"{name}.json", json.JSONEncoder().iterencode(content))


def _is_thing(entry: object) -> bool:
    return not isinstance(entry, dict) or entry.get("isthing", 1) not in (0, False)


def _mask_folder(file: Path) -> Path:
    """Return where the PNG files of a JSON file are."""
    beside = file.parent
    names = (file.stem, file.stem.removesuffix("_annotations"), "masks", "panoptic")
    return next((beside / name for name in names if (beside / name).is_dir()), beside)


def _segments(entry: dict[str, object]) -> list[dict[str, object]]:
    segments = entry.get("segments_info")
    if not isinstance(segments, list):
        raise Unusable("an annotation without 'segments_info'", "export it again")
    dicts = [segment if isinstance(segment, dict) else {} for segment in segments]
    return [s | {key: id_key(s.get(key)) for key in ("id", "category_id")} for s in dicts]


def _objects(
    found: CocoBuilder,
    segments: Iterable[dict[str, object]],
    ids: Ids,
    number_of: Mapping[Key, int],
    where: str,
) -> list[Object]:
    objects: list[Object] = []
    masks = regions(ids)
    for segment in segments:
        with found.leaving_out(f"{where}, segment {segment['id']!r:.40}"):
            number, key = segment["id"], segment["category_id"]
            if not isinstance(key, int | str) or key not in number_of:
                raise Unusable("a segment of an unknown class", "add the class to 'categories'")
            if number not in masks:
                raise Unusable("a segment without a pixel", "export it again, or delete it")
            is_crowd = segment.get("iscrowd") in (1, True)
            objects.append(Object(number_of[key], masks[number], is_crowd=is_crowd))
    return objects
