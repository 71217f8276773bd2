"""Pictures that are not as large as their annotations say."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_utils
from support.foreign_formats import opened

from data.annotations.images import are_alike, settled_size
from data.checks.dataset import check_dataset
from data.images import ImageHead
from data.problems import Unusable

Pixels = NDArray[np.uint8]
STAR = [40.0, 8.0, 52.0, 40.0, 100.0, 44.0, 60.0, 60.0, 72.0, 100.0, 40.0, 72.0, 8.0, 96.0]
HW = (120, 160)  # of the annotations


def raster(image_hw: tuple[int, int], polygon: list[float] = STAR) -> Pixels:
    """Draw a polygon of the annotations into a picture of another size, by OpenCV alone."""
    scale = np.array(image_hw[::-1]) / HW[::-1]
    fine = 16
    points = (np.reshape(polygon, (-1, 2)) * scale * fine).astype(np.int32)
    big = np.zeros((image_hw[0] * fine, image_hw[1] * fine), np.uint8)
    cv2.fillPoly(big, [points], 1)
    shares = big.reshape(image_hw[0], fine, image_hw[1], fine).mean(axis=(1, 3))
    return (shares > 0.5).astype(np.uint8)


def compressed(mask: Pixels) -> dict[str, Any]:
    encoded = mask_utils.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def counted(mask: Pixels) -> dict[str, Any]:
    flat = mask.reshape(-1, order="F")
    turns = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(turns, prepend=0, append=len(flat)).tolist()
    return {"size": list(mask.shape), "counts": counts}


def dataset(folder: Path, picture: Image.Image, outline: Any, **changes: Any) -> Path:
    picture.save(folder / "a.png", **changes)
    image = {"id": 1, "file_name": "a.png", "height": HW[0], "width": HW[1]}
    entry = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline, "area": 3000}
    content = {
        "images": [image],
        "annotations": [entry | {"bbox": [8, 8, 92, 92]}],
        "categories": [{"id": 1, "name": "star"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def iou(mask: NDArray[Any], other: NDArray[Any]) -> float:
    return float((mask & other).sum() / (mask | other).sum())


def gray(image_hw: tuple[int, int]) -> Image.Image:
    return Image.linear_gradient("L").resize(image_hw[::-1])


@pytest.mark.parametrize("image_hw", [(60, 80), (240, 320), (90, 120), (180, 240), (61, 81)])
@pytest.mark.parametrize(
    "outline",
    [[STAR], compressed(raster(HW)), counted(raster(HW)), STAR],
    ids=["polygon", "run lengths", "counts", "flat"],
)
def test_all_is_scaled_alike(
    tmp_path: Path, image_hw: tuple[int, int], outline: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = opened(dataset(tmp_path, gray(image_hw), outline), "train")
    assert "an image of another size than annotated (1), such as a.png" in caplog.text
    assert found.mended["an image of another size than annotated"] == 1
    sample = found.sample(0)
    assert sample.image.shape[:2] == image_hw
    info = found.image_info(0)
    assert (info["height"], info["width"]) == image_hw
    mask = found.coco.annToMask(found.coco.anns[1])
    expected = raster(image_hw)
    assert mask.shape == image_hw
    assert iou(mask, expected) > 0.93
    ys, xs = np.nonzero(expected)
    edges = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(sample.boxes[0] - edges).max() <= 1.5
    scale = image_hw[0] * image_hw[1] / HW[0] / HW[1]
    assert found.annotations(0)[0]["area"] == pytest.approx(3000 * scale)
    (problem,) = check_dataset(str(tmp_path))["train"]
    assert problem.where == "a.png"
    assert problem.mend.startswith(
        f"it has {image_hw[1]} x {image_hw[0]} pixels, annotated are 160"
    )


@pytest.mark.parametrize("size", [(60, 80), (240, 320)])
def test_run_lengths_of_another_size_than_the_picture(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    found = opened(dataset(tmp_path, gray(HW), compressed(raster(size))), "train")
    assert found.sample(0).image.shape[:2] == HW
    assert iou(found.coco.annToMask(found.coco.anns[1]), raster(HW)) > 0.93
    assert check_dataset(str(tmp_path)) == {"train": []}


def test_another_shape_is_left_out(tmp_path: Path) -> None:
    folder = dataset(tmp_path, gray((100, 100)), [STAR])
    with pytest.raises(ValueError, match="an image of another shape than annotated") as refused:
        opened(folder, "train")
    assert "it has 100 x 100 pixels, annotated are 160 x 120" in str(refused.value)
    (problem,) = check_dataset(str(tmp_path))["train"]
    assert problem.what == "an image of another shape than annotated"
    content = json.loads((folder / "annotations.json").read_text())
    gray(HW).save(folder / "b.png")
    content["images"].append(content["images"][0] | {"id": 2, "file_name": "b.png"})
    content["annotations"].append(content["annotations"][0] | {"id": 2, "image_id": 2})
    (folder / "annotations.json").write_text(json.dumps(content))
    found = opened(folder, "train")
    assert found.image_ids == (2,)
    assert found.left_out == {"an image that is left out": 1}
    assert len(check_dataset(str(tmp_path))["train"]) == 1


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("is_turned", [True, False])
def test_a_rotated_picture(tmp_path: Path, factor: int, is_turned: bool) -> None:
    """The annotator saw it upright, or as it is stored; in both sizes the objects fit."""
    height, width = HW[0] * factor, HW[1] * factor
    stored_hw = (width, height) if is_turned else (height, width)
    pixels = np.zeros(stored_hw, np.uint8)
    seen = raster((height, width)) * 255
    pixels[:] = np.rot90(seen, 1) if is_turned else seen
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    found = opened(dataset(tmp_path, Image.fromarray(pixels), [STAR], exif=exif), "train")
    sample = found.sample(0)
    assert sample.image.shape[:2] == (height, width)
    mask = found.coco.annToMask(found.coco.anns[1])
    assert iou(mask, sample.image[..., 0] > 127) > 0.9
    assert len(check_dataset(str(tmp_path))["train"]) == factor - 1


@pytest.mark.parametrize(
    ("stated", "head", "expected"),
    [
        (None, ImageHead((3, 4), (4, 3), False), ((3, 4), (3, 4))),
        ((3, 4), ImageHead((3, 4), (4, 3), False), ((3, 4), (3, 4))),
        ((4, 3), ImageHead((3, 4), (4, 3), False), ((4, 3), (4, 3))),
        ((40, 30), ImageHead((30, 40), (30, 40), False), ((30, 40), (30, 40))),  # swapped
        ((60, 80), ImageHead((30, 40), (40, 30), False), ((30, 40), (60, 80))),
        ((80, 60), ImageHead((30, 40), (40, 30), False), ((40, 30), (80, 60))),
        ((90, 60), ImageHead((30, 40), (40, 30), False), None),
        ((1, 1), ImageHead((30, 40), (30, 40), False), None),
    ],
)
def test_the_size_of_an_image(stated: Any, head: ImageHead, expected: Any) -> None:
    if expected is None:
        with pytest.raises(Unusable, match="another shape"):
            settled_size(stated, head)
    else:
        assert settled_size(stated, head)[:2] == expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((1080, 1920), True),
        ((540, 960), True),
        ((360, 640), True),
        ((333, 592), True),  # rounded
        ((68, 120), True),
        ((9, 16), False),  # too small to tell
        ((640, 640), False),
        ((1080, 1900), False),
        ((1920, 1080), False),
    ],
)
def test_sizes_of_one_shape(other: tuple[int, int], expected: bool) -> None:
    assert are_alike((1080, 1920), other) == are_alike(other, (1080, 1920)) == expected


@pytest.mark.parametrize("image_hw", [(60, 80), (240, 320)])
def test_labelme_of_another_size(tmp_path: Path, image_hw: tuple[int, int]) -> None:
    """Polygons, circles and masks refer to the size that the file states."""
    gray(image_hw).save(tmp_path / "a.png")
    piece = raster(HW)[8:100, 8:100]
    mask = base64.b64encode(cv2.imencode(".png", piece * 255)[1].tobytes()).decode()
    points = np.reshape(STAR, (-1, 2)).tolist()
    shapes = [
        {"label": "star", "shape_type": "polygon", "points": points},
        {"label": "other", "shape_type": "mask", "points": [[8, 8], [99, 99]], "mask": mask},
        {"label": "disc", "shape_type": "circle", "points": [[80, 60], [80, 90]]},
    ]
    content = {"imagePath": "a.png", "imageHeight": HW[0], "imageWidth": HW[1], "shapes": shapes}
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = opened(tmp_path, "train")
    scale = image_hw[0] / HW[0]
    disc = np.hypot(*(np.indices(image_hw) + 0.5 - np.reshape([60, 80], (2, 1, 1)) * scale))
    expected = [raster(image_hw), raster(image_hw), disc <= 30 * scale]
    seen = [found.coco.annToMask(entry) for entry in found.annotations(0)]
    assert [iou(a, b) > 0.93 for a, b in zip(seen, expected, strict=True)] == [True] * 3
    (problem,) = check_dataset(str(tmp_path))["train"]
    assert problem.what == "an image of another size than annotated"


@pytest.mark.parametrize("name", ["c13_resized", "c13_halfsize_rle/a.json"])
def test_exports_of_another_size(cases_root: Path, name: str) -> None:
    found = opened(cases_root / name, "train")
    assert len(found) == 3
    for index in range(3):
        sample = found.sample(index)
        assert sample.image.shape == (60, 80, 3)
        inside = np.zeros((60, 80), bool)
        for (x1, y1, x2, y2), entry in zip(sample.boxes, found.annotations(index), strict=True):
            expected = np.zeros((60, 80), np.uint8)
            expected[round(y1) : round(y2), round(x1) : round(x2)] = 1
            assert iou(found.coco.annToMask(entry), expected) > 0.85
            inside |= expected > 0
        assert sample.image[inside].mean() > sample.image[~inside].mean() + 15  # objects are seen
    problems = check_dataset(str(cases_root / name))["train"]
    assert [p.what for p in problems] == ["an image of another size than annotated"] * 3
