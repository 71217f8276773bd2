"""Boxes, masks and scores that are fitted to each other."""

import pytest
import torch
from torch import Tensor

from layers.masks import box_windows, keep_large_parts, mask_confidence, refit, widened


def rectangle(*corners: float) -> Tensor:
    """A mask of 20 x 20 cells that fills a box in cells."""
    x1, y1, x2, y2 = map(int, corners)
    mask = torch.zeros(20, 20)
    mask[y1:y2, x1:x2] = 0.9
    return mask


def test_refit_nothing(path: str) -> None:
    masks, boxes = refit(torch.zeros(0, 20, 20), torch.zeros(0, 4))
    assert masks.shape == (0, 20, 20)
    assert boxes.shape == (0, 4)
    assert widened(torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize(
    ("box", "mask", "expected_box", "expected_mask"),
    [
        pytest.param((4, 4, 14, 14), (4, 4, 14, 14), (4, 4, 14, 14), (4, 4, 14, 14), id="fits"),
        pytest.param((4, 5, 14, 15), (4, 4, 14, 15), (4, 4.5, 14, 15), (4, 4, 14, 15), id="a hat"),
        pytest.param((4, 4, 14, 14), (6, 4, 14, 14), (5, 4, 14, 14), (6, 4, 14, 14), id="too wide"),
        pytest.param((4, 4, 14, 14), (1, 1, 17, 17), (4, 4, 14, 14), (3, 3, 15, 15), id="another"),
        pytest.param((4, 4, 14, 14), (0, 0, 0, 0), (4, 4, 14, 14), (0, 0, 0, 0), id="empty"),
        pytest.param((14, 14, 4, 4), (4, 4, 14, 14), (14, 14, 4, 4), (4, 4, 14, 14), id="inverted"),
    ],
)
def test_refit(
    path: str,
    box: tuple[float, ...],
    mask: tuple[float, ...],
    expected_box: tuple[float, ...],
    expected_mask: tuple[float, ...],
) -> None:
    boxes = torch.tensor([box]) / 20
    soft = rectangle(*mask)[None] * box_windows(widened(boxes), (20, 20), padding=0)
    masks, fitted = refit(soft, boxes)
    if box[0] < box[2]:
        torch.testing.assert_close(fitted * 20, torch.tensor([expected_box]).float())
    torch.testing.assert_close(masks, rectangle(*expected_mask)[None])
    assert soft.shape == masks.shape


def test_widened_boxes() -> None:
    boxes = torch.tensor([(0.2, 0.4, 0.4, 0.8), (0.4, 0.8, 0.2, 0.4)])
    torch.testing.assert_close(widened(boxes), torch.tensor([(0.17, 0.34, 0.43, 0.86)] * 2))


def drawn(*rows: str) -> Tensor:
    """A mask as drawn: # is inside."""
    return torch.tensor([[cell == "#" for cell in row] for row in rows])


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        pytest.param(("....", "...."), ("....", "...."), id="empty"),
        pytest.param(("#...", "...."), ("#...", "...."), id="one cell, the first"),
        pytest.param(("...#", "...."), ("...#", "...."), id="one cell, at the end of a row"),
        pytest.param(("####", "####"), ("####", "####"), id="full"),
        pytest.param(("#.##", "..##"), ("..##", "..##"), id="a quarter goes"),
        pytest.param(("##.##", "...##"), ("##.##", "...##"), id="a half stays"),
        pytest.param(("##.#", "##..", "...#"), ("##..", "##..", "...."), id="two small ones go"),
        pytest.param(("##..", "##..", "..#."), ("##..", "##..", "...."), id="a corner joins not"),
        pytest.param(("...#", "#...", "#..."), ("...#", "#...", "#..."), id="rows have ends"),
        pytest.param(
            ("####.#", "...#..", "####..", "#.....", "######"),
            ("####..", "...#..", "####..", "#.....", "######"),
            id="a winding one is whole",
        ),
    ],
)
def test_parts_of_a_mask(path: str, mask: tuple[str, ...], expected: tuple[str, ...]) -> None:
    masks = drawn(*mask)[None]
    before = masks.clone()
    assert torch.equal(keep_large_parts(masks)[0], drawn(*expected))
    assert torch.equal(masks, before)


def test_parts_of_many_masks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself, of a size that is no square, and from where the parts begin to join."""
    noise = torch.rand(40, 60, 45, generator=torch.Generator().manual_seed(0))
    masks = noise < torch.linspace(0.3, 0.8, 40)[:, None, None]
    kept = keep_large_parts(masks)
    assert (kept <= masks).all()
    assert 0.2 < kept.sum() / masks.sum() < 0.95
    for mask, expected in zip(masks, kept, strict=True):
        assert torch.equal(expected, by_flooding(mask))


def by_flooding(mask: Tensor) -> Tensor:
    """Remove what is small, cell by cell."""
    left = {(y, x) for y, x in mask.nonzero().tolist()}
    parts: list[list[tuple[int, int]]] = []
    while left:
        part = [left.pop()]
        for y, x in part:
            beside = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= beside
            part += beside
        parts.append(part)
    kept = torch.zeros_like(mask)
    for part in parts:
        if 2 * len(part) >= max(map(len, parts)):
            kept[tuple(torch.tensor(part).t())] = True
    return kept


def test_refit_drops_a_small_part(path: str) -> None:
    """Together with what it would have widened the box by; soft cells around stay as they are."""
    soft = rectangle(2, 2, 12, 12) + rectangle(16, 16, 18, 18)
    soft[15, 15:19] = 0.4
    box = torch.tensor([(2.0, 2.0, 18.0, 18.0)]) / 20
    masks, boxes = refit(soft[None], box)
    expected = rectangle(2, 2, 12, 12)
    expected[15, 15:19] = 0.4
    torch.testing.assert_close(masks[0], expected)
    torch.testing.assert_close(boxes * 20, torch.tensor([(2.0, 2.0, 15.0, 15.0)]))


def test_a_blurred_mask_moves_no_box(path: str) -> None:
    box = torch.tensor([(4.0, 5.0, 14.0, 15.0)]) / 20
    for blur, top in ((1.0, 4.5), (0.8, 5.0)):  # 0.9 inside of a clear one
        masks, boxes = refit(rectangle(4, 4, 14, 15)[None] * blur, box)
        assert (masks[0] > 0.5).sum() == 110
        torch.testing.assert_close(boxes * 20, torch.tensor([(4.0, top, 14.0, 15.0)]))


def test_confidence_of_masks() -> None:
    soft = torch.zeros(4, 3, 3)
    soft[1] = 0.5  # no cell above a half
    soft[2, 0] = torch.tensor([0.6, 0.8, 0.1])
    soft[3] = 1
    torch.testing.assert_close(mask_confidence(soft), torch.tensor([0, 0, 0.7, 1]))
    assert mask_confidence(soft[:0]).shape == (0,)
