from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.annotations.coco import CocoInstances
from data.catalog import open_dataset
from data.sample import Sample
from data.shapes.scenes import ShapeScenes
from yolact.drawing.detections import place_labels
from yolact.drawing.side_by_side import Panel, labels_that_fit, objects_to_draw, side_by_side
from yolact.evaluation.coco import eval_order
from yolact.results.detections import Detections
from yolact.training.pictures import write_validation_pictures

HW = (60, 80)


def objects(
    boxes: list[tuple[int, int, int, int]], names: tuple[str, ...] = ("cat",)
) -> Detections:
    """Boxes filled by their masks."""
    bitmaps = [np.zeros(HW, np.uint8) for _ in boxes]
    for bitmap, (x1, y1, x2, y2) in zip(bitmaps, boxes, strict=True):
        bitmap[y1:y2, x1:x2] = 1
    corners = np.array(boxes, np.float32)
    return objects_to_draw(bitmaps, corners, [0] * len(boxes), HW, names)


def nothing(image: NDArray[np.uint8]) -> Detections:
    found = objects_to_draw([], np.zeros((0, 4), np.float32), [], HW, ("cat",))
    return replace(found, image_hw=(image.shape[0], image.shape[1]))


def test_masks_keep_their_place_and_shape() -> None:
    triangle = np.tril(np.ones((40, 40), np.uint8))
    bitmap = np.zeros(HW, np.uint8)
    bitmap[10:50, 30:70] = triangle
    boxes = np.array([[30, 10, 70, 50], [0, 0, 9, 9]], np.float32)
    drawn = objects_to_draw([bitmap, np.zeros(HW, np.uint8)], boxes, [0, 0], HW, ("cat",))
    assert (drawn.masks[0].numpy() != bitmap).mean() < 0.01
    assert not drawn.masks[1].any()


@pytest.mark.parametrize(("side", "size"), [(40, (30, 40)), (100, (75, 100)), (500, (120, 160))])
def test_panels_fit_and_do_not_blow_up(side: int, size: tuple[int, int]) -> None:
    image = np.full((*HW, 3), 100, np.uint8)
    panels = [Panel("a", objects([]), False), Panel("b", objects([(10, 10, 40, 40)]), True)]
    picture = side_by_side(image, panels, side)
    height, width = size
    assert picture.shape == (24 + height, 2 * width + 8, 3)
    left, right = picture[24:, :width], picture[24:, width + 8 :]
    assert (left == 100).all()
    scale = width / HW[1]
    inside = right[round(12 * scale) : round(38 * scale), round(12 * scale) : round(38 * scale)]
    assert (inside != 100).any(axis=2).all()
    assert (image == 100).all()


