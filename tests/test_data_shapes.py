import itertools
import json
import runpy
from collections import Counter
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from data.annotations.run_lengths import decode
from data.classes import SHAPE_CLASSES
from data.shapes.clip import _bounce, export_clip, shape_clip
from data.shapes.drawing import TEXTURES, Light, expose, paint_shape, random_light
from data.shapes.large_scenes import large_scene
from data.shapes.objects import OUTLINES, RasterizedShape, Shape, rasterize
from data.shapes.scenes import MIN_VISIBLE_PIXELS, ShapeScenes, export_coco, shapes_split
from data.video.reader import open_video
from yolact.cli.common import run_command

main = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "make_shapes.py"))["main"]


def make_shape(outline: str = "circle", texture: str = "plain", **changes: object) -> Shape:
    values: dict[str, object] = {
        "outline": outline,
        "center": (32.0, 32.0),
        "radius": 20.0,
        "angle": 0.0,
        "stretch": 1.0,
        "texture": texture,
        "colors": np.array([(1, 0, 0), (0, 0, 1)], dtype=np.float32),
        "frequency": 2.0,
        "grain": np.full((9, 9), 0.5, dtype=np.float32),
    }
    return Shape(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 1, 3])
def test_length_and_identifiers(length: int) -> None:
    scenes = ShapeScenes(length, image_size=64)
    assert len(scenes) == length
    assert scenes.image_ids == tuple(range(1, length + 1))
    assert scenes.coco.getImgIds() == list(scenes.image_ids)
    with pytest.raises(IndexError, match=f"scene {length} is out of range"):
        scenes.sample(length)


@pytest.mark.parametrize(
    "arguments", [{"length": -1}, {"image_size": 15}, {"image_size": 0}, {"seed": -1}]
)
def test_rejects_arguments_out_of_range(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ShapeScenes(**arguments)


@pytest.mark.parametrize("image_size", [16, 100, 256])
def test_samples_are_consistent(image_size: int) -> None:
    scenes = ShapeScenes(8, image_size, seed=3)
    for index in range(len(scenes)):
        sample = scenes.sample(index)
        count = len(sample.segmentations)
        masks = np.array(sample.segmentations, dtype=bool).reshape(-1, image_size, image_size)
        assert sample.image.shape == (image_size, image_size, 3)
        assert sample.image.dtype == np.uint8
        assert sample.boxes.shape == (count, 4)
        assert sample.labels.shape == sample.is_crowd.shape == (count,)
        assert (masks.sum(axis=0) <= 1).all()
        assert (masks.sum(axis=(1, 2)) >= MIN_VISIBLE_PIXELS).all()
        assert ((sample.labels >= 0) & (sample.labels < len(SHAPE_CLASSES))).all()
        assert not sample.is_crowd.any()
        for mask, box in zip(masks, sample.boxes, strict=True):
            rows, cols = np.nonzero(mask)
            tight = cols.min(), rows.min(), cols.max() + 1, rows.max() + 1
            assert box.tolist() == list(tight)


def test_same_seed_same_scene() -> None:
    long, short = ShapeScenes(9, 96, seed=5), ShapeScenes(4, 96, seed=5)
    long.sample(0)  # the order of access must not matter
    first, second = long.sample(3), short.sample(3)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.segmentations, second.segmentations)


def test_other_seeds_indices_and_splits_differ() -> None:
    scenes = [
        shapes_split(split, 2, 64, seed).sample(index).image.tobytes()
        for split in ("train", "val")
        for seed in (0, 1)
        for index in (0, 1)
    ]
    assert len(set(scenes)) == len(scenes)


def test_splits() -> None:
    assert (len(shapes_split("train")), len(shapes_split("val"))) == (20_000, 500)
    splits = [shapes_split(split, 0, seed=seed) for split in ("train", "val") for seed in (0, 1)]
    assert len({split.seed for split in splits}) == 4
    with pytest.raises(ValueError, match="unknown split 'test'; choose from train, val"):
        shapes_split("test")  # type: ignore[arg-type]


def test_all_classes_occur_and_scenes_are_full() -> None:
    scenes = ShapeScenes(100)
    entries = [scenes.annotations(index) for index in range(len(scenes))]
    counts = Counter(entry["category_id"] for part in entries for entry in part)
    assert min(counts[category_id] for category_id in SHAPE_CLASSES.category_ids) > 20
    assert {len(part) for part in entries} == {2, 3, 4, 5, 6}
    assert scenes.categories == SHAPE_CLASSES
    assert SHAPE_CLASSES.names == tuple(OUTLINES)
    assert scenes.categories.category_ids == tuple(range(1, 9))


