"""COCO's own format: a JSON file for all images, written."""

from __future__ import annotations

import json
from collections.abc import Iterable

from data.sample import Annotation, ImageInfo

from .output import Output, Picture, write


def write_coco(output: Output, pictures: Iterable[Picture]) -> None:
    """Write a JSON file into `annotations`; of a dataset that is not split, `annotations.json`."""
    images: list[ImageInfo] = []
    annotations: list[Annotation] = []
    for number, picture in enumerate(pictures, start=1):
        height, width = picture.image_hw
        images.append({"id": number, "file_name": picture.name, "height": height, "width": width})
        for annotation in picture.annotations:
            annotations.append({**annotation, "id": len(annotations) + 1, "image_id": number})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": output.categories.to_coco_json(),
    }
    name = f"annotations/instances_{output.split}.json" if output.split else "annotations.json"
    write(output.folder / name, json.JSONEncoder(allow_nan=False).iterencode(content))
