"""The pixels of masks, by the compiled kernels and without them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as mask_utils
from torch import Tensor

from data.annotations.run_lengths import encode
from layers import mask_pixels, paste
from layers.masks import box_windows
from layers.native import Window, load_kernels
from layers.paste import bitmap, has_pixels, mask_window, paste_masks, tint
from yolact.results.detections import Detections

NAN, INF = math.nan, math.inf

pytestmark = pytest.mark.usefixtures("path")


def soft_masks(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Blobs that are above 0.5 in some places; the first is empty, the second full."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, height, width, generator=rng)
    masks[2::2] *= box_windows(torch.rand(len(masks[2::2]), 4, generator=rng), (height, width))
    masks[:1] = 0.5
    masks[1:2] = 0.9
    return masks


def frames(count: int, *frame: float) -> Tensor:
    return torch.tensor(frame).expand(count, 4)


def assert_like_interpolation(pasted: Tensor, soft: Tensor, image_hw: tuple[int, int]) -> None:
    """Equal to resizing the whole mask, but where that gives 0.5 up to rounding."""
    resized = F.interpolate(soft[None], image_hw, mode="bilinear", align_corners=False)[0]
    different = pasted != (resized > 0.5)
    assert (resized[different] - 0.5).abs().sum() < 1e-5


@pytest.mark.parametrize("grid_hw", [(1, 1), (2, 3), (16, 16), (17, 5), (69, 69)])
@pytest.mark.parametrize(
    "image_hw", [(1, 1), (1, 40), (37, 2), (7, 9), (16, 16), (64, 48), (101, 163), (138, 138)]
)
def test_paste_equals_resizing_the_whole_mask(
    grid_hw: tuple[int, int], image_hw: tuple[int, int]
) -> None:
    soft = soft_masks(8, *grid_hw, seed=image_hw[0])
    pasted = paste_masks(soft, frames(8, 0, 0, image_hw[1], image_hw[0]), image_hw)
    assert pasted.shape == (8, *image_hw)
    assert pasted.dtype == torch.bool
    assert not pasted[0].any()
    assert pasted[1].all()
    assert_like_interpolation(pasted, soft, image_hw)


@pytest.mark.parametrize("single", [(0, 0), (0, 15), (7, 8), (15, 0), (15, 15)])
@pytest.mark.parametrize("image_hw", [(5, 6), (50, 61)])
def test_paste_of_one_bright_cell(single: tuple[int, int], image_hw: tuple[int, int]) -> None:
    soft = torch.zeros(1, 16, 16)
    soft[0][single] = 1.0
    pasted = paste_masks(soft, frames(1, 0, 0, image_hw[1], image_hw[0]), image_hw)
    assert_like_interpolation(pasted, soft, image_hw)


def test_paste_nothing() -> None:
    assert paste_masks(torch.zeros(0, 4, 4), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)


def test_paste_of_masks_that_are_trained() -> None:
    soft, whole = soft_masks(4, 5, 6), frames(4, 0, 0, 20, 10)
    expected = paste_masks(soft, whole, (10, 20))
    assert (paste_masks(soft.requires_grad_(), whole, (10, 20)) == expected).all()


@pytest.mark.parametrize("frame", [(2, 3, 12, 9), (0, 0, 5, 20), (19, 19, 20, 20), (0, 0, 20, 20)])
def test_frames_inside_the_image(frame: tuple[int, int, int, int]) -> None:
    x1, y1, x2, y2 = frame
    soft = soft_masks(6, 7, 5)
    pasted = paste_masks(soft, frames(6, *map(float, frame)), (20, 20))
    assert_like_interpolation(pasted[:, y1:y2, x1:x2], soft, (y2 - y1, x2 - x1))
    pasted[:, y1:y2, x1:x2] = False
    assert not pasted.any()


@pytest.mark.parametrize(
    "frame", [(-5, -4, 9, 8), (10, 12, 40, 30), (-10, -10, 30, 30), (-9, 3, -2, 8), (25, 3, 30, 8)]
)
def test_frames_beyond_the_image(frame: tuple[int, int, int, int]) -> None:
    # Equal to a part of the same masks pasted into an image that holds every frame.
    soft = soft_masks(6, 7, 5)
    shifted = torch.tensor(frame, dtype=torch.float32) + 50
    large = paste_masks(soft, shifted.expand(6, 4), (120, 120))
    pasted = paste_masks(soft, frames(6, *map(float, frame)), (20, 20))
    assert (pasted == large[:, 50:70, 50:70]).all()


@pytest.mark.parametrize(
    "frame",
    [(2.0, 0.0, 2.0, 4.0), (2.5, 0.0, 2.5, 4.0), (0.5, 1.5, 3.5, 1.5), (3.0, 0.0, 1.0, 4.0)],
)
def test_frames_without_area_hold_nothing(frame: tuple[float, ...]) -> None:
    assert not paste_masks(torch.ones(1, 4, 4), frames(1, *frame), (4, 4)).any()


@pytest.mark.parametrize(
    ("left", "row"), [(2.5, [False, False, False, True, True]), (NAN, [False] * 5)]
)
def test_a_frame_without_width_has_its_left_cells_on_the_left(left: float, row: list[bool]) -> None:
    # Never asked for by `mask_window`, but a window can be given by hand.
    soft, frame = torch.tensor([[0.0, 1.0]]), torch.tensor([left, 0.0, left, 1.0])
    assert bitmap(soft, frame, (0, 0, 5, 1)).tolist() == [row]


def test_each_mask_has_its_own_frame() -> None:
    soft = torch.ones(2, 3, 3)
    pasted = paste_masks(soft, torch.tensor([[0.0, 0, 2, 2], [3.0, 1, 6, 4]]), (4, 6))
    assert pasted.sum(dim=(1, 2)).tolist() == [4, 9]
    assert pasted[0, :2, :2].all()
    assert pasted[1, 1:4, 3:6].all()


@pytest.mark.parametrize("image_hw", [(1, 1), (20, 30), (100, 50)])
def test_windows_hold_the_mask_and_little_more(image_hw: tuple[int, int]) -> None:
    height, width = image_hw
    soft = soft_masks(12, 16, 16)
    whole = frames(12, 0, 0, width, height)
    pasted = paste_masks(soft, whole, image_hw)
    for mask, one, frame in zip(pasted, soft, whole, strict=True):
        x1, y1, x2, y2 = mask_window(one, frame, image_hw)
        assert 0 <= x1 <= x2 <= width
        assert 0 <= y1 <= y2 <= height
        assert mask[y1:y2, x1:x2].sum() == mask.sum()
    assert mask_window(soft[0], whole[0], image_hw) == (0, 0, 0, 0)
    corner = torch.zeros(16, 16)
    corner[0, 0] = 1
    x1, y1, x2, y2 = mask_window(corner, whole[0], image_hw)
    assert (x1, y1) == (0, 0)
    assert x2 <= 1.5 * width / 16 + 1
    assert y2 <= 1.5 * height / 16 + 1


def of_image(
    soft: Tensor, frame: tuple[float, ...], hw: tuple[int, int], crop_to_boxes: bool = False
) -> Detections:
    """Detections with these masks in one frame, and boxes over the middle of the image."""
    count, zeros = len(soft), torch.zeros(len(soft))
    middle = frames(count, hw[1] * 0.26, hw[0] * 0.26, hw[1] * 0.7, hw[0] * 0.7)
    return Detections(
        boxes=middle,
        scores=zeros,
        labels=zeros.long(),
        soft_masks=soft,
        mask_frames=frames(count, *frame),
        box_scores=zeros,
        image_hw=hw,
        crop_to_boxes=crop_to_boxes,
    )


@pytest.mark.parametrize("frame", [(0.0, 0.0, 40.0, 30.0), (3.5, 2.0, 30.0, 22.5)])
@pytest.mark.parametrize("crop_to_boxes", [False, True])
def test_crops_equal_the_full_masks(frame: tuple[float, ...], crop_to_boxes: bool) -> None:
    found = of_image(soft_masks(8, 9, 11), frame, (30, 40), crop_to_boxes)
    full = found.masks
    for i in range(8):
        (x1, y1, x2, y2), crop = found.crop(i)
        assert crop.shape == (y2 - y1, x2 - x1)
        rebuilt = torch.zeros(30, 40, dtype=torch.bool)
        rebuilt[y1:y2, x1:x2] = crop
        assert (rebuilt == full[i]).all()
        assert found[i].crop(0)[0] == found.window(i) == (x1, y1, x2, y2)
    assert found.crop(0)[0] == (0, 0, 0, 0)
    assert full[1].any()


def test_crop_counts_from_the_end_as_indexing_does() -> None:
    found = of_image(soft_masks(3, 4, 4), (0, 0, 8, 8), (8, 8))
    assert found.crop(-2)[0] == found.crop(1)[0] == (0, 0, 8, 8)
    with pytest.raises(IndexError):
        found.crop(3)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((2.4, 3.6, 10.5, 9.5), (2, 4, 10, 10)),  # halves go to the even number
        ((-INF, -1e30, INF, 1e30), (0, 0, 20, 20)),
        ((5.0, 5.0, 5.4, 9.0), (0, 0, 0, 0)),
        ((9.0, 9.0, 5.0, 5.0), (0, 0, 0, 0)),
        ((30.0, 5.0, 40.0, 9.0), (0, 0, 0, 0)),
        ((NAN, 5.0, 8.0, 9.0), (0, 0, 0, 0)),
    ],
)
def test_bounds(bounds: tuple[float, ...], expected: tuple[int, ...]) -> None:
    soft, frame = torch.ones(3, 3), torch.tensor([0.0, 0.0, 20.0, 20.0])
    assert mask_window(soft, frame, (20, 20), torch.tensor(bounds)) == expected
    pasted = paste_masks(soft[None], frame[None], (20, 20), torch.tensor([bounds]))[0]
    x1, y1, x2, y2 = expected
    assert pasted[y1:y2, x1:x2].all()
    assert pasted.sum() == (x2 - x1) * (y2 - y1)


def random_case(rng: np.random.Generator) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """A soft mask of noise, of zeros and ones, or of blobs; a frame and an image of any size."""
    h, w, height, width = (int(n) for n in rng.integers(1, 50, 4))
    soft = torch.from_numpy(rng.random((h, w), dtype=np.float32))
    kind = rng.integers(3)
    if kind == 1:
        soft = soft.round()
    elif kind == 2:
        soft = F.avg_pool2d(soft[None], 3, 1, 1)[0]
    low, size = rng.uniform(-20, 40, 2), rng.uniform(0.01, 60, 2)
    inside = torch.tensor([*low, *(low + size)], dtype=torch.float32)
    return (
        soft,
        inside if rng.integers(2) else torch.tensor([0.0, 0.0, width, height]),
        (
            height,
            width,
        ),
    )


@pytest.mark.parametrize("band", [1, 100, mask_pixels._BAND])
def test_kernels_equal_numpy(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly, for both round each step in the same way; in bands of any size."""
    rng = np.random.default_rng(0)
    for number in range(200):
        soft, frame, (height, width) = random_case(rng)
        with monkeypatch.context() as patch:
            patch.setattr(mask_pixels, "_BAND", band)
            window = mask_pixels.mask_window(soft.numpy(), frame.tolist(), height, width)
            whole = np.empty((height, width), np.uint8)
            mask_pixels.sample_mask(soft.numpy(), frame.tolist(), (0, 0, width, height), whole)
        assert mask_window(soft, frame, (height, width)) == window, number
        x1, x2 = sorted(rng.integers(0, width + 1, 2).tolist())
        y1, y2 = sorted(rng.integers(0, height + 1, 2).tolist())
        for left, top, right, bottom in (window, (0, 0, width, height), (x1, y1, x2, y2)):
            part = bitmap(soft, frame, (left, top, right, bottom)).numpy()
            assert (part == whole[top:bottom, left:right]).all(), number


