"""Optical flow, and objects carried along it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from yolact.results.detections import Detections
from yolact.video.flow import Flow, FlowEstimator, carry, shrink

HW = (180, 320)
flow_between = FlowEstimator()


def texture(hw: tuple[int, int] = HW, seed: int = 0) -> np.ndarray:
    """Noise of all scales, as pictures have it."""
    rng, texture = np.random.default_rng(seed), np.zeros((*hw, 3), np.float32)
    for level in range(1, 6):
        size = -(-hw[1] >> level) or 1, -(-hw[0] >> level) or 1
        noise = rng.random((*size[::-1], 3), dtype=np.float32) * 2**level
        texture += cv2.resize(noise, hw[::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)


STILL = shrink(texture())


def warped(image: np.ndarray, shift: tuple[float, float], scale: float = 1) -> np.ndarray:
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


def objects(
    boxes: list[tuple[float, float, float, float]],
    hw: tuple[int, int] = HW,
    framed: bool = False,
    grid_hw: tuple[int, int] = (90, 160),
) -> Detections:
    """Filled boxes: as YOLACT keeps them, on one grid for the image, or each mask in its box."""
    count, corners = len(boxes), torch.tensor(boxes).reshape(-1, 4).float()
    masks = torch.zeros(count, *grid_hw)
    frames = torch.tensor([0.0, 0, hw[1], hw[0]]).repeat(count, 1)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        y, x = grid_hw[0] / hw[0], grid_hw[1] / hw[1]
        mask[round(y1 * y) : round(y2 * y), round(x1 * x) : round(x2 * x)] = 1
    if framed:
        masks, frames = torch.ones(count, 28, 28), corners.clone()
    return Detections(
        boxes=corners,
        scores=torch.linspace(0.9, 0.5, count),
        labels=torch.arange(count),
        soft_masks=masks,
        mask_frames=frames,
        box_scores=torch.ones(count),
        image_hw=hw,
        class_names=("a", "b"),
    )


def iou(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize(
    "boxes", [[], [(60, 40, 120, 100)], [(60, 40, 120, 100), (200, 60, 290, 150)]]
)
@pytest.mark.parametrize(
    ("shift", "scale"), [((0, 0), 1), ((7, -4), 1), ((-20, 10), 1), ((-10, -5), 1.08)]
)
def test_objects_follow(
    boxes: list[tuple[float, float, float, float]],
    shift: tuple[float, float],
    scale: float,
    framed: bool,
) -> None:
    image, found = texture(), objects(boxes, framed=framed)
    moved = warped(image, shift, scale)
    carried = carry(found, flow_between(shrink(moved), shrink(image)))
    expected = objects(boxes).boxes * scale + torch.tensor([*shift, *shift])
    assert type(carried) is Detections
    assert torch.equal(carried.scores, found.scores)
    assert torch.allclose(carried.boxes, expected, atol=1.5)
    for box, mask in zip(expected.tolist(), carried.masks, strict=True):
        assert iou(mask, objects([tuple(box)], framed=True).masks[0]) > 0.93


def with_square(x: int) -> np.ndarray:
    """A still background, and on it a square of 100 pixels whose left side is at x."""
    frame = texture()
    frame[40:140, x : x + 100] = texture(seed=1)[:100, :100]
    return frame


def test_nothing_else_moves() -> None:
    found = objects([(60, 40, 160, 140), (220, 60, 290, 150)])
    carried = carry(found, flow_between(shrink(with_square(70)), shrink(with_square(60))))
    shifts = (carried.boxes - found.boxes)[:, 0]
    assert shifts.tolist() == pytest.approx([10, 0], abs=1)


def test_an_object_bends() -> None:
    shear = np.array([[1, 0.25, -0.25 * 90], [0, 1, 0]], np.float32)
    image, found = texture(), objects([(110, 40, 210, 140)])
    sheared = cv2.warpAffine(image, shear, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    truth = cv2.warpAffine(found.masks[0].numpy().astype(np.uint8), shear, image.shape[1::-1])
    carried = carry(found, flow_between(shrink(sheared), shrink(image)))
    assert iou(carried.masks[0], torch.from_numpy(truth > 0)) > 0.93


def test_what_else_is_in_the_box_does_not_count() -> None:
    found = objects([(20, 0, 300, 180)], framed=True)
    found.soft_masks[:] = 0
    found.soft_masks[0, 6:22, 4:14] = 1  # the square from 60 to 160, of a box from 20 to 300
    carried = carry(found, flow_between(shrink(with_square(70)), shrink(with_square(60))))
    assert carried.boxes[0].tolist() == pytest.approx([30, 0, 310, 180], abs=4)


@pytest.mark.parametrize("framed", [False, True])
def test_an_object_leaves(framed: bool) -> None:
    found = objects([(4, 40, 24, 100), (200, 60, 290, 150)], framed=framed)
    offsets = np.full((*HW, 2), (60, 0), np.float32)
    carried = carry(found, Flow(offsets, STILL, STILL))
    assert len(carried) == 2
    assert carried.boxes[0, 0] == carried.boxes[0, 2] == 0
    assert carried.masks[0].sum() == 0 or not framed
    assert carried.boxes[1].tolist() == pytest.approx([140, 60, 230, 150], abs=0.1)


@pytest.mark.parametrize("hw", [(1, 1), (16, 16), (16, 2000), (720, 1280), (1280, 720), (37, 53)])
def test_every_size(hw: tuple[int, int]) -> None:
    image = texture(hw)
    small = shrink(image)
    assert small.image_hw == hw
    assert min(small.grey.shape) >= 16
    assert max(small.grey.shape) <= max(320, 16)
    found = objects([(0, 0, hw[1] / 2, hw[0] / 2)], hw)
    carried = carry(found, flow_between(small, small))
    assert torch.allclose(carried.boxes, found.boxes, atol=1.0)
    assert iou(carried.masks[0], found.masks[0]) > 0.98 or hw == (1, 1)


def test_frames_of_two_sizes_have_no_flow() -> None:
    with pytest.raises(ValueError, match=r"\(16, 16\) and \(180, 320\)"):
        flow_between(shrink(texture((16, 16))), shrink(texture()))


def test_flows_chain() -> None:
    image = texture()
    frames = [shrink(warped(image, (5 * i, 3 * i))) for i in range(4)]
    chained = flow_between(frames[1], frames[0])
    for earlier, later in zip(frames[1:], frames[2:], strict=False):
        chained = flow_between(later, earlier).after(chained)
    middle = chained.offsets[40:140, 60:260].reshape(-1, 2)
    assert np.median(middle, axis=0) == pytest.approx([-15, -9], abs=0.3)
    assert np.median(chained.error()) < 6


def test_boxes_without_masks_follow() -> None:
    found = objects([(60, 40, 160, 140)])
    found.soft_masks[:] = 0
    carried = carry(found, flow_between(shrink(with_square(70)), shrink(with_square(60))))
    assert carried.boxes[0].tolist() == pytest.approx([70, 40, 170, 140], abs=2)


def test_other_tensors_stay() -> None:
    found = replace(objects([(60, 40, 120, 100)]), source="clip.mp4#3")
    carried = carry(found, Flow(np.zeros((*HW, 2), np.float32), STILL, STILL))
    assert torch.equal(carried.masks, found.masks)
    assert (carried.source, carried.labels.tolist()) == ("clip.mp4#3", [0])
