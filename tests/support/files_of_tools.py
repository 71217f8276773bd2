"""Files as CVAT, Label Studio, COCO panoptic and Segment Anything write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from data.formats.builder import ConversionResult
from data.formats.label_maps.voc import colour_map

from .foreign_formats import HW, drawn, write_images

LEFT, RIGHT = (np.zeros(HW, bool) for _ in range(2))
LEFT[5:25, 3:20] = RIGHT[10:38, 30:58] = True

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>7</id><name>t</name><labels>
    <label><name>cat</name><color>#ff0000</color><type>any</type><attributes></attributes></label>
    <label><name>dog</name><type>any</type></label>
    <label><name>blurred</name><type>tag</type></label>
    <label><name>1</name><type>points</type><parent>skeleton</parent></label>
  </labels></task><dumped>2026-01-01</dumped></meta>
"""
TRIANGLE = "10.00,5.00;50.00,5.00;10.00,35.00"


def cvat_entry(name: str, *shapes: str, more: str = "") -> str:
    size = f'width="{HW[1]}" height="{HW[0]}"'
    return f'  <image id="0" name="{name}" {more} {size}>{"".join(shapes)}</image>\n'


def cvat_shape(tag: str, attributes: str, label: str = "cat") -> str:
    return f'<{tag} label="{label}" source="manual" occluded="0" z_order="0" {attributes}></{tag}>'


def write_cvat(folder: Path, *images: str, name: str = "annotations.xml", head: str = HEAD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{head}{''.join(images)}</annotations>\n")
    return folder / name


UPLOAD = "/data/upload/1/0a1b2c3d-a.png"
SIZE = {"original_width": HW[1], "original_height": HW[0], "image_rotation": 0}


def pack(
    mask: NDArray[np.bool_], word: int = 8, sizes: tuple[int, ...] = (3, 4, 8, 16)
) -> list[int]:
    """Encode a mask as Label Studio's editor does: rle-pack of red, green, blue and alpha."""
    values = np.zeros((*mask.shape, 4), np.uint8)
    values[mask] = 255 >> 8 - word
    flat = values.reshape(-1).tolist()
    bits = f"{len(flat):032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    position = 0
    while position < len(flat):
        end = position
        while end < len(flat) and flat[end] == flat[position] and end - position < 1 << sizes[-1]:
            end += 1
        if end - position == 1:  # literals, up to the next run
            while end < len(flat) and end - position < 8 and flat[end] != flat[end - 1]:
                end += 1
            index, is_run = 0, False
        else:
            index = next(i for i, size in enumerate(sizes) if end - position <= 1 << size)
            is_run = True
        bits += f"{int(is_run)}{index:02b}{end - position - 1:0{sizes[index]}b}"
        written = flat[position : position + 1] if is_run else flat[position:end]
        bits += "".join(f"{value:0{word}b}" for value in written)
        position = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def region(kind: str, value: dict[str, Any], label: str = "cat", **more: Any) -> dict[str, Any]:
    key = f"{kind}labels"
    return {"id": "r", "type": key, "value": value | {key: [label]}, **SIZE, **more}


def polygon(label: str = "cat") -> dict[str, Any]:
    return region("polygon", {"points": [[10, 10], [60, 10], [10, 80]], "closed": True}, label)


def task(
    results: list[Any], name: str = "/data/upload/1/0a1b2c3d-a.png", **more: Any
) -> dict[str, Any]:
    """A task whose regions have ids of their own."""
    results = [result | {"id": f"r{i}"} for i, result in enumerate(results)]
    annotation = {"id": 1, "result": results, "was_cancelled": False, "ground_truth": False}
    return {
        "id": 5,
        "annotations": [annotation],
        "predictions": [],
        "data": {"image": name},
        **more,
    }


BOX = {"x": 20, "y": 25, "width": 50, "height": 25}


def save(file: Path, values: NDArray[Any], palette: bool = False) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = PilImage.fromarray(values.astype(np.uint8) if palette else values)
    if palette:
        picture.putpalette(colour_map().tobytes())
    picture.save(file)


def write_panoptic(folder: Path, **changes: Any) -> Path:
    """Two things, a crowd and the sky in a.png, sky alone in b.png, as COCO numbers them."""
    write_images(folder / "val2017")
    crowd = np.zeros(HW, bool)
    crowd[30:, :20] = True
    numbers = {7_000_001: LEFT, 300: RIGHT, 65_536: crowd, 12: ~(LEFT | RIGHT | crowd)}
    colours = np.zeros((*HW, 3), np.uint8)
    for number, mask in numbers.items():
        colours[mask] = number % 256, number // 256 % 256, number // 65_536
    place = folder / "annotations" / "panoptic_val2017"
    save(place / "a.png", colours)
    save(place / "b.png", np.full((*HW, 3), (12, 0, 0), np.uint8))
    segments = [
        {"id": 7_000_001, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1},
        {"id": 300, "category_id": 1, "iscrowd": 0},
        {"id": 65_536, "category_id": 1, "iscrowd": 1},
        {"id": 12, "category_id": 187, "iscrowd": 0},
    ]
    size = {"height": HW[0], "width": HW[1]}
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", **size} for i, n in ((9, "a"), (4, "b"))],
        "annotations": [
            {"image_id": 9, "file_name": "a.png", "segments_info": segments},
            {"image_id": 4, "file_name": "b.png", "segments_info": segments[3:]},
        ],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 3, "name": "car", "isthing": 1},
            {"id": 187, "name": "sky-other", "isthing": 0},
        ],
    }
    file = folder / "annotations" / "panoptic_val2017.json"
    file.write_text(json.dumps(content | changes))
    return file


def write_sam(folder: Path, name: str, entries: list[Any], **image: Any) -> None:
    size = {"height": HW[0], "width": HW[1], "image_id": 5}
    content = {"image": size | {"file_name": f"{name}.png"} | image, "annotations": entries}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))


def segment(mask: NDArray[Any], **more: Any) -> dict[str, Any]:
    """An annotation of SA-1B, with run lengths that are not compressed."""
    flat = mask.T.reshape(-1)
    turns = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff(turns, prepend=0, append=flat.size).tolist()
    measured = {"predicted_iou": 0.9, "stability_score": 0.9, "crop_box": [0, 0, 9, 9]}
    outline = {"size": list(HW), "counts": counts}
    return {"id": 1, "segmentation": outline, "point_coords": [[1, 1]], **measured, **more}


def objects(converted: ConversionResult) -> list[tuple[str, int, int, bytes]]:
    """Image, class, crowd and pixels of all objects."""
    content = converted.content
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    return [
        (names[a["category_id"]], a["image_id"], a["iscrowd"], drawn(a["segmentation"]).tobytes())
        for a in content["annotations"]
    ]


def as_bytes(mask: NDArray[Any]) -> bytes:
    return mask.astype(np.uint8).tobytes()