def encoded(mask: np.ndarray) -> str:
    counts: bytes = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts.decode("ascii")


@pytest.mark.parametrize("image_hw", [(1, 1), (30, 40), (70, 11)])
@pytest.mark.parametrize("crop_to_boxes", [False, True])
def test_run_lengths_of_detections(image_hw: tuple[int, int], crop_to_boxes: bool) -> None:
    frame = (0.0, 0.0, float(image_hw[1]), float(image_hw[0]))
    found = of_image(soft_masks(10, 16, 12), frame, image_hw, crop_to_boxes)
    full = found.masks.numpy()
    assert [found.run_lengths(i) for i in range(10)] == [encoded(mask) for mask in full]


@pytest.mark.parametrize("alpha", [0.0, 0.45, 1.0])
@pytest.mark.parametrize("strided", [False, True])
def test_tint(alpha: float, strided: bool) -> None:
    rng = np.random.default_rng(1)
    for number in range(20):
        soft, frame, (height, width) = random_case(rng)
        image = rng.integers(0, 256, (height, width * 2, 3), dtype=np.uint8)
        image = image[:, ::-2] if strided else image[:, :width].copy()
        window, color = mask_window(soft, frame, (height, width)), (200, 3, 77)
        mask = paste_masks(soft[None], frame[None], (height, width))[0].numpy()
        expected = np.where(mask[..., None], image * (1 - alpha) + np.array(color) * alpha, image)
        tint(image, soft, frame, window, color, alpha)
        assert (image == expected.round()).all(), number


