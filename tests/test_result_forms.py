"""What leaves `Detections` is read back by other people's tools, and is the same."""

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import cv2
import numpy as np
import pandas as pd
import pytest
import supervision as sv
import torch
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from support.odd_masks import HW, NAMES, iou, odd_bitmaps, odd_detections, photo

from data.annotations.outlines import is_too_long
from data.annotations.polygons import one_ring, trace
from data.annotations.run_lengths import decode, from_outline
from data.classes import COCO_CLASSES
from data.formats.labelme import read_labelme
from data.formats.yolo import read_yolo
from yolact.results.compact import compact_masks
from yolact.results.detections import Detections

TOLERANCES = (0.0, 1.0)


def nothing() -> Detections:
    return odd_detections()[:0]


def drawn(polygons: list[list[list[float]]], hw: tuple[int, int] = HW) -> np.ndarray:
    """Fill outlines and cut holes by OpenCV, on a grid eight times finer."""
    fine = np.zeros((hw[0] * 8, hw[1] * 8), np.uint8)
    points = [np.round(np.array(ring) * 8 - 0.5).astype(np.int32) for ring in polygons]
    cv2.fillPoly(fine, points, 1)  # even-odd over all rings
    return cv2.resize(fine.astype(np.float32), hw[::-1], interpolation=cv2.INTER_AREA) > 0.5


def test_nothing_in_every_form(tmp_path: Path) -> None:
    found, (_, image) = nothing(), photo(tmp_path)
    assert (found.polygons(), found.rle(), found.to_coco(), found.to_yolo()) == ([], [], [], "")
    assert (found.crops(image), found.cutouts(image), len(found.areas)) == ([], [], 0)
    assert found.to_csv() == "source,name,label,score,x1,y1,x2,y2,area\n"
    assert json.loads(found.to_json())["objects"] == found.to_labelme()["shapes"] == []
    assert found.to_dataframe().shape == (0, 9)
    assert len(found.to_supervision()) == len(found.to_torchvision()["boxes"]) == 0
    assert len(Detections.from_supervision(found.to_supervision(), HW)) == 0
    assert ElementTree.fromstring(found.to_cvat()).find("image/mask") is None
    assert np.array_equal(found.plot(image), image)
    assert len(found + found) == len(found.sort("area")) == len(found.filter(min_area=1)) == 0
    assert repr(found) == "<Detections: nothing in an image of 160 x 120>"


def test_run_lengths_by_pycocotools() -> None:
    for lengths, mask in zip(odd_detections().rle(), odd_bitmaps(), strict=True):
        assert np.array_equal(mask_utils.decode(lengths), mask)


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_polygons_by_opencv(tolerance: float) -> None:
    found = odd_detections().polygons(tolerance)
    for polygons, mask in zip(found, odd_bitmaps(), strict=True):
        rings = [ring for polygon in polygons for ring in (polygon.outline, *polygon.holes)]
        assert iou(drawn(rings), mask) >= (0.97 if tolerance else 1)
    assert [len(polygons) for polygons in found] == [1, 3, found_parts(), 1]
    assert [len(polygon.holes) for polygon in found[1]].count(1) == 1


def found_parts() -> int:
    return cv2.connectedComponents(odd_bitmaps()[2].astype(np.uint8), connectivity=8)[0] - 1


