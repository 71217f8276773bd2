"""Compiled kernels check what they are given at their door: no read or write outside of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layers import mask_pixels
from layers.native import load_kernels

kernels: Any = load_kernels()
pytestmark = pytest.mark.skipif(kernels is None, reason="the kernels are not compiled")


def floats(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def whole(*shape: int) -> Any:
    return np.zeros(shape, np.int64)


def marks(*shape: int) -> Any:
    return np.zeros(shape, np.uint8)


def twice(*shape: int) -> tuple[Any, Any]:
    return floats(*shape), floats(*shape)


FRAME = (0.0, 0.0, 8.0, 8.0)


@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        ("greedy_nms", (floats(0, 3), whole(0), 0.5)),
        ("greedy_nms", (floats(5, 4), whole(2), 0.5)),
        ("greedy_nms", (floats(5, 4), whole(6), 0.5)),
        ("greedy_nms", (floats(5, 2), whole(5), 0.5)),
        ("greedy_nms", (floats(5, 4)[::2], whole(3), 0.5)),
        ("greedy_nms", (floats(5, 4).astype(np.float64), whole(5), 0.5)),
        ("greedy_nms", (floats(5, 4), whole(5).astype(np.int32), 0.5)),
        ("fast_nms", (floats(2, 3, 4), floats(2, 2), 0.5, 5, marks(2, 3))),
        ("fast_nms", (floats(2, 3, 2), floats(2, 3), 0.5, 5, marks(2, 3))),
        ("fast_nms", (floats(2, 3, 4), floats(2, 3), 0.5, 5, marks(2, 2))),
        ("assemble_masks", (floats(3, 4, 4), floats(2, 5), floats(2, 4), 1.0, floats(2, 4, 4))),
        ("assemble_masks", (floats(3, 4, 4), floats(2, 3), floats(2, 2), 1.0, floats(2, 4, 4))),
        ("assemble_masks", (floats(3, 4, 4), floats(2, 3), floats(2, 4), 1.0, floats(2, 4, 3))),
        ("keep_large_parts", (marks(4, 4), 0.5)),
        ("keep_large_parts", (marks(2, 4, 4)[:, :, ::2], 0.5)),
        ("keep_large_parts", (floats(2, 4, 4), 0.5)),
        ("sample_mask", (floats(4, 4), FRAME, (0, 0, 8, 8), marks(8, 7))),
        ("sample_mask", (floats(0, 4), FRAME, (0, 0, 8, 8), marks(8, 8))),
        ("sample_mask", (floats(4, 4), FRAME, (8, 8, 0, 0), marks(8, 8))),
        ("sample_mask", (floats(4, 4), FRAME, (0, 0, 4, 8), marks(8, 8)[:, ::2])),
        ("blend_mask", (floats(4, 4), FRAME, (0, 0, 9, 8), marks(8, 8, 3), marks(256, 3))),
        ("blend_mask", (floats(4, 4), FRAME, (-1, 0, 8, 8), marks(8, 8, 3), marks(256, 3))),
        ("blend_mask", (floats(4, 4), FRAME, (0, 0, 8, 8), marks(8, 8, 3), marks(255, 3))),
        ("mask_window", (floats(4, 8)[:, ::2], FRAME, 8, 8)),
        ("depthwise_weight_gradient", (*twice(1, 4, 4, 3), 1, 1, floats(3, 3, 2))),
        ("depthwise_weight_gradient", (*twice(1, 4, 4, 3), 1, 1, floats(3, 5, 3))),
        ("depthwise_weight_gradient", (*twice(1, 4, 4, 3), 1, 1, floats(0, 0, 3))),
        ("depthwise_weight_gradient", (*twice(1, 4, 4, 3), 0, 1, floats(3, 3, 3))),
        ("depthwise_weight_gradient", (*twice(1, 4, 4, 3), 2, 1, floats(3, 3, 3))),
        ("depthwise_weight_gradient", (*twice(1, 1, 1, 3), 2**62, 1, floats(3, 3, 3))),
        ("depthwise_weight_gradient", (*twice(1, 4, 4, 3), 1, 2, floats(3, 3, 3))),
        ("depthwise_weight_gradient", (*twice(1, 4, 4, 3), 1, 2**62, floats(3, 3, 3))),
        (
            "depthwise_weight_gradient",
            (floats(1, 4, 4, 3), floats(2, 4, 4, 3), 1, 1, floats(3, 3, 3)),
        ),
        (
            "depthwise_weight_gradient",
            (floats(1, 4, 4, 3), whole(1, 4, 4, 3), 1, 1, floats(3, 3, 3)),
        ),
        ("encode_mask", (marks(4, 4), 5, 0, 8, 8)),
        ("encode_mask", (marks(4, 4), 0, -1, 8, 8)),
        ("encode_mask", (marks(4, 8)[:, ::2], 0, 0, 8, 8)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(kernel: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"."):
        getattr(kernels, kernel)(*arguments)


@pytest.mark.parametrize("side", [0, 1, 2**24, 2**24 + 1, 2**24 + 3, 2**31 - 1])
def test_windows_end_where_the_image_ends(side: int) -> None:
    soft_mask, frame = np.ones((2, 2), np.float32), (0.0, 0.0, float(side), float(side))
    expected = (0, 0, side, side)
    for module in (kernels, mask_pixels):
        assert module.mask_window(soft_mask, frame, side, side) == expected


@pytest.mark.parametrize(
    "window",
    [
        (0, -(2**63), 8, 6),  # as sanitizers reported: 6 + 2^63 is no 64-bit number
        (2**63 - 1, 0, -(2**63) + 7, 8),  # whose difference comes to 8 all the same
        (0, 8, 8, 0),
        (2**31, 0, 2**31 + 8, 8),
    ],
)
def test_windows_that_are_none_are_refused(window: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected x1 <= x2"):
        kernels.sample_mask(floats(4, 4), FRAME, window, marks(8, 8))
