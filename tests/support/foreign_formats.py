"""Writes COCO-style annotations in the formats of YOLO, labelme and VIA."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.annotations.coco import CocoInstances
from data.annotations.run_lengths import decode
from data.catalog import open_dataset

HW = (40, 60)
TRIANGLE = [10.0, 5.0, 50.0, 5.0, 10.0, 35.0]
SQUARES = [
    [5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0],
    [30.0, 20.0, 38.0, 20.0, 38.0, 28.0, 30.0, 28.0],
]


DISC = np.hypot(*np.mgrid[-19.5:20, -29.5:30]) <= 10


def drawn(outline: Any, image_hw: tuple[int, int] = HW) -> NDArray[np.uint8]:
    return decode(outline, image_hw)


def opened(folder: Path, *args: Any) -> CocoInstances:
    dataset = open_dataset(str(folder), *args)
    assert isinstance(dataset, CocoInstances)
    return dataset


def two_images() -> dict[str, Any]:
    """A dog of one part in a.png, a cat of two parts and a dog in b.png."""
    images = [
        {"id": i, "file_name": name, "height": HW[0], "width": HW[1]}
        for i, name in ((1, "a.png"), (2, "b.png"))
    ]
    parts = [(1, 2, [TRIANGLE]), (2, 1, SQUARES), (2, 2, [TRIANGLE])]
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "segmentation": outline}
        for i, (image, category, outline) in enumerate(parts, start=1)
    ]
    classes = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": classes}


def write_images(folder: Path, names: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = np.full((*HW, 3), 10 + sum(name.encode()) % 200, np.uint8)
        pixels[:, HW[1] // 2 :] += 8
        cv2.imwrite(str(folder / name), pixels)
    return folder


def _by_image(content: dict[str, Any]) -> list[tuple[dict[str, Any], list[tuple[str, Any]]]]:
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    objects = defaultdict(list)
    for entry in content["annotations"]:
        objects[entry["image_id"]].append((names[entry["category_id"]], entry["segmentation"]))
    return [(image, objects[image["id"]]) for image in content["images"]]


def write_yolo(content: dict[str, Any], folder: Path, split: str = "train") -> None:
    """Objects of several parts are joined by bridges of no width."""
    names = [entry["name"] for entry in content["categories"]]
    (folder / "labels" / split).mkdir(parents=True)
    for image, objects in _by_image(content):
        lines = []
        for name, outline in objects:
            parts = [np.reshape(part, (-1, 2)) for part in outline]
            loops = [np.concatenate((part, part[:1])) for part in parts]
            returns = [part[:1] for part in parts[-2::-1]]
            shares = np.concatenate((*loops, *returns)) / (image["width"], image["height"])
            lines.append(f"{names.index(name)} " + " ".join(map(str, shares.ravel().tolist())))
        stem = Path(image["file_name"]).stem
        (folder / "labels" / split / f"{stem}.txt").write_text("\n".join(lines))
    splits = [f"{file.name}: images/{file.name} # here" for file in (folder / "labels").iterdir()]
    lines = ["path: /elsewhere", *splits, f"names: {names}"]
    (folder / "data.yaml").write_text("\n".join(lines))


def write_labelme(content: dict[str, Any], folder: Path) -> None:
    for image, objects in _by_image(content):
        shapes = [
            {
                "label": name,
                "points": np.reshape(part, (-1, 2)).tolist(),
                "shape_type": "polygon",
                "group_id": number if len(outline) > 1 else None,
            }
            for number, (name, outline) in enumerate(objects)
            for part in outline
        ]
        labels = {"shapes": shapes, "imagePath": image["file_name"], "imageData": None}
        size = {"imageHeight": image["height"], "imageWidth": image["width"]}
        file = folder / Path(image["file_name"]).with_suffix(".json")
        file.write_text(json.dumps(labels | size))


def write_via(content: dict[str, Any], folder: Path) -> None:
    """VIA knows no objects of several parts: each becomes one."""
    entries = {}
    for image, objects in _by_image(content):
        regions = [
            {
                "shape_attributes": {
                    "name": "polygon",
                    "all_points_x": part[::2],
                    "all_points_y": part[1::2],
                },
                "region_attributes": {"species": name},
            }
            for name, outline in objects
            for part in outline
        ]
        entries[image["file_name"] + "1"] = {"filename": image["file_name"], "regions": regions}
    project = {"_via_settings": {}, "_via_img_metadata": entries}
    (folder / "via_project.json").write_text(json.dumps(project))


def write_all(content: dict[str, Any], images: Path, folder: Path) -> dict[str, Path]:
    """Write one training split in each format, with copies of the images."""
    places = {"yolo": "images/train", "labelme": "train", "via": "train"}
    folders = {name: folder / name for name in places}
    for name, place in places.items():
        (folders[name] / place).mkdir(parents=True)
        for image in content["images"]:
            shutil.copy(images / image["file_name"], folders[name] / place)
    write_yolo(content, folders["yolo"])
    write_labelme(content, folders["labelme"] / "train")
    write_via(content, folders["via"] / "train")
    return folders