BAD_WINDOWS = [(-1, 0, 4, 4), (0, -1, 4, 4), (0, 0, 9, 4), (0, 0, 4, 9), (3, 0, 2, 4), (0, 3, 4, 2)]


@pytest.mark.parametrize("window", [*BAD_WINDOWS, (0, 0, 2**40, 1), (-(2**62), 0, 2**62, 1)])
def test_windows_outside_the_image_are_refused(window: tuple[int, int, int, int]) -> None:
    soft, frame, canvas = torch.ones(3, 3), torch.tensor([0.0, 0, 8, 8]), np.zeros((8, 8, 3), "B")
    with pytest.raises(ValueError, match="window"):
        tint(canvas, soft, frame, window, (9, 9, 9), 1.0)
    assert not canvas.any()


def test_the_kernels_check_sizes() -> None:
    kernels = load_kernels()
    if kernels is None:
        pytest.skip("layers.kernels is not compiled here")
    soft, frame, plane = np.ones((3, 3), "f"), (0.0, 0.0, 8.0, 8.0), np.zeros((8, 8), "B")
    table, canvas = np.zeros((256, 3), "B"), np.zeros((8, 8, 3), "B")
    for window in (*BAD_WINDOWS[2:], (0, 0, 8, 7), (0, 0, 7, 8), (2**62, 0, -(2**62), 8)):
        with pytest.raises(ValueError, match="window"):
            kernels.sample_mask(soft, frame, window, plane)
    whole = (0, 0, 8, 8)
    with pytest.raises(ValueError, match="gaps"):
        kernels.sample_mask(soft, frame, whole, plane.repeat(2, axis=1)[:, ::2])
    with pytest.raises(ValueError, match="without cells"):
        kernels.sample_mask(soft[:0], frame, whole, plane)
    for wrong in (canvas[:, :, :2], np.zeros((8, 8, 4), "B")):
        with pytest.raises(ValueError, match="channels"):
            kernels.blend_mask(soft, frame, whole, wrong, table)
    with pytest.raises(ValueError, match="channels"):
        kernels.blend_mask(soft, frame, whole, canvas, table[:255])
    for x1, y1, height, width in ((1, 0, 8, 8), (0, 1, 8, 8), (-1, 0, 9, 9), (0, 0, 2**40, 8)):
        with pytest.raises(ValueError, match=r"8 x 8 pixels at"):
            kernels.encode_mask(plane, x1, y1, height, width)
    with pytest.raises(ValueError, match="gaps"):
        kernels.encode_mask(plane[:, ::2], 0, 0, 8, 8)