@pytest.mark.parametrize("short_bridges", [1, 500])
@pytest.mark.parametrize("seed", range(60))
def test_any_mask_is_its_polygons(
    seed: int, short_bridges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outlines, drawn by COCO's rules, and the same joined to one ring."""
    monkeypatch.setattr("data.annotations.polygons._SHORT_BRIDGES", short_bridges)
    random = np.random.default_rng(seed)
    mask = random.random(random.integers(1, 13, 2)) < random.random()
    mask = mask.repeat(seed % 3 + 1, 0).repeat(seed % 3 + 1, 1)
    polygons = trace(mask, (2, 1))
    assert bool(polygons) == bool(mask.any())
    if polygons:
        ring = one_ring(polygons).reshape(-1).tolist()
        hw = (mask.shape[0] + 1, mask.shape[1] + 2)
        again = mask_utils.decode(mask_utils.frPyObjects([ring], *hw))[..., 0]
        assert np.array_equal(again[1:, 2:], mask)


def test_thousands_of_parts_make_one_ring_that_is_not_too_long() -> None:
    image_hw = (1500, 2000)
    mask = np.zeros(image_hw, np.uint8)
    random = np.random.default_rng(3)
    for x, y in zip(random.integers(0, 2000, 2500), random.integers(0, 1500, 2500), strict=True):
        cv2.circle(mask, (int(x), int(y)), 3, 1, -1)
    ring = one_ring(trace(mask))
    assert not is_too_long(ring.astype(float), np.array(image_hw))
    steps = np.abs(ring - np.roll(ring, 1, axis=0)).max(axis=1)
    assert steps.sum() < 400_000  # 4,000,000 by bridges from one point
    shape = from_outline([ring.reshape(-1).tolist()], image_hw)
    assert np.array_equal(decode(shape, image_hw), mask)


@pytest.mark.parametrize("tolerance", [None, *TOLERANCES])
def test_coco_by_pycocotools(tmp_path: Path, tolerance: float | None) -> None:
    found = odd_detections()
    truth = {"images": [{"id": 7, "height": HW[0], "width": HW[1]}], "annotations": []}
    truth["categories"] = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = found.to_coco(7, tolerance=tolerance)
    (tmp_path / "results.json").write_text(json.dumps(results))
    coco = COCO(tmp_path / "truth.json")
    loaded = coco.loadRes(str(tmp_path / "results.json")) if tolerance is None else None
    annotations = loaded.loadAnns(loaded.getAnnIds()) if loaded else results
    for annotation, mask, box in zip(annotations, odd_bitmaps(), found.boxes, strict=True):
        bitmap = coco.annToMask(annotation)
        assert iou(bitmap, mask) >= (0.97 if tolerance else 1)
        x, y, width, height = annotation["bbox"]
        assert [x, y, x + width, y + height] == box.tolist()
    assert [each["category_id"] for each in results] == [1, 2, 3, 4]
    assert [each["area"] for each in results] == [np.count_nonzero(m) for m in odd_bitmaps()]


def test_category_ids() -> None:
    found = odd_detections()
    coco = Detections(
        **{**vars(found), "class_names": COCO_CLASSES.names, "labels": found.labels + 79}
    )
    assert coco[:1].to_coco()[0]["category_id"] == 90
    assert found[:1].to_coco(category_ids=[5, 6, 7, 8])[0]["category_id"] == 5


def test_json_by_pycocotools() -> None:
    content = json.loads(odd_detections(source="a/b.jpg").to_json())
    assert (content["source"], content["width"], content["height"]) == ("a/b.jpg", *HW[::-1])
    for entry, mask in zip(content["objects"], odd_bitmaps(), strict=True):
        assert np.array_equal(mask_utils.decode(entry["segmentation"]), mask)
        assert entry["area"] == np.count_nonzero(mask)


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_yolo_by_opencv_and_by_our_reader(tmp_path: Path, tolerance: float) -> None:
    path, _ = photo(tmp_path)
    text = odd_detections().to_yolo(tolerance)
    path.with_suffix(".txt").write_text(text)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    for line, mask in zip(text.splitlines(), odd_bitmaps(), strict=True):
        ring = np.array(line.split()[1:], float).reshape(-1, 2) * HW[::-1]
        assert iou(drawn([ring]), mask) >= 0.97
    content = read_yolo(tmp_path, tmp_path / "classes.txt").content
    check_masks(content, 0.97 if tolerance else 0.999)


def test_boxes_without_masks_are_written_as_boxes(tmp_path: Path) -> None:
    found = odd_detections()
    found = replace(found, soft_masks=torch.zeros_like(found.soft_masks))
    assert not found.masks.any()
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    path, _ = photo(tmp_path)
    path.with_suffix(".txt").write_text(found.to_yolo())
    read = read_yolo(tmp_path, tmp_path / "classes.txt").content["annotations"]
    corners = [[x, y, x + w, y + h] for x, y, w, h in (each["bbox"] for each in read)]
    np.testing.assert_allclose(corners, found.boxes, atol=0.01)
    shapes = found.to_labelme()["shapes"]
    assert [shape["shape_type"] for shape in shapes] == ["rectangle"] * len(found)
    assert [sum(shape["points"], []) for shape in shapes] == found.boxes.tolist()


def test_numbers_in_csv_stay_numbers() -> None:
    found = odd_detections()[:1]
    found = replace(found, boxes=found.boxes - 100, class_names=("=1+1", *NAMES[1:]))
    row = next(csv.DictReader(io.StringIO(found.to_csv())))
    assert float(row["x1"]) == pytest.approx(float(found.boxes[0, 0]), abs=0.01)
    assert row["name"].startswith("'=")  # what a spreadsheet would compute


def check_masks(content: dict, least: float) -> None:
    for annotation, mask in zip(content["annotations"], odd_bitmaps(), strict=True):
        parts = mask_utils.frPyObjects(annotation["segmentation"], *HW)
        assert iou(mask_utils.decode(mask_utils.merge(parts)), mask) >= least


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_labelme_by_its_form_and_by_our_reader(tmp_path: Path, tolerance: float) -> None:
    path, _ = photo(tmp_path)
    file = tmp_path / "labels" / "photo.json"
    content = odd_detections(source=str(path)).to_labelme(file, tolerance)
    assert json.loads(file.read_text()) == content
    keys = ("version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth")
    assert tuple(content) == keys  # what labelme itself writes
    assert content["imagePath"] == "../photo.png"
    for shape in content["shapes"]:
        assert len(shape["points"]) > 2 and shape["shape_type"] == "polygon"
    groups = [shape["group_id"] for shape in content["shapes"] if shape["label"] == "pair"]
    assert groups == [2, 2, 2]
    read = read_labelme(tmp_path, tmp_path / "labels")
    assert read.problems == []
    assert read.content["images"][0]["file_name"] == "photo.png"
    check_masks(ordered(read.content), 0.97 if tolerance else 1)


def test_labelme_names_an_image_from_the_web_by_its_last_part(tmp_path: Path) -> None:
    found = odd_detections(source="https://example.org/shots/photo.png")
    assert found.to_labelme(tmp_path / "photo.json")["imagePath"] == "photo.png"


def test_labelme_of_an_image_from_memory_has_no_name(tmp_path: Path) -> None:
    assert odd_detections(source="").to_labelme(tmp_path / "a.json")["imagePath"] == ""


def test_fiftyone_has_the_box_of_what_has_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(Detection=SimpleNamespace, Detections=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "fiftyone", fake)
    found = odd_detections()
    height, width = found.image_hw
    without = replace(found, soft_masks=torch.zeros_like(found.soft_masks))
    for index, (one, other) in enumerate(
        zip(found.to_fiftyone().detections, without.to_fiftyone().detections, strict=True)
    ):
        x1, y1, x2, y2 = (found.boxes[index] / torch.tensor([width, height] * 2)).tolist()
        assert other.bounding_box == pytest.approx([x1, y1, x2 - x1, y2 - y1], rel=1e-5)
        assert other.mask is None
        (left, top, right, bottom), inside = found.crop(index)
        if inside.any():
            size = (one.bounding_box[2] * width, one.bounding_box[3] * height)
            assert size == pytest.approx((right - left, bottom - top))
            assert one.mask.shape == (bottom - top, right - left)


def ordered(content: dict) -> dict:
    names = {each["id"]: each["name"] for each in content["categories"]}
    annotations = sorted(
        content["annotations"], key=lambda each: NAMES.index(names[each["category_id"]])
    )
    return {**content, "annotations": annotations}


def test_cvat_by_its_published_form() -> None:
    root = ElementTree.fromstring(odd_detections(source="shots/photo.png").to_cvat())
    image = root.find("image")
    assert dict(image.attrib) == {"id": "0", "name": "photo.png", "width": "160", "height": "120"}
    assert [label.text for label in root.iterfind("meta/task/labels/label/name")] == list(NAMES)
    for element, mask, name in zip(image.iter("mask"), odd_bitmaps(), NAMES, strict=True):
        x, y, width, height = (int(element.get(k)) for k in ("left", "top", "width", "height"))
        runs = [int(run) for run in element.get("rle").split(",")]
        pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        again = np.zeros(HW, bool)
        again[y : y + height, x : x + width] = pixels
        assert np.array_equal(again, mask)
        assert element.get("label") == name


def test_tables() -> None:
    found = odd_detections(source="a.jpg")
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    table = found.to_dataframe()
    assert list(table.columns) == list(rows[0])
    for row, index in zip(rows, range(4), strict=True):
        assert row["name"] == table.name[index] == NAMES[index]
        assert float(row["score"]) == pytest.approx(table.score[index], abs=1e-4)
        box = [float(row[k]) for k in ("x1", "y1", "x2", "y2")]
        assert box == table.loc[index, ["x1", "y1", "x2", "y2"]].tolist()
        assert int(row["area"]) == table.area[index] == np.count_nonzero(odd_bitmaps()[index])
    assert isinstance(table, pd.DataFrame)


def test_supervision_there_and_back() -> None:
    found = odd_detections()
    theirs = found.to_supervision()
    assert isinstance(theirs, sv.Detections)
    assert np.array_equal(theirs.mask, odd_bitmaps())
    assert theirs.data["class_name"].tolist() == list(NAMES)
    assert np.array_equal(theirs.box_area, box_areas(found))
    again = Detections.from_supervision(theirs[[2, 0, 3, 1]], HW)  # ours are sorted
    for name in ("boxes", "scores", "labels", "masks"):
        assert torch.equal(getattr(again, name), getattr(found, name)), name
    assert again.class_names == NAMES
    first = Detections.from_supervision(theirs[[0]], HW, NAMES)
    assert (first.class_names, first.to_coco()) == (NAMES, found[:1].to_coco())
    assert Detections.from_supervision(sv.Detections.empty(), HW, NAMES).class_names == NAMES
    with pytest.raises(ValueError, match=r"class_id=\[.*3.*\]: expected labels of 2 classes"):
        Detections.from_supervision(theirs, HW, NAMES[:2])


def box_areas(found: Detections) -> list[float]:
    return [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in found.boxes.tolist()]


def test_supervision_without_masks_scores_or_classes() -> None:
    bare = sv.Detections(xyxy=np.array([[1.0, 2, 30, 40]]))
    found = Detections.from_supervision(bare, HW)
    assert (found.scores.tolist(), found.labels.tolist(), found.areas.tolist()) == ([1], [0], [0])
    with pytest.raises(ValueError, match=r"image_hw=\(9, 9\): the masks are of \(120, 160\)"):
        Detections.from_supervision(odd_detections().to_supervision(), (9, 9))


def test_torchvision() -> None:
    theirs = odd_detections().to_torchvision()
    assert theirs["masks"].shape == (4, 1, *HW)
    assert np.array_equal(theirs["masks"][:, 0].numpy() > 0.5, odd_bitmaps())
    assert theirs["labels"].tolist() == [1, 2, 3, 4]


def test_crops_and_cutouts(tmp_path: Path) -> None:
    _, image = photo(tmp_path)
    found = odd_detections(image)
    for crop, cutout, mask, box in zip(
        found.crops(), found.cutouts(), odd_bitmaps(), found.boxes.int().tolist(), strict=True
    ):
        x1, y1, x2, y2 = box
        assert np.array_equal(crop, image[y1:y2, x1:x2])
        assert np.array_equal(cutout[..., 3] > 0, mask[y1:y2, x1:x2])
        assert np.array_equal(cutout[..., :3], crop)
    assert found.crops(margin=1000)[3].shape == image.shape
    with pytest.raises(ValueError, match=r"expected \(120, 160, 3\)"):
        found.crops(image[:50])
    with pytest.raises(ValueError, match="hold no picture"):
        odd_detections().plot()


@pytest.mark.parametrize("suffix", ["png", "JPG", "webp", "json", "txt", "csv", "xml"])
def test_save_by_suffix(tmp_path: Path, suffix: str) -> None:
    _, image = photo(tmp_path)
    found = odd_detections(image, "photo.png")
    path = found.save(tmp_path / "new" / f"out.{suffix}")
    if suffix in ("png", "JPG", "webp"):
        again = cv2.imread(str(path))[..., ::-1]
        assert np.abs(again.astype(int) - found.plot()).mean() < (1 if suffix == "png" else 25)
    else:
        texts = {
            "json": found.to_json(), "txt": found.to_yolo(), "csv": found.to_csv(),
            "xml": found.to_cvat(),
        }  # fmt: skip
        assert path.read_text() == texts[suffix]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_save_a_folder_and_refuse_other_suffixes(tmp_path: Path) -> None:
    _, image = photo(tmp_path)
    found = odd_detections(image)
    names = sorted(path.name for path in found.save(tmp_path / "all").iterdir())
    cutouts = ["000_ring.png", "001_pair.png", "002_blob_with_a_comma.png", "003_dot.png"]
    assert names == [*cutouts, "detections.json", "picture.png"]
    alpha = cv2.imread(str(tmp_path / "all" / "000_ring.png"), cv2.IMREAD_UNCHANGED)[..., 3]
    assert np.count_nonzero(alpha) == found.areas[0]
    with pytest.raises(ValueError, match=r"out\.doc: expected the name of a folder, or a suffix"):
        found.save(tmp_path / "out.doc")


def test_which_of_them() -> None:
    found = odd_detections()
    cases = [
        ({"classes": ["pair", 3]}, [1, 3]),
        ({"min_score": 0.5}, [0, 1, 2]),
        ({"min_area": 500, "classes": []}, []),
        ({"min_area": 500}, [0, 1, 2]),
        ({"inside": (0, 0, 80, 120)}, [0, 2]),
        ({"inside": [(80, 0), (160, 0), (120, 119)]}, [1]),
    ]
    for conditions, labels in cases:
        assert found.filter(**conditions).labels.tolist() == labels
    assert found["ring"].labels.tolist() == [0]
    assert found[1:3].labels.tolist() == [1, 2]
    with pytest.raises(ValueError, match="classes='cat': no such class; there are ring, pair"):
        found["cat"]
    with pytest.raises(ValueError, match="inside="):
        found.filter(inside=(1, 2, 3))


def test_orders() -> None:
    found = odd_detections()
    for by in ("area", "left", "top", "label", "score"):
        kept = found.sort(by)
        values = {
            "area": kept.areas, "left": kept.boxes[:, 0], "top": kept.boxes[:, 1],
            "label": kept.labels, "score": kept.scores,
        }[by].tolist()  # fmt: skip
        assert values == sorted(values, reverse=by in ("area", "score"))
    assert found.sort("label", descending=True).labels.tolist() == [3, 2, 1, 0]
    with pytest.raises(ValueError, match="by='size': expected one of score, area"):
        found.sort("size")


def test_joined() -> None:
    found = odd_detections()
    both = found[[0, 2]] + found[[1, 3]]
    assert both.labels.tolist() == [0, 1, 2, 3]
    assert np.array_equal(both.masks.numpy(), odd_bitmaps())
    other = Detections.from_supervision(found[[3]].to_supervision(), HW)  # a grid of one cell
    other = Detections(**{**vars(other), "class_names": NAMES})
    assert np.array_equal((found[:3] + other).masks.numpy(), odd_bitmaps())
    with pytest.raises(ValueError, match="with image_hw"):
        found + Detections(**{**vars(found), "image_hw": (9, 9)})


def test_masks_of_many_pixels_are_shrunk() -> None:
    bitmaps = odd_bitmaps()
    soft_masks, frames = compact_masks([(mask, (0, 0)) for mask in bitmaps], most_cells=4 * 40**2)
    assert soft_masks.shape == (4, 40, 40)
    found = replace(odd_detections(), soft_masks=soft_masks, mask_frames=frames)
    exact = odd_detections().areas
    for mask, bitmap, area in zip(found.masks.numpy(), bitmaps, exact.tolist(), strict=True):
        assert iou(mask, bitmap) > 0.85 or area < 100


def test_in_words_and_in_notebooks(tmp_path: Path) -> None:
    _, image = photo(tmp_path)
    found = odd_detections(image, "photo.png")
    words = "<Detections: 2 ring, 1 pair in photo.png of 160 x 120>"
    assert repr(found[[0, 0, 1]]) == words
    picture = cv2.imdecode(np.frombuffer(found._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(picture[..., ::-1], found.plot())
    assert odd_detections()._repr_png_() is None


def test_the_picture_is_read_again(tmp_path: Path) -> None:
    path, image = photo(tmp_path)
    assert np.array_equal(odd_detections(source=str(path)).image, image)