def test_coco_agrees_with_samples(capsys: pytest.CaptureFixture[str]) -> None:
    scenes = ShapeScenes(3, 128)
    truth = scenes.coco
    assert truth is scenes.coco
    assert capsys.readouterr() == ("", "")
    for index, image_id in enumerate(scenes.image_ids):
        check_annotations(truth, scenes, index, image_id)


def check_annotations(truth: COCO, scenes: ShapeScenes, index: int, image_id: int) -> None:
    sample = scenes.sample(index)
    entries = truth.loadAnns(truth.getAnnIds(image_id))
    assert len(entries) == len(sample.labels)
    for entry, label, box, mask in zip(
        entries, sample.labels, sample.boxes, sample.segmentations, strict=True
    ):
        assert entry["category_id"] == label + 1
        assert entry["area"] == mask.sum()
        assert entry["bbox"] == [*box[:2], *(box[2:] - box[:2])]
        assert np.array_equal(truth.annToMask(entry), mask)


def test_masks_show_what_is_painted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    painted = itertools.count(1)

    def paint_flat(image: np.ndarray, shape: Shape, raster: RasterizedShape, light: Light) -> None:
        outer, inner = raster.overlap(image.shape[:2])
        image[outer][raster.solid[inner]] = next(painted)

    monkeypatch.setattr("data.shapes.scenes.paint_shape", paint_flat)
    empty = "data.shapes.scenes.paint_background"
    monkeypatch.setattr(empty, lambda rng, hw, palette: np.zeros((*hw, 3)))
    monkeypatch.setattr("data.shapes.scenes.expose", lambda rng, image, light: image)
    dataset, overlaps = ShapeScenes(6, 96), 0
    for index in range(len(dataset)):
        sample = dataset.sample(index)
        values = [np.unique(sample.image[mask]) for mask in sample.segmentations]
        assert {len(found) for found in values} == {1}
        assert len({found.item() for found in values}) == len(values)
        assert (sample.image[~np.any(sample.segmentations, axis=0)] == 0).all()
        rasters = [raster for _, raster in dataset._layout(index)[2].shapes]
        for mask, raster in zip(sample.segmentations, rasters, strict=True):
            share = mask.sum() / raster.solid.sum()
            assert share >= 0.6
            overlaps += share < 1
    assert overlaps


