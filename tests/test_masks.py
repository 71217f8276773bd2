import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from layers.masks import assemble_masks, box_windows, mask_windows, paste_masks, sample_window
from layers.structures import Detections

WHOLE = (0.0, 0.0, 1.0, 1.0)


def soft_masks(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Blobs that are above 0.5 in some places; the first is empty, the second full."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, height, width, generator=rng)
    masks[2::2] *= box_windows(torch.rand(len(masks[2::2]), 4, generator=rng), (height, width))
    masks[:1] = 0.4
    masks[1:2] = 0.9
    return masks


def frames(count: int, *frame: float) -> Tensor:
    return torch.tensor(frame).expand(count, 4)


def test_assemble_nothing() -> None:
    masks = assemble_masks(torch.rand(3, 4, 5), torch.zeros(0, 3), torch.zeros(0, 4))
    assert masks.shape == (0, 4, 5)


def test_assemble_by_hand() -> None:
    prototypes = torch.zeros(2, 4, 4)
    prototypes[0, :2] = 2.0
    prototypes[1, :, 3] = 3.0
    coefficients = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    masks = assemble_masks(prototypes, coefficients, torch.tensor([WHOLE, (0.75, 0.5, 1.0, 0.75)]))
    top, bottom = [2.0, 2.0, 2.0, -1.0], [0.0, 0.0, 0.0, -3.0]
    torch.testing.assert_close(masks[0], torch.tensor([top, top, bottom, bottom]).sigmoid())
    # The second box is the cell (3, 2); a margin of one cell leaves columns 2-3 and rows 1-3.
    half, high = 0.5, torch.tensor(3.0).sigmoid().item()
    inside = [0.0, 0.0, half, high]
    torch.testing.assert_close(masks[1], torch.tensor([[0.0] * 4, inside, inside, inside]))


@pytest.mark.parametrize(
    ("box", "padding", "columns", "rows"),
    [
        (WHOLE, 1, (0, 8), (0, 4)),
        ((0.25, 0.25, 0.5, 0.5), 0, (2, 4), (1, 2)),
        ((0.25, 0.25, 0.5, 0.5), 1, (1, 5), (0, 3)),
        ((0.5, 0.5, 0.25, 0.25), 1, (1, 5), (0, 3)),  # swapped corners
        ((0.5, 0.5, 0.5, 0.5), 1, (3, 5), (1, 3)),  # no area: the margin alone
        ((0.3, 0.3, 0.45, 0.45), 1, (2, 5), (1, 3)),  # 1.4 <= x < 4.6 and 0.2 <= y < 2.8
        ((-5.0, -5.0, -4.0, 9.0), 1, (0, 0), (0, 4)),  # beside the image
        ((-1.0, -1.0, 2.0, 2.0), 1, (0, 8), (0, 4)),
    ],
)
def test_box_windows(
    box: tuple[float, ...], padding: float, columns: tuple[int, int], rows: tuple[int, int]
) -> None:
    expected = torch.zeros(4, 8, dtype=torch.bool)
    expected[slice(*rows), slice(*columns)] = True
    windows = box_windows(torch.tensor([box]), (4, 8), padding)
    assert windows[0].int().tolist() == expected.int().tolist()


def test_no_box_windows() -> None:
    assert box_windows(torch.zeros(0, 4), (3, 5)).shape == (0, 3, 5)


def test_a_margin_of_one_cell_is_the_default() -> None:
    boxes = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    assert (box_windows(boxes, (9, 7)) == box_windows(boxes, (9, 7), 1)).all()


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
    assert mask_windows(torch.zeros(0, 4, 4), torch.zeros(0, 4), (5, 6)) == []


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
    masks = paste_masks(soft, whole, image_hw)
    for mask, window in zip(masks, mask_windows(soft, whole, image_hw), strict=True):
        x1, y1, x2, y2 = window
        assert 0 <= x1 <= x2 <= width
        assert 0 <= y1 <= y2 <= height
        assert mask[y1:y2, x1:x2].sum() == mask.sum()
    assert mask_windows(soft, whole, image_hw)[0] == (0, 0, 0, 0)
    corner = torch.zeros(1, 16, 16)
    corner[0, 0, 0] = 1
    x1, y1, x2, y2 = mask_windows(corner, whole[:1], image_hw)[0]
    assert (x1, y1) == (0, 0)
    assert x2 <= 1.5 * width / 16 + 1
    assert y2 <= 1.5 * height / 16 + 1


def test_sample_window_equals_a_part_of_the_whole() -> None:
    soft, frame = torch.rand(5, 7), torch.tensor([0.0, 0.0, 30.0, 20.0])
    whole = sample_window(soft, frame, (0, 0, 30, 20))
    part = sample_window(soft, frame, (4, 3, 17, 11))
    torch.testing.assert_close(part, whole[3:11, 4:17])
    resized = F.interpolate(soft[None, None], (20, 30), mode="bilinear", align_corners=False)
    torch.testing.assert_close(whole, resized[0, 0])
    assert sample_window(soft, frame, (4, 3, 4, 3)).shape == (0, 0)


@pytest.mark.parametrize("frame", [(0.0, 0.0, 40.0, 30.0), (3.5, 2.0, 30.0, 22.5)])
def test_crops_equal_the_full_masks(frame: tuple[float, ...]) -> None:
    soft = soft_masks(8, 9, 11)
    zeros = torch.zeros(8)
    detections = Detections(
        torch.zeros(8, 4), zeros, zeros.long(), soft, frames(8, *frame), zeros, (30, 40)
    )
    masks = detections.masks
    for i in range(8):
        (x1, y1, x2, y2), crop = detections.crop(i)
        assert crop.shape == (y2 - y1, x2 - x1)
        rebuilt = torch.zeros(30, 40, dtype=torch.bool)
        rebuilt[y1:y2, x1:x2] = crop
        assert (rebuilt == masks[i]).all()
        assert detections[i].crop(0)[0] == (x1, y1, x2, y2)
    assert detections.crop(0)[0] == (0, 0, 0, 0)
    assert masks[1].any()


def test_crop_counts_from_the_end_as_indexing_does() -> None:
    soft = soft_masks(3, 4, 4)
    zeros = torch.zeros(3)
    detections = Detections(
        torch.zeros(3, 4), zeros, zeros.long(), soft, frames(3, 0, 0, 8, 8), zeros, (8, 8)
    )
    assert detections.crop(-2)[0] == detections.crop(1)[0] == (0, 0, 8, 8)
    with pytest.raises(IndexError):
        detections.crop(3)
