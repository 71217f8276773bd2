from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils
from support.plain import STILL, plain_target

from data.annotations.coco import CocoInstances
from data.annotations.run_lengths import compress, cover_exactly, decode, encode
from data.annotations.table import Ragged
from data.augment.placement import Placement, draw_placement, place_whole
from data.augment.rasterise import rasterise
from data.augment.transform import TrainTransform, place_target
from data.catalog import resolve_dataset
from data.images import to_tensor
from data.options import Switches
from data.sample import Sample
from layers.structures import Target

GRAY = np.full((60, 80, 3), 90, np.uint8)


def sample_of(
    *boxes: tuple[float, float, float, float], crowds: int = 0, image: np.ndarray = GRAY
) -> Sample:
    """Rectangular objects; the first ones are crowds."""
    outlines = tuple([[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes)
    return Sample(
        image=image,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(len(boxes)),
        is_crowd=np.arange(len(boxes)) < crowds,
        segmentations=outlines,
        image_id=1,
    )


def check(image: torch.Tensor, target: Target, side: int) -> None:
    assert image.shape == (3, side, side)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    count = len(target)
    assert target.boxes.shape == (count, 4)
    assert target.boxes.dtype == torch.float32
    assert target.labels.dtype == torch.int64
    assert target.masks.shape == (count, side, side)
    assert target.masks.dtype == target.is_crowd.dtype == torch.bool
    assert target.is_crowd.tolist() == sorted(target.is_crowd.tolist())
    assert ((target.boxes >= 0) & (target.boxes <= side)).all()


@pytest.mark.parametrize("seed", range(8))
def test_no_objects(seed: int) -> None:
    image, target = TrainTransform(40)(sample_of(), np.random.default_rng(seed))
    check(image, target, 40)
    assert len(target) == 0


def test_no_objects_plain() -> None:
    image, target = plain_target(sample_of(), 40)
    check(image, target, 40)
    assert len(target) == 0


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (400, 3, 3)])
def test_odd_images(shape: tuple[int, int, int]) -> None:
    sample = sample_of((0, 0, shape[1], shape[0]), image=np.zeros(shape, np.uint8))
    for seed in range(20):
        check(*TrainTransform(24, Switches(rotate=True))(sample, np.random.default_rng(seed)), 24)


@pytest.mark.parametrize("seed", range(30))
def test_every_augmentation(seed: int) -> None:
    sample = sample_of((0, 0, 30, 30), (50, 20, 79, 59), (5, 40, 25, 58), crowds=1)
    transform = TrainTransform(64, Switches(flip=True, rotate=True))
    image, target = transform(sample, np.random.default_rng(seed))
    check(image, target, 64)
    assert (~target.is_crowd).any()
    again = transform(sample, np.random.default_rng(seed))
    assert torch.equal(image, again[0])
    assert torch.equal(target.masks, again[1].masks)


@pytest.mark.parametrize("seed", range(40))
def test_image_boxes_and_masks_agree(seed: int) -> None:
    """A white rectangle on black is found where its mask and its box say it is."""
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[20:45, 10:50] = 255
    transform = TrainTransform(
        128, Switches(photometric=False, flip=True, rotate=True), fill=(0, 0, 0)
    )
    sample = sample_of((10, 20, 50, 45), image=picture)
    image, target = transform(sample, np.random.default_rng(seed))
    (mask,) = target.masks
    white = image[0] > 127
    assert (mask & white).sum() >= 0.93 * (mask | white).sum()
    rows, columns = mask.nonzero().unbind(1)
    tight = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    assert (target.boxes[0] - tight).abs().max() <= 1


def test_with_everything_off_the_whole_image_is_stretched() -> None:
    sample = sample_of((0, 0, 30, 30), (10, 10, 70, 50), crowds=1)
    image, target = plain_target(sample, 50)
    whole = place_whole((60, 80), 50)
    assert torch.equal(image, to_tensor(whole.canvas(whole.piece(sample.image), (0, 0, 0))))
    assert torch.equal(target.masks, place_target(sample, whole, np.array([1, 0])).masks)
    assert target.labels.tolist() == [1, 0]
    assert target.boxes[1].tolist() == [0, 0, 18.75, 25]


def test_small_objects_are_dropped_in_training_only() -> None:
    sample = sample_of((0, 0, 3, 30), (0, 0, 4, 4), (0, 0, 30, 3))
    quiet = TrainTransform(80, Switches(photometric=False, expand=False, crop=False))
    assert quiet(sample, np.random.default_rng(0))[1].labels.tolist() == [1, 2]
    assert plain_target(sample, 80)[1].labels.tolist() == [0, 1, 2]
    assert plain_target(sample, 80, min_object_size=4)[1].labels.tolist() == [1, 2]


