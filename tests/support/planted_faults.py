"""Datasets of a red and a green rectangle in each image, with and without faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.catalog import open_dataset
from data.checks.dataset import check_dataset
from data.images import read_image
from yolact.doctor.findings import Findings, examine

from .rectangles import NAMES, Box, drawing

HW = (120, 160)
FIRST, SECOND = (10, 20, 60, 90), (90, 30, 140, 80)
RED, GREEN = 0, 1


def part(number: int, image: int, label: int, box: Box, **changes: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
    entry = {"id": number, "image_id": image, "category_id": label + 1, "segmentation": [polygon]}
    return entry | {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0} | changes


def content(count: int = 12) -> dict[str, Any]:
    """Images 1, 2, ... with a red and a green rectangle each, a little different in each."""
    images, annotations = [], []
    for image in range(1, count + 1):
        name = f"{image}.png"
        images.append({"id": image, "file_name": name, "height": HW[0], "width": HW[1]})
        for number, (label, box) in enumerate(boxes_of(image)):
            annotations.append(part(10 * image + number, image, label, box))
    classes = [{"id": label + 1, "name": name} for label, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": classes}


def boxes_of(image: int) -> list[tuple[int, Box]]:
    (x1, y1, x2, y2), (u1, v1, u2, v2) = FIRST, SECOND
    step = 3 * image
    return [(RED, (x1, y1 + step // 2, x2, y2 - step // 2)), (GREEN, (u1, v1, u2 - step, v2))]


def write(folder: Path, annotations: dict[str, Any], split: str = "train") -> Path:
    rng = np.random.default_rng(sum(split.encode()))
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / split).mkdir()
    for entry in annotations["images"]:
        number = int(Path(entry["file_name"]).stem)
        noise = cv2.resize(rng.integers(0, 90, (8, 6, 3)).astype(np.uint8), (HW[1], HW[0]))
        pixels = np.maximum(drawing(HW, *boxes_of(number)), noise)
        cv2.imwrite(str(folder / split / entry["file_name"]), pixels[..., ::-1])
    file = folder / "annotations" / f"instances_{split}.json"
    file.write_text(json.dumps(annotations))
    return folder


def rewrite(folder: Path, annotations: dict[str, Any]) -> None:
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(annotations))


def opened(folder: Path, image_size: int = 160) -> Findings:
    problems = check_dataset(str(folder))
    splits = {split: open_dataset(str(folder), split) for split in problems if " " not in split}
    return examine(str(folder), splits, problems, image_size)


def whats(problems: Any) -> list[str]:
    return sorted({problem.what for found in problems.values() for problem in found})


def spoil(folder: Path) -> dict[str, Any]:
    """Write a dataset with each fault that can be mended, and some that can only be told."""
    annotations = content()
    images, parts = annotations["images"], annotations["annotations"]
    write(folder, annotations)
    for name, quality in (("100.png", 0), ("101.jpg", 90)):  # a copy, and one that is nearly so
        number = int(name[:3])
        images.append({"id": number, "file_name": name, "height": HW[0], "width": HW[1]})
        parts.append(part(200 + number, number, RED, boxes_of(1)[0][1]))
        if quality:
            pixels = read_image(folder / "train" / "1.png")[..., ::-1]
            cv2.imwrite(str(folder / "train" / name), pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
        else:
            (folder / "train" / name).write_bytes((folder / "train" / "1.png").read_bytes())
    parts.append(part(401, 5, RED, boxes_of(5)[0][1]))  # twice
    parts.append(part(402, 6, GREEN, boxes_of(6)[0][1]))  # as another class, too
    parts.append(part(403, 7, RED, (300, 10, 340, 40)))  # outside
    parts.append(part(404, 7, RED, (140, 90, 190, 110)))  # partly
    line = [[20, 20, 60, 60, 40, 40]]
    parts.append(part(405, 8, RED, (20, 20, 60, 60), segmentation=line))
    parts[0]["bbox"] = [0, 0, 5, 5]
    images[7] |= {"height": HW[1], "width": HW[0]}  # swapped
    rewrite(folder, annotations)
    return annotations
