from math import sqrt

import pytest
import torch
from torch import Tensor

from layers.anchors import AnchorGenerator
from yolact import get_config, list_configs

# Cells of P3..P7 at each input side: strides 8 to 128, rounded up at every step.
GRIDS = {
    256: (32, 16, 8, 4, 2),
    320: (40, 20, 10, 5, 3),
    384: (48, 24, 12, 6, 3),
    400: (50, 25, 13, 7, 4),
    550: (69, 35, 18, 9, 5),
    448: (56, 28, 14, 7, 4),
    700: (88, 44, 22, 11, 6),
}
COUNTS = {
    "yolact_base": 19248,
    "yolact_im400": 10077,
    "yolact_im700": 30963,
    "yolact_darknet53": 19248,
    "yolact_resnet50": 19248,
    "yolact_resnet50_pascal": 19248,
    "yolact_plus_base": 57744,
    "yolact_plus_resnet50": 57744,
}


def grids(*sides: tuple[int, int]) -> list[Tensor]:
    return [torch.zeros(1, 1, height, width) for height, width in sides]


ONE_STAGE = [n for n in list_configs() if get_config(n).model.architecture == "yolact"]


@pytest.mark.parametrize("name", ONE_STAGE)
def test_anchors_of_a_preset(name: str) -> None:
    model = get_config(name).model
    generator = AnchorGenerator(
        model.anchor_scales, model.anchor_ratios, model.image_size, model.square_anchors
    )
    anchors = generator(grids(*((side, side) for side in GRIDS[model.image_size])))
    cells = sum(side**2 for side in GRIDS[model.image_size])
    assert anchors.shape == (COUNTS.get(name, cells * model.num_anchors), 4)
    assert anchors.dtype == torch.float32
    assert ((anchors[:, :2] > 0) & (anchors[:, :2] < 1)).all()
    width, height = anchors[:, 2:].unbind(1)
    ratios = {1.0} if model.square_anchors else set(model.anchor_ratios)
    shapes = (width / height).mul(100).round().unique().div(100)
    assert shapes.tolist() == pytest.approx(sorted(ratios))


def test_no_cells() -> None:
    assert AnchorGenerator([[10]], [1], 100, False)(grids((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    ("square", "expected"),
    [
        # As released: width = height = scale * sqrt(ratio).
        (True, [(24, 24), (24 * sqrt(0.5), 24 * sqrt(0.5)), (24 * sqrt(2), 24 * sqrt(2))]),
        (False, [(24, 24), (24 * sqrt(0.5), 24 * sqrt(2)), (24 * sqrt(2), 24 * sqrt(0.5))]),
    ],
)
def test_sizes(square: bool, expected: list[tuple[float, float]]) -> None:
    anchors = AnchorGenerator([[24]], [1, 0.5, 2], 550, square)(grids((1, 1)))
    torch.testing.assert_close(anchors[:, 2:] * 550, torch.tensor(expected))


def test_ratios_run_faster_than_scales() -> None:
    anchors = AnchorGenerator([[10, 20]], [1, 4], 100, False)(grids((1, 1)))
    widths = (anchors[:, 2] * 100).tolist()
    assert widths == pytest.approx([10, 20, 20, 40])


def test_order_is_level_row_column_anchor() -> None:
    anchors = AnchorGenerator([[10], [20]], [1, 4], 100, False)(grids((2, 3), (1, 1)))
    centres = [(x / 6, y / 4) for y in (1, 3) for x in (1, 3, 5) for _ in range(2)]
    expected = torch.tensor([*centres, (0.5, 0.5), (0.5, 0.5)])
    torch.testing.assert_close(anchors[:, :2], expected)
    assert (anchors[:, 2] * 100).tolist() == pytest.approx([10, 20] * 6 + [20, 40])


def test_wrong_number_of_levels() -> None:
    with pytest.raises(ValueError):
        AnchorGenerator([[10], [20]], [1], 100, False)(grids((2, 2)))


def test_anchors_follow_the_size() -> None:
    generator = AnchorGenerator([[10]], [1], 100, False)
    first = generator(grids((2, 2)))
    assert len(generator(grids((3, 2)))) == 6
    torch.testing.assert_close(generator(grids((2, 2))), first, rtol=0, atol=0)


def test_anchors_are_laid_once_for_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = AnchorGenerator([[10]], [1], 100, False)
    first = generator(grids((2, 2)))
    monkeypatch.delattr(AnchorGenerator, "make")
    assert torch.equal(generator(grids((2, 2))), first)


@pytest.mark.parametrize("inference", [False, True])
def test_changed_anchors_are_the_callers_alone(inference: bool) -> None:
    generator = AnchorGenerator([[10]], [1], 100, False)
    with torch.inference_mode(inference):
        first = generator(grids((2, 2)))
        expected = first.clone()
        first.zero_()
        second = generator(grids((2, 2)))
        assert torch.equal(second, expected)
        second.mul_(9)
    assert torch.equal(generator(grids((2, 2))), expected)


def test_anchors_made_in_inference_mode_serve_in_training() -> None:
    generator = AnchorGenerator([[10]], [1], 100, False)
    with torch.inference_mode():
        generator(grids((2, 2)))
    deltas = torch.zeros(4, 4, requires_grad=True)
    (generator(grids((2, 2))) * deltas).sum().backward()
    assert deltas.grad is not None
    assert deltas.grad.abs().sum() > 0