def test_something_to_learn_always_remains() -> None:
    """One object of 5 px would often be shrunk away; the crowd alone must not do."""
    sample = sample_of((0, 0, 80, 60), (40, 30, 45, 35), crowds=1)
    for seed in range(60):
        _, target = TrainTransform(80, Switches(photometric=False))(
            sample, np.random.default_rng(seed)
        )
        assert 1 in target.labels.tolist()


def test_what_is_seen_of_a_crowd_is_ignored_wherever_its_centre_is() -> None:
    sample = sample_of((0, 0, 80, 60), (4, 4, 24, 24), crowds=1)
    transform = TrainTransform(80, Switches(photometric=False, expand=False))
    for seed in range(40):
        _, target = transform(sample, np.random.default_rng(seed))
        assert target.is_crowd.any()
        assert target.boxes[target.is_crowd].tolist() == [[0, 0, 80, 80]]  # all that is seen


def test_fallback_when_no_draw_succeeds() -> None:
    sample = sample_of((40, 30, 42, 32))
    transform = TrainTransform(10)
    placement, kept = transform.place(sample, np.random.default_rng(0))
    assert placement == place_whole((60, 80), 10)
    assert len(kept) == 0
    check(*transform(sample, np.random.default_rng(0)), 10)


WHOLE = place_whole((60, 80), 64)


@pytest.mark.parametrize(
    ("switched_on", "share"),
    [
        ({}, 0),
        ({"mirror": True}, 1 / 2),
        ({"flip": True}, 1 / 2),
        ({"rotate": True}, 3 / 4),
        ({"expand": True}, 1 / 2),
        ({"crop": True}, 5 / 6),
        ({"scale_jitter": (0.5, 0.5)}, 1),
    ],
)
def test_each_switch_changes_its_part(switched_on: dict[str, Any], share: float) -> None:
    sample, rng = sample_of((10, 10, 70, 50)), np.random.default_rng(0)
    transform = TrainTransform(64, replace(STILL, **switched_on))
    drawn = [transform.place(sample, rng)[0] for _ in range(300)]
    changed = {
        "mirror": [placement.mirror for placement in drawn],
        "flip": [placement.flip for placement in drawn],
        "rotate": [placement.quarter_turns > 0 for placement in drawn],
        "expand": [placement.window != WHOLE.window for placement in drawn],
        "crop": [placement.source != WHOLE.source for placement in drawn],
    }
    changed["scale_jitter"] = changed["expand"]
    name = next(iter(switched_on), "crop")
    assert np.mean(changed[name]) == pytest.approx(share, abs=0.1)
    others = [values for values in changed.values() if values != changed[name]]
    assert not np.any(others)
    assert {placement.quarter_turns for placement in drawn} <= ({0, 1, 2, 3} if "rotate" else {0})


def test_turns_are_of_every_angle() -> None:
    transform, rng = TrainTransform(64, replace(STILL, rotate=True)), np.random.default_rng(0)
    turns = [transform.place(sample_of(), rng)[0].quarter_turns for _ in range(60)]
    assert set(turns) == {0, 1, 2, 3}


def test_objects_are_kept_by_their_centre_and_size() -> None:
    sample = sample_of((0, 0, 30, 30), (50, 20, 79, 59), (5, 40, 25, 58), (30, 5, 40, 12))
    transform, dropped = TrainTransform(64, Switches(photometric=False)), 0
    for seed in range(60):
        placement, kept = transform.place(sample, np.random.default_rng(seed))
        left, top, right, bottom = placement.source
        for index, (x1, y1, x2, y2) in enumerate(sample.boxes.tolist()):
            seen = left < (x1 + x2) / 2 < right and top < (y1 + y2) / 2 < bottom
            moved = placement.boxes(sample.boxes[[index]])[0]
            large = min(moved[2:] - moved[:2]) >= 4
            assert (index in kept) == (seen and large)
            dropped += large and not seen
    assert dropped > 10


def test_boxes_are_cut_at_the_edge_of_what_is_seen() -> None:
    placement = Placement((20, 10, 60, 50), (0, 0, 80, 80), 100)
    boxes = np.array([[0, 0, 40, 30], [30, 20, 90, 90], [0, 0, 5, 5]], np.float32)
    expected = [[0, 0, 40, 40], [20, 20, 80, 80], [0, 0, 0, 0]]
    assert placement.boxes(boxes).tolist() == expected