@pytest.mark.filterwarnings("error")
def test_any_numbers_are_survived() -> None:
    rng = np.random.default_rng(2)
    strange = np.array([NAN, INF, -INF, 0, -0.0, 1e-45, 3e38, -3e38, 5, 0.5], np.float32)
    for number in range(300):
        h, w, height, width = (int(n) for n in rng.integers(0 if number % 9 == 0 else 1, 9, 4))
        soft = torch.from_numpy(rng.choice(strange, (h, w)))
        frame = torch.from_numpy(rng.choice(strange, 4))
        bounds = torch.from_numpy(rng.choice(strange, 4)) if number % 2 else None
        x1, y1, x2, y2 = window = mask_window(soft, frame, (height, width), bounds)
        assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height, (frame, window)
        canvas = np.zeros((height, width, 3), np.uint8)
        tint(canvas, soft, frame, window, (1, 2, 3), 1.0)
        inside = bitmap(soft, frame, window)
        assert ((canvas[y1:y2, x1:x2, 0] == 1) == inside.numpy()).all()
        run_lengths = encode(inside.numpy(), (height, width), (x1, y1))
        area = mask_utils.area(run_lengths)
        assert area == inside.sum() == canvas[:, :, 0].sum()


@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("image_hw", [(1, 1), (3, 90), (40, 30), (150, 200)])
@pytest.mark.parametrize("cropped", [False, True])
def test_emptiness_is_told_exactly(count: int, image_hw: tuple[int, int], cropped: bool) -> None:
    """Of masks with a single cell above a half, between pixels or outside, as of large ones."""
    rng = torch.Generator().manual_seed(count + image_hw[0])
    height, width = image_hw
    soft = 0.6 * torch.rand(count, 9, 8, generator=rng) ** 8
    soft[::3] = soft_masks(len(soft[::3]), 9, 8)
    corners = torch.rand(count, 2, 2, generator=rng) * torch.tensor((width, height))
    boxes = torch.cat((corners.amin(dim=1), corners.amax(dim=1)), dim=1)
    frame = torch.tensor((-0.3 * width, 0.0, 1.1 * width, 0.9 * height)).expand(count, 4)
    found = Detections(
        boxes=boxes,
        scores=torch.ones(count),
        labels=torch.zeros(count).long(),
        soft_masks=soft,
        mask_frames=frame,
        box_scores=torch.ones(count),
        image_hw=image_hw,
        crop_to_boxes=cropped,
    )
    filled = found.masks.any(dim=(1, 2))
    assert found.has_pixels().tolist() == filled.tolist()
    if count == 40:
        assert 0 < filled.sum() < count


def test_most_masks_are_told_by_a_few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    areas = []

    def counted(soft: Tensor, frame: Tensor, window: Window) -> Tensor:
        areas.append((window[2] - window[0]) * (window[3] - window[1]))
        return bitmap(soft, frame, window)

    monkeypatch.setattr(paste, "bitmap", counted)
    assert has_pixels(torch.full((20, 20), 0.9), torch.tensor([0.0, 0, 3000, 2000]), (2000, 3000))
    assert len(areas) == 1
    assert areas[0] <= 9
