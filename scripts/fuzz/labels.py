"""Readers of images and annotations, with small valid files that the project wrote."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mutations import (
    Mutate,
    damaged_image,
    damaged_json,
    damaged_text,
    damaged_xml,
)
from parser import Parser
from PIL import Image as PilImage

from data.annotations import images as images_of_coco
from data.annotations.coco import CocoInstances
from data.annotations.entries import read_content
from data.annotations.run_lengths import check_counts, compress, decode, encode, measure
from data.conversion import convert_dataset
from data.formats.builder import ConversionResult
from data.formats.cvat import read_cvat
from data.formats.label_maps.panoptic import read_panoptic
from data.formats.label_maps.voc import read_voc
from data.formats.label_studio import read_label_studio
from data.formats.labelme import read_labelme
from data.formats.recognise import yolo_splits
from data.formats.sam import read_sam
from data.formats.via import read_via
from data.formats.yolo import read_yolo
from data.images import Image, read_head, read_image
from data.shapes.scenes import ShapeScenes, export_coco

MEGABYTE = 1 << 20
_SIDE = 32  # pixels of the generated images
_MOST_PIXELS = MEGABYTE  # of an image that is decoded, so that memory shows


# --- images ---------------------------------------------------------------------------------------


def image(folder: Path) -> Parser:
    """Read heads, and whole pictures, of every format."""
    file = folder / "image"

    def read(content: bytes) -> Image:
        file.write_bytes(content)
        head, pixels = None, read_image(content, max_pixels=_MOST_PIXELS)
        head = read_head(file)
        if pixels.shape != (*head.image_hw, 3) or pixels.dtype != np.uint8:
            raise AssertionError(f"{pixels.shape}, {pixels.dtype}, but the head says {head}")
        return read_image(file, least_side=8)

    return Parser(_pictures(), read, damaged_image, megabytes=256)


def _pictures() -> list[bytes]:
    pixels = ShapeScenes(1, _SIDE, seed=0).sample(0).image
    colour, found = PilImage.fromarray(pixels), []
    exif = PilImage.Exif()
    exif[0x0112] = 6
    for format in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000"):
        for mode in ("RGB", "L") if format in ("JPEG", "PNG", "TIFF") else ("RGB",):
            found.append(_saved(colour.convert(mode), format))
    found.append(_saved(colour, "JPEG", exif=exif))
    found.append(_saved(colour, "PNG", exif=exif))
    found.append(_saved(colour.convert("CMYK"), "JPEG"))
    found.append(_saved(colour.convert("P"), "PNG", transparency=0))
    deep = pixels[..., 0].astype(np.uint16) * 257
    found.append(_saved(PilImage.fromarray(deep), "PNG"))
    found.append(_saved(PilImage.fromarray(deep), "TIFF"))
    found.append(_saved(PilImage.fromarray(deep.astype(np.float32)), "TIFF"))
    found += [
        _saved(colour, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_deflate")
    ]
    return [*found, *_odd_tiffs(pixels)]


def _odd_tiffs(pixels: Image) -> list[bytes]:
    """Make the TIFF files that OpenCV reads and Pillow does not: 64-bit floats, deep colours."""
    import cv2

    made = (pixels[..., 0].astype(np.float64), pixels.astype(np.float32), pixels.astype(np.uint16))
    return [cv2.imencode(".tiff", values)[1].tobytes() for values in made]


def _saved(picture: PilImage.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


# --- annotations ----------------------------------------------------------------------------------


def coco(folder: Path) -> Parser:
    """Read COCO's file."""
    file = _coco(folder)
    images = folder / "train"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        _use(CocoInstances(images, file, content=read_content(file)))

    return Parser([file.read_bytes(), _with_run_lengths(file)], read, damaged_json)


def yolo(folder: Path) -> Parser:
    """Read the text files of YOLO."""
    root = _converted(folder, "yolo")
    boxes = b"0 0.5 0.5 0.2 0.3\n1 0.5 0.5 0.2 0.3 0.9\n"
    return _of_dataset(
        root / "labels" / "train" / "000001.txt",
        partial(read_yolo, root / "images" / "train", root / "data.yaml"),
        root / "images" / "train",
        damaged_text,
        boxes,
    )


def data_yaml(folder: Path) -> Parser:
    """Read the `data.yaml` of YOLO, and the lists of images that it names."""
    root = _converted(folder, "yolo")
    file = root / "data.yaml"
    (root / "list.txt").write_text("images/train/000001.jpg\n./images/train/000001.jpg\n")
    listed = b"path: .\ntrain: [list.txt, images/train]\nval: images/train\n"
    listed += b"names: [a, b, c, d, e, f, g, h]"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        for split in filter(None, yolo_splits(file)):
            parts = [split.part] if split.part else []
            _use_converted(read_yolo(split.images, file, *parts), split.images, file)

    return Parser([file.read_bytes(), listed], read, damaged_text)