def test_colours_vary_and_the_fill_does_not() -> None:
    transform = TrainTransform(64, Switches(crop=False, mirror=False), fill=(1, 2, 3))
    sample, varied, filled = sample_of((0, 0, 80, 60)), 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        placement, _ = transform.place(sample, rng)
        image = transform.render(sample, placement, rng)
        x1, y1, x2, y2 = placement.window
        varied += (image[y1:y2, x1:x2] != 90).any()
        outside = np.ones((64, 64), bool)
        outside[y1:y2, x1:x2] = False
        assert (image[outside] == (1, 2, 3)).all()
        filled += outside.any()
    assert varied > 20 and filled > 10


def test_crops_keep_a_centre_and_their_proportions() -> None:
    boxes = np.array([[390, 290, 410, 310]], np.float32)
    rng = np.random.default_rng(0)
    drawn = [
        draw_placement(boxes, (600, 800), 100, Switches(expand=False), rng) for _ in range(300)
    ]
    whole = sum(placement.source == (0, 0, 800, 600) for placement in drawn)
    assert 30 <= whole <= 75  # a sixth
    for placement in drawn:
        x1, y1, x2, y2 = placement.source
        assert placement.holds_centres(boxes).all()
        assert 0.49 <= (y2 - y1) / (x2 - x1) <= 2.02
        assert x2 - x1 >= 240
        assert placement.window == (0, 0, 100, 100)
    assert min(placement.source[2] - placement.source[0] for placement in drawn) < 0.35 * 800
    shapes = [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (placement.source for placement in drawn)]
    assert any(width > 1.3 * height for width, height in shapes)
    assert any(height > 1.3 * width for width, height in shapes)


def test_expanding_shows_the_whole_image_on_the_fill_colour() -> None:
    rng = np.random.default_rng(1)
    boxes, windows = np.zeros((0, 4), np.float32), []
    for _ in range(50):
        placement = draw_placement(boxes, (60, 80), 100, Switches(crop=False, mirror=False), rng)
        x1, y1, x2, y2 = placement.window
        assert placement.source == (0, 0, 80, 60)
        assert min(x2 - x1, y2 - y1) >= 24
        canvas = placement.canvas(placement.piece(GRAY), (1, 2, 3))
        assert (canvas[y1:y2, x1:x2] == 90).all()
        assert (canvas == (1, 2, 3)).all(axis=2).sum() == 100 * 100 - (x2 - x1) * (y2 - y1)
        windows.append(placement.window)
    assert min(x2 - x1 for x1, _, x2, _ in windows) < 35  # shrunk by up to four
    assert max(x1 for x1, *_ in windows) > 30  # not always in the same corner
    assert max(y1 for _, y1, *_ in windows) > 30


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_points_and_pixels_turn_alike(mirror: bool, flip: bool, turns: int) -> None:
    placement = Placement((0, 0, 8, 8), (0, 0, 8, 8), 8, mirror, flip, turns)
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[2, 5] = 255
    row, column = np.argwhere(placement.canvas(picture, (0, 0, 0))[..., 0])[0]
    assert placement.points(np.array([5.5, 2.5])).tolist() == [column + 0.5, row + 0.5]
    blank = np.zeros((8, 8), np.bool_)
    placement.unoriented(blank)[2, 5] = True
    assert blank[row, column]
    assert blank.sum() == 1


@pytest.mark.parametrize(
    "polygons",
    [
        [[1.5, 1.5, 30.2, 4.1, 22.3, 28.7, 3.3, 17.9]],
        [[0, 0, 10, 0, 10, 10, 0, 10], [20.25, 20.25, 39.9, 20.5, 30.1, 39.7]],
        [[-20, -20, 60, -20, 60, 60, -20, 60]],  # beyond all edges
        [[5, 5, 35, 35, 35, 5, 5, 35]],  # crosses itself
    ],
)
def test_unscaled_polygons_equal_pycocotools(polygons: list[list[float]]) -> None:
    out = np.zeros((40, 40), np.bool_)
    rasterise(polygons, (40, 40), place_whole((40, 40), 40), out)
    expected = mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(polygons, 40, 40)))
    assert (out == expected).all()


def outlines_of(bitmap: np.ndarray) -> list[Any]:
    return [bitmap.astype(bool), encode(bitmap)]