@pytest.mark.parametrize("count", [0, 1, 2])
def test_export_round_trip(tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = ShapeScenes(2, 96)
    path = export_coco(scenes, tmp_path, "val", count)
    assert path == tmp_path / "annotations" / "instances_val.json"
    truth = COCO(str(path))
    assert truth.getImgIds() == list(scenes.image_ids[:count])
    assert [c["name"] for c in truth.loadCats(truth.getCatIds())] == list(SHAPE_CLASSES.names)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    for index in range(count):
        check_annotations(truth, scenes, index, index + 1)
        image = cv2.imread(str(tmp_path / "val" / scenes.image_info(index)["file_name"]))
        difference = np.abs(image[..., ::-1].astype(float) - scenes.sample(index).image)
        assert difference.mean() < 5  # JPEG


def test_export_rejects_more_scenes_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count is 3; the dataset has 2"):
        export_coco(ShapeScenes(2), tmp_path, "val", 3)


def test_clip_is_deterministic_and_moves() -> None:
    assert list(shape_clip(0)) == []
    first, second = (list(shape_clip(3, (90, 160), seed=2)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first[0].shape == (90, 160, 3)
    assert all(not np.array_equal(a, b) for a, b in pairwise(first))


def test_export_clip(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with pytest.raises(ValueError, match="no frames"):
        export_clip(path, [])
    export_clip(path, shape_clip(4, (90, 160)), fps=10)
    with open_video(path) as video:
        assert [frame.shape for frame in video] == [(90, 160, 3)] * 4
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("outline", "area"),
    [("circle", np.pi), ("square", 2.56), ("ring", np.pi * (1 - 0.54**2)), ("cross", 2.2044)],
)
def test_coverage_is_the_area(outline: str, area: float) -> None:
    coverage = rasterize(make_shape(outline)).coverage
    assert coverage.sum() / 255 == pytest.approx(area * 20**2, rel=0.03)


@pytest.mark.parametrize(
    ("angle", "stretch", "size"), [(0, 1, (32, 32)), (0, 0.5, (32, 16)), (np.pi / 2, 0.5, (16, 32))]
)
def test_outlines_are_stretched_and_turned(
    angle: float, stretch: float, size: tuple[int, int]
) -> None:
    raster = rasterize(make_shape("square", angle=angle, stretch=stretch))
    rows, columns = np.nonzero(raster.solid)
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == size
    assert raster.solid.sum() == size[0] * size[1]
    # The centre (32, 32) is where four pixels meet.
    assert columns.min() + columns.max() + 2 * raster.x == 63
    assert rows.min() + rows.max() + 2 * raster.y == 63


@pytest.mark.parametrize("center", [(32.0, 32.0), (30.3, 33.9)])
def test_coverage_has_its_centre_where_the_shape_has(center: tuple[float, float]) -> None:
    raster = rasterize(make_shape("circle", center=center, radius=9.3))
    weights = raster.coverage / raster.coverage.sum()
    rows, columns = (np.arange(size) + 0.5 for size in raster.coverage.shape)
    found = raster.x + weights.sum(axis=0) @ columns, raster.y + weights.sum(axis=1) @ rows
    assert found == pytest.approx(center, abs=0.03)


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_solid_is_what_is_covered_by_half(share: float) -> None:
    """A square whose left edge covers a share of its pixels."""
    raster = rasterize(make_shape("square", center=(32.0 + 1 - share, 32.0)))
    assert (raster.coverage[:, 16 - raster.x] > 0).any()
    assert raster.solid[:, 16 - raster.x].any() == (share > 0.5)


def test_shadows_fall_the_way_of_the_light() -> None:
    flat = np.ones((64, 64), np.float32)
    light = Light((1.0, 0.0), 0.6, flat, np.ones((3, 1), np.float32), 0.0)
    image, shape = np.ones((64, 64, 3), np.float32), make_shape(radius=9.0)
    paint_shape(image, shape, rasterize(shape), light)
    assert image[32, 43].mean() < 0.9 < image[32, 19].mean()


def test_light_brightens_what_it_falls_on() -> None:
    field = np.linspace(0.5, 1, 64, dtype=np.float32)[None].repeat(64, axis=0)
    tint = np.array([(1.0,), (0.5,), (1.0,)], np.float32)
    light = Light((1.0, 0.0), 0.5, field, tint, 0.0)
    image = expose(np.random.default_rng(0), np.full((64, 64, 3), 0.5, np.float32), light)
    assert image[:, 0, 0].mean() == pytest.approx(64, abs=1)
    assert image[:, -1].mean(axis=0) == pytest.approx((127.5, 64, 127.5), abs=1)


@pytest.mark.parametrize(
    ("position", "expected"), [(0, 0), (3, 3), (10, 10), (12, 8), (-4, 4), (23, 3), (-13, 7)]
)
def test_bounce(position: float, expected: float) -> None:
    assert _bounce(position, 10) == expected


def test_ring_has_a_hole() -> None:
    raster = rasterize(make_shape("ring"))
    assert raster.coverage[32 - raster.y, 32 - raster.x] == 0


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("center", [(32.0, 32.0), (0.0, 63.5), (-200.0, 30.0)])
def test_paints_only_its_window(texture: str, center: tuple[float, float]) -> None:
    light = random_light(np.random.default_rng(0), (64, 64))
    image = np.ones((64, 64, 3), dtype=np.float32)
    shape = make_shape(texture=texture, center=center, radius=9.0)
    raster = rasterize(shape)
    paint_shape(image, shape, raster, light)
    outside = np.ones((64, 64), dtype=bool)
    outside[raster.overlap((64, 64))[0]] = False
    assert (image[outside] == 1).all()
    assert (image != 1).any() == (center[0] >= 0)


def test_outlines_lie_about_the_unit_circle() -> None:
    for contours in OUTLINES.values():
        reach = np.linalg.norm(contours[0], axis=1).max()
        assert 0.95 < reach < 1.25


def test_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, [str(tmp_path), "--train=1", "--val=0", "--image_size=64"]) == 0
    out = capsys.readouterr().out
    for split, scenes in (("train", 1), ("val", 0)):
        path = tmp_path / "annotations" / f"instances_{split}.json"
        assert str(path) in out
        assert len(json.loads(path.read_text())["images"]) == scenes


def test_script_reports_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run_command(main, [str(tmp_path / "file"), "--train=0"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert run_command(main, [str(tmp_path), "--train=-1"]) == 2
    assert "--train=-1: expected at least 0" in capsys.readouterr().err


@pytest.mark.parametrize("side", [200, 650])
def test_scattered_objects_are_annotated_where_they_show(side: int) -> None:
    image, entries = large_scene(side, (30, 90), seed=2)
    assert image.shape == (side, side, 3)
    assert 0 < len(entries) <= max(side // 300, 1) ** 2
    masks = np.stack([decode(entry["segmentation"], (side, side)) for entry in entries])
    assert masks.sum(axis=0).max() == 1
    for entry, mask in zip(entries, masks, strict=True):
        assert entry["area"] == mask.sum() >= MIN_VISIBLE_PIXELS
        assert tuple(entry["bbox"]) == cv2.boundingRect(mask)
        assert entry["category_id"] in SHAPE_CLASSES.category_ids
    again, other = (large_scene(side, (30, 90), seed)[0] for seed in (2, 3))
    assert np.array_equal(image, again)
    assert not np.array_equal(image, other)