def labelme(folder: Path) -> Parser:
    """Read labelme's file of an image, with an embedded picture, too."""
    root = _converted(folder, "labelme") / "train"
    file = root / "000001.json"
    content = json.loads(file.read_bytes())
    picture = base64.b64encode(_saved(PilImage.new("RGB", (_SIDE, _SIDE)), "PNG")).decode()
    shapes = [
        {"label": "a", "shape_type": "rectangle", "points": [[1, 1], [9, 9]], "rotation": 10},
        {"label": "a", "shape_type": "circle", "points": [[5, 5], [9, 9]], "group_id": 1},
        {"label": "b", "shape_type": "mask", "points": [[0, 0], [15, 15]], "mask": picture},
    ]
    embedded = {**content, "shapes": shapes, "imageData": picture, "imagePath": "gone.png"}
    read = partial(read_labelme, root, root)
    return _of_dataset(file, read, root, damaged_json, json.dumps(embedded).encode())


def via(folder: Path) -> Parser:
    """Read VIA's file."""
    root = _converted(folder, "via") / "train"
    file = root / "via_project.json"
    shapes: list[dict[str, object]] = [
        {"name": "rect", "x": 1, "y": 1, "width": 9, "height": 9},
        {"name": "circle", "cx": 8, "cy": 8, "r": 4},
        {"name": "ellipse", "cx": 8, "cy": 8, "rx": 4, "ry": 2, "theta": 0.5},
    ]
    regions = {
        i: {"shape_attributes": s, "region_attributes": {"class": "a"}}
        for i, s in enumerate(shapes)
    }
    old = json.dumps({"x": {"filename": "000001.jpg", "regions": regions}}).encode()
    return _of_dataset(file, partial(read_via, root, file), root, damaged_json, old)


def cvat(folder: Path) -> Parser:
    """Read CVAT's file."""
    root = _converted(folder, "cvat") / "train"
    file = root / "annotations.xml"
    shapes = b"""<box label="a" xtl="1" ytl="1" xbr="9" ybr="9" rotation="4" group_id="2"></box>
<ellipse label="a" cx="8" cy="8" rx="4" ry="2"></ellipse>
<polygon label="b" points="1,1;9,1;1,9" group_id="2"></polygon>
<mask label="b" rle="1, 2, 4, 1" left="8" top="3" width="2" height="4"></mask></image>"""
    others = file.read_bytes().replace(b"</image>", shapes, 1)
    read = partial(read_cvat, root / "images", file)
    return _of_dataset(file, read, root / "images", damaged_xml, others)


def label_studio(folder: Path) -> Parser:
    """Read an export of Label Studio."""
    images, file = _coco(folder).parents[1] / "train", folder / "tasks.json"
    size = {"original_width": _SIDE, "original_height": _SIDE, "image_rotation": 0}
    values: list[tuple[str, dict[str, object]]] = [
        ("polygon", {"points": [[10, 10], [60, 10], [10, 80]]}),
        ("brush", {"format": "rle", "rle": _brush()}),
        ("rectangle", {"x": 20, "y": 25, "width": 50, "height": 25, "rotation": 5}),
        ("ellipse", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 12.5, "rotation": 9}),
    ]
    results = [
        {
            "id": f"r{i}",
            "type": f"{kind}labels",
            "value": value | {f"{kind}labels": ["cat"]},
            **size,
        }
        for i, (kind, value) in enumerate(values)
    ]
    name = "/data/upload/1/0a1b2c3d-000001.jpg"
    annotation = {"id": 1, "result": results, "was_cancelled": False, "ground_truth": False}
    tasks = [{"id": 5, "annotations": [annotation], "data": {"image": name}}]
    minimal = [{"id": 1, "image": "000001.jpg", "label": [results[0]["value"]]}]
    file.write_text(json.dumps(tasks))
    read = partial(read_label_studio, images, file)
    return _of_dataset(file, read, images, damaged_json, json.dumps(minimal).encode())


def _brush() -> list[int]:
    """Encode a mask of one value, as Label Studio packs it: a single long run."""
    length = 4 * _SIDE * _SIDE
    bits = f"{length:032b}" + f"{7:05b}" + f"{2:04b}{3:04b}{7:04b}{15:04b}"
    bits += f"1{3:02b}{length - 1:016b}{255:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def sam(folder: Path) -> Parser:
    """Read a file of Segment Anything."""
    content = json.loads(_with_run_lengths(_coco(folder)))
    images, file = folder / "train", folder / "train" / "000001.json"
    first = content["images"][0]
    objects = [o for o in content["annotations"] if o["image_id"] == first["id"]]
    file.write_text(json.dumps({"image": first, "annotations": objects}))
    return _of_dataset(file, partial(read_sam, images, images), images, damaged_json)