@pytest.mark.parametrize("form", range(2))
@pytest.mark.parametrize("seed", range(6))
def test_bitmaps_are_cut_and_resized(form: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bitmap = cv2.resize(rng.integers(0, 2, (6, 8), np.uint8), (80, 60), interpolation=0)
    placement = draw_placement(np.zeros((0, 4), np.float32), (60, 80), 50, Switches(flip=True), rng)
    out = np.zeros((50, 50), np.bool_)
    rasterise(outlines_of(bitmap)[form], (60, 80), placement, out)
    picture = np.repeat(bitmap[..., None], 3, axis=2) * np.uint8(255)
    expected = placement.canvas(placement.piece(picture), (0, 0, 0))[..., 0] > 127
    assert (out == expected).all()


@pytest.mark.parametrize("counts", [[], [0], [0, 1], [7, 3, 1, 9, 400, 3, 70_000, 1]])
def test_counts_round_trip(counts: list[int]) -> None:
    total = sum(counts)
    found = decode(compress(counts, (total, 1)), (total, 1))
    assert found[:, 0].tolist() == np.repeat(np.arange(len(counts)) % 2, counts).tolist()


@pytest.mark.parametrize("text", ["o", "\x00", "oooooooo0", "é", "0o"])
def test_malformed_counts(text: str) -> None:
    texts = Ragged.of_texts([text] * 128)
    assert not cover_exactly(texts, np.arange(-64, 64)).any()


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def test_polygons_are_closer_to_the_outline_than_a_resized_bitmap(data_root: Path) -> None:
    paths = resolve_dataset(str(data_root / "coco_small"))
    assert paths.val is not None
    dataset = CocoInstances(paths.val.images, paths.val.annotations)
    direct, resized = [], []
    for index in range(0, 145, 72):
        sample = dataset.sample(index)
        height, width = sample.image.shape[:2]
        placement = place_whole((height, width), 550)
        target = place_target(sample, placement, np.arange(len(sample.labels)))
        for outline, mask in zip(sample.segmentations, target.masks.numpy(), strict=True):
            if not isinstance(outline, list):
                continue
            fine = [(np.reshape(p, (-1, 2)) * (2200 / width, 2200 / height)) for p in outline]
            drawn = decode([p.ravel().tolist() for p in fine], (2200, 2200))
            truth = drawn.reshape(550, 4, 550, 4).mean((1, 3)) > 0.5
            bitmap = decode(outline, (height, width))
            if truth.sum() >= 256:
                direct.append(overlap(mask, truth))
                smooth = cv2.resize(bitmap.astype(np.float32), (550, 550)) > 0.5
                resized.append(overlap(smooth, truth))
    assert np.mean(direct) > 0.98
    assert np.mean(direct) > np.mean(resized)


def test_to_tensor() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    tensor = to_tensor(image)
    assert tensor.is_contiguous()
    assert (tensor.permute(1, 2, 0).numpy() == image).all()


@pytest.mark.parametrize(
    ("scale", "seen", "covered"),
    [
        (1.0, (60, 40), (32, 32)),
        (2.0, (30, 20), (32, 32)),  # a quarter of the image is seen
        (0.5, (60, 40), (16, 16)),  # all of it, on a quarter of the canvas
        (0.01, (60, 40), (0, 0)),
    ],
)
def test_scale_jitter(scale: float, seen: tuple[int, int], covered: tuple[int, int]) -> None:
    corners = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        boxes = np.zeros((0, 4), np.float32)
        placed = draw_placement(
            boxes, (40, 60), 32, Switches(scale_jitter=(scale, scale), mirror=False), rng
        )
        x1, y1, x2, y2 = placed.source
        left, top, right, bottom = placed.window
        assert (x2 - x1, y2 - y1) == seen
        assert 0 <= x1 <= x2 <= 60 and 0 <= y1 <= y2 <= 40
        assert 0 <= left <= right <= 32 and 0 <= top <= bottom <= 32
        assert abs(right - left - covered[0]) <= 1 and abs(bottom - top - covered[1]) <= 1
        corners.add((x1, y1, left, top))
    assert len(corners) == 1 if scale == 1 else len(corners) > 5


def test_scale_jitter_is_as_often_small_as_large() -> None:
    boxes, large = np.zeros((0, 4), np.float32), 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        placed = draw_placement(
            boxes, (64, 64), 64, Switches(scale_jitter=(0.5, 2.0), mirror=False), rng
        )
        large += placed.source != (0, 0, 64, 64)
    assert 160 < large < 240