@pytest.mark.parametrize("count", [0, 1, 3, 30])
def test_labels_never_cover_each_other(count: int) -> None:
    """Of objects in one place the first is named; the words of the others may be left out."""
    crowd = objects([(20, 20, 60, 40)] * count, ("somebody",))
    named = labels_that_fit(crowd, scores=False)
    assert named[:1].all()
    assert len(named) == count
    boxes = [(20, 20, 60, 40)] * count
    places = np.array(place_labels(["somebody"] * count, boxes, HW)).reshape(-1, 4)[named]
    for a, b in itertools.combinations(places.tolist(), 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_who_has_no_room_is_drawn_without_a_name() -> None:
    image = np.full((*HW, 3), 100, np.uint8)
    crowd = objects([(20, 20, 60, 40)] * 30, ("somebody",))
    one = side_by_side(image, [Panel("", crowd[:6], False)], 160)
    many = side_by_side(image, [Panel("", crowd, False)], 160)
    white = [(picture[24:] > 240).all(axis=2).sum() for picture in (one, many)]
    assert white[0] > 100
    assert white[1] <= 1.2 * white[0]


def test_panels_may_choose_colors() -> None:
    image, boxes = np.full((*HW, 3), 100, np.uint8), [(5, 10, 20, 50), (30, 10, 45, 50)]
    colors = [(200, 0, 0), (0, 0, 200)]
    panel = Panel("", objects([*boxes, boxes[1]]), False, [*colors, (0, 200, 0)])
    picture = side_by_side(image, [panel], 80)[24:]
    for (x1, _, x2, _), color in zip(boxes, colors, strict=True):
        inside = picture[30, (x1 + x2) // 2].astype(int)
        assert inside.argmax() == np.argmax(color)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_validation_pictures_are_the_same_images_every_time(tmp_path: Path, count: int) -> None:
    dataset = ShapeScenes(5, 64, seed=3)
    seen: list[int] = []

    def predict(image: NDArray[np.uint8]) -> Detections:
        seen.append(int(image.astype(np.int64).sum()))
        return nothing(image)

    path = write_validation_pictures(tmp_path, dataset, predict, count)
    again = write_validation_pictures(tmp_path, dataset, predict, count)
    assert path == again == tmp_path / "val_pictures.jpg"
    assert [file.name for file in tmp_path.iterdir()] == ["val_pictures.jpg"]
    shown = min(count, 5)
    first = [dataset.sample(index).image for index in eval_order(dataset.image_ids)[:shown]]
    assert seen == 2 * [int(image.astype(np.int64).sum()) for image in first]
    rows, columns = (shown + 1) // 2, min(shown, 2)
    tile = (24 + 128, 2 * 128 + 8)
    size = (rows * tile[0] + 8 * (rows - 1), columns * tile[1] + 24 * (columns - 1), 3)
    assert cv2.imread(str(path)).shape == size


def test_ground_truth_is_left_and_predictions_are_right(tmp_path: Path) -> None:
    dataset = ShapeScenes(1, 64, seed=1)
    sample = dataset.sample(0)
    boxes, labels = sample.boxes, sample.labels.tolist()
    perfect = objects_to_draw(
        sample.segmentations, boxes, labels, (64, 64), dataset.categories.names
    )
    unsure = replace(perfect, scores=torch.full((len(labels),), 0.1))

    def halves(found: Detections) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        path = write_validation_pictures(tmp_path, dataset, lambda _: found)
        picture = cv2.imread(str(path))[24:].astype(np.int64)
        return picture[:, :128], picture[:, -128:]

    truth, empty = halves(unsure)
    plain = cv2.cvtColor(cv2.resize(sample.image, (128, 128)), cv2.COLOR_RGB2BGR)
    assert np.abs(empty - plain).mean() < 6
    assert np.abs(truth - plain).mean() > 12
    truth, found = halves(perfect)
    assert np.abs(found - truth).mean() < np.abs(found - plain).mean() / 2  # but for the scores


def test_images_that_cannot_be_read_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ShapeScenes):
        def sample(self, index: int) -> Sample:
            if index:
                raise FileNotFoundError(f"no image {index}")
            return super().sample(index)

    path = write_validation_pictures(tmp_path, Broken(3, 64), nothing)
    assert path is not None
    assert cv2.imread(str(path)).shape[:2] == (24 + 128, 2 * 128 + 8)
    assert "no image 1" in caplog.text


def test_no_images_no_picture(tmp_path: Path) -> None:
    assert write_validation_pictures(tmp_path, ShapeScenes(0), nothing) is None
    assert not list(tmp_path.iterdir())


def test_photographs(tmp_path: Path, data_root: Path) -> None:
    dataset = open_dataset(str(data_root / "coco_small"), "val")
    assert isinstance(dataset, CocoInstances)

    def predict(image: NDArray[np.uint8]) -> Detections:
        return replace(nothing(image), class_names=dataset.categories.names)

    path = write_validation_pictures(tmp_path, dataset, predict, 4)
    assert path is not None
    assert path.stat().st_size < 400_000