def panoptic(folder: Path) -> Parser:
    """Read COCO's panoptic file."""
    root = _converted(folder, "panoptic")
    images, file = root / "images" / "train", root / "annotations" / "panoptic_train.json"
    return _of_dataset(file, partial(read_panoptic, images, file), images, damaged_json)


def label_map(folder: Path) -> Parser:
    """Read a picture of masks, here VOC's."""
    root = _converted(folder, "voc")
    images, listing = root / "JPEGImages", root / "ImageSets" / "Segmentation" / "train.txt"
    file = root / "SegmentationObject" / "000001.png"
    return _of_dataset(file, partial(read_voc, images, listing), images, damaged_image)


def _of_dataset(
    file: Path,
    read: Callable[[], ConversionResult],
    images: Path,
    mutate: Mutate,
    *more: bytes,
) -> Parser:
    """Make the parser of one file of a dataset; `more` are other contents for it."""

    def written(content: bytes) -> None:
        file.write_bytes(content)
        _use_converted(read(), images, file)

    return Parser([file.read_bytes(), *more], written, mutate)


def _use_converted(converted: ConversionResult, images: Path, file: Path) -> None:
    for problem in converted.problems:
        if "\n" in str(problem):
            raise AssertionError(f"a problem of several lines: {problem!s}")
    _use(CocoInstances(images, file, content=converted.content))


class _InThisThread:
    """Stands in for the threads that read the heads of images: to start them takes longer."""

    def __init__(self, _: int) -> None:
        self.map = map

    def __enter__(self) -> _InThisThread:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _use(dataset: CocoInstances) -> None:
    """Draw the objects of the first image."""
    for index in range(min(len(dataset), 1)):
        info = dataset.image_info(index)
        for found in dataset.annotations(index):
            decode(found["segmentation"], (info["height"], info["width"]))


def _coco(folder: Path) -> Path:
    """Write a scene; its image is uncompressed, whatever it is called, so that it is soon read."""
    vars(images_of_coco)["ThreadPoolExecutor"] = _InThisThread
    scenes = ShapeScenes(1, _SIDE, seed=0)
    file = export_coco(scenes, folder, "train")
    pixels = PilImage.fromarray(scenes.sample(0).image)
    (folder / "train" / "000001.jpg").write_bytes(_saved(pixels, "BMP"))
    return file


def _with_run_lengths(file: Path) -> bytes:
    """Turn the outlines of COCO's file into run lengths, compressed and not by turns."""
    content = json.loads(file.read_bytes())
    for number, found in enumerate(content["annotations"]):
        mask = decode(found["segmentation"], (_SIDE, _SIDE))
        found["segmentation"] = encode(mask)
        if number % 2:
            pixels = mask.ravel("F")
            turns = np.flatnonzero(np.diff(pixels, prepend=0, append=pixels[-1] ^ 1))
            counts = np.diff(turns, prepend=0).tolist()
            found["segmentation"] = {"size": [_SIDE, _SIDE], "counts": counts}
    return json.dumps(content).encode()


def _converted(folder: Path, format: str) -> Path:
    _coco(folder / "coco")
    convert_dataset(str(folder / "coco"), folder / format, format)
    return folder / format


def run_lengths(folder: Path) -> Parser:
    """Check, draw and measure run lengths; what is drawn is encoded again."""
    content = json.loads(_with_run_lengths(_coco(folder)))
    seeds = [json.dumps(found["segmentation"]).encode() for found in content["annotations"]]
    return Parser(seeds, _read_run_lengths, damaged_json)


def _read_run_lengths(content: bytes) -> None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = {"counts": content.decode("latin-1")}
    value = value if isinstance(value, dict) else {"counts": value}
    size = value.get("size", [_SIDE, _SIDE])
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int for n in size):
        return
    height, width = size
    if not (height >= 0 and width >= 0 and height * width <= _MOST_PIXELS):
        return  # which the readers of files refuse
    counts = value.get("counts")
    if not isinstance(counts, str):
        counts = compress(counts, (height, width))["counts"]
    check_counts(counts, height * width)
    mask = decode({"size": [height, width], "counts": counts}, (height, width))
    area = measure({"size": [height, width], "counts": counts})[1]
    if mask.shape != (height, width) or area != np.count_nonzero(mask):
        raise AssertionError(f"{mask.shape} of {size}, area {area}")
    if not np.array_equal(decode(encode(mask), (height, width)), mask):
        raise AssertionError("encoded anew, the mask is another one")
