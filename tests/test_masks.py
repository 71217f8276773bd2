import math

import numpy as np
import pytest
import torch
from torch import Tensor

from layers.masks import assemble_masks, box_windows
from layers.native import load_kernels

WHOLE = (0.0, 0.0, 1.0, 1.0)
NAN, INF = math.nan, math.inf


def test_assemble_nothing(path: str) -> None:
    masks = assemble_masks(torch.rand(3, 4, 5), torch.zeros(0, 3), torch.zeros(0, 4))
    assert masks.shape == (0, 4, 5)


def test_assemble_by_hand(path: str) -> None:
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


def reference(
    prototypes: Tensor, coefficients: Tensor, boxes: Tensor, padding: float = 1
) -> Tensor:
    soft = torch.einsum("nk,khw->nhw", coefficients, prototypes).sigmoid()
    return soft * box_windows(boxes, prototypes.shape[1:], padding)


@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (32, 69, 69), (33, 7, 50), (6, 50, 7)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_assemble_equals_the_formula(
    path: str, count: int, shape: tuple[int, int, int], padding: float
) -> None:
    rng = torch.Generator().manual_seed(count)
    prototypes = torch.randn(shape, generator=rng)
    coefficients = torch.randn(count, shape[0], generator=rng)
    boxes = torch.rand(count, 4, generator=rng) * 1.6 - 0.3  # corners in any order
    boxes[::5] = boxes[::5].round()
    ours = assemble_masks(prototypes, coefficients, boxes, padding=padding)
    expected = reference(prototypes, coefficients, boxes, padding)
    assert ((ours > 0) == (expected > 0)).all()
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [0, 4])
def test_assemble_without_crop(path: str, count: int) -> None:
    prototypes, coefficients = torch.randn(8, 5, 6), torch.randn(count, 8)
    ours = assemble_masks(prototypes, coefficients, torch.zeros(count, 4), crop=False)
    expected = torch.einsum("nk,khw->nhw", coefficients, prototypes).sigmoid()
    torch.testing.assert_close(ours, expected)


BAD_BOXES = [
    (NAN, 0.0, 1.0, 1.0),
    (0.0, 0.0, NAN, 1.0),
    (0.0, NAN, 1.0, NAN),
    (0.2, -INF, 0.4, INF),
    (INF, INF, INF, INF),
    (1e30, -1e30, -1e30, 1e30),
    (-5.0, -5.0, -4.0, 9.0),
    (0.9, 0.9, 0.1, 0.1),
    (0.5, 0.5, 0.5, 0.5),
]


def test_assemble_with_bad_boxes(path: str) -> None:
    boxes = torch.tensor(BAD_BOXES)
    prototypes, coefficients = torch.randn(4, 9, 8), torch.randn(len(boxes), 4)
    ours = assemble_masks(prototypes, coefficients, boxes)
    torch.testing.assert_close(ours, reference(prototypes, coefficients, boxes))


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e38])
def test_assemble_with_bad_numbers(path: str, value: float) -> None:
    prototypes, coefficients = torch.randn(5, 9, 8), torch.randn(3, 5)
    prototypes[2, 3:5] = value
    coefficients[1, 1] = value
    boxes = torch.tensor([[0.1, 0.2, 0.8, 0.7]]).expand(3, 4)
    ours = assemble_masks(prototypes, coefficients, boxes)
    assert ((ours > 0.5) == (reference(prototypes, coefficients, boxes) > 0.5)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_assemble_is_float32(path: str, dtype: torch.dtype) -> None:
    prototypes, coefficients = torch.ones(2, 3, 3, dtype=dtype), torch.ones(1, 2, dtype=dtype)
    assert assemble_masks(prototypes, coefficients, torch.tensor([WHOLE])).dtype == torch.float32


def test_assemble_computes_in_float32_under_autocast(path: str) -> None:
    prototypes, coefficients = torch.randn(8, 9, 7), torch.randn(3, 8)
    boxes = torch.tensor([WHOLE]).expand(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = assemble_masks(prototypes, coefficients, boxes)
    torch.testing.assert_close(ours, reference(prototypes, coefficients, boxes))


def test_assemble_can_be_derived() -> None:
    coefficients = torch.ones(1, 2, requires_grad=True)
    assemble_masks(torch.ones(2, 3, 3), coefficients, torch.tensor([WHOLE])).sum().backward()
    assert coefficients.grad is not None


def test_the_kernel_checks_sizes() -> None:
    kernels = load_kernels()
    if kernels is None:
        pytest.skip("layers.kernels is not compiled here")
    sizes = {"prototypes": (2, 3, 4), "coefficients": (5, 2), "boxes": (5, 4), "out": (5, 3, 4)}
    wrong = {
        "prototypes": [(3, 3, 4)],
        "coefficients": [(6, 2)],
        "boxes": [(4, 4), (5, 3)],
        "out": [(4, 3, 4), (5, 2, 4), (5, 3, 5)],
    }
    for name, size in [(key, size) for key, value in wrong.items() for size in value]:
        arrays = {k: np.zeros(v, np.float32) for k, v in {**sizes, name: size}.items()}
        with pytest.raises(ValueError, match="different sizes"):
            kernels.assemble_masks(**arrays, padding=1)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_windows_of_boxes_in_any_precision_are_found_in_float32(dtype: torch.dtype) -> None:
    boxes = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = box_windows(boxes.float(), (300, 300))
    assert torch.equal(box_windows(boxes, (300, 300)), expected)


def test_no_box_windows() -> None:
    assert box_windows(torch.zeros(0, 4), (3, 5)).shape == (0, 3, 5)


def test_a_margin_of_one_cell_is_the_default() -> None:
    boxes = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    assert (box_windows(boxes, (9, 7)) == box_windows(boxes, (9, 7), 1)).all()
