"""Pyramid, head, ProtoNet and mask re-scorer against their formulas, cell by cell."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolact.models.fpn import FeaturePyramid
from yolact.models.head import PredictionHead
from yolact.models.mask_rescorer import MaskRescorer
from yolact.models.protonet import ProtoNet


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomised(module: nn.Module) -> nn.Module:
    """The same module with biases that matter."""
    for i, parameter in enumerate(module.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(i))
    return module.eval()


def upsampled(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False)


PARTS = [
    FeaturePyramid([3, 5, 7], 8),
    PredictionHead(8, 6, 3, 4, 5),
    ProtoNet(8, 6, 5),
    MaskRescorer(4),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_convolutions_start_as_in_the_original(part: nn.Module) -> None:
    convolutions = [module for module in part.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) > 3
    for conv in convolutions:
        assert conv.bias is not None
        assert not conv.bias.any()
        area = conv.kernel_size[0] * conv.kernel_size[1]
        bound = (6 / (area * (conv.in_channels + conv.out_channels))) ** 0.5  # Xavier
        assert 0.6 * bound < conv.weight.abs().max() <= bound  # of 24 numbers, or of many more


@pytest.mark.parametrize("batch", [0, 2])
def test_pyramid(batch: int) -> None:
    fpn = randomised(FeaturePyramid([3, 5, 7], 8))
    c3, c4, c5 = random(batch, 3, 9, 11), random(batch, 5, 5, 6), random(batch, 7, 3, 3)
    p3, p4, p5, p6, p7 = fpn([c3, c4, c5])
    merged5 = fpn.lateral[2](c5)
    merged4 = fpn.lateral[1](c4) + upsampled(merged5, 5, 6)
    merged3 = fpn.lateral[0](c3) + upsampled(merged4, 9, 11)
    torch.testing.assert_close(p3, fpn.output[0](merged3).relu())
    torch.testing.assert_close(p4, fpn.output[1](merged4).relu())
    torch.testing.assert_close(p5, fpn.output[2](merged5).relu())
    torch.testing.assert_close(p6, fpn.downsample[0](p5))
    torch.testing.assert_close(p7, fpn.downsample[1](p6))
    assert [p6.shape, p7.shape] == [(batch, 8, 2, 2), (batch, 8, 1, 1)]
    assert (p6 < 0).any() == (batch > 0)  # without ReLU, as the released weights expect


@pytest.mark.parametrize("relu_levels", range(6))
@pytest.mark.parametrize("p6_source", ["p5", "c5"])
def test_pyramids_of_others(relu_levels: int, p6_source: Literal["p5", "c5"]) -> None:
    fpn = randomised(FeaturePyramid([3, 5, 7], 8, relu_levels, p6_source))
    features = [random(2, 3, 9, 11), random(2, 5, 5, 6), random(2, 7, 3, 3)]
    levels = fpn(features)
    assert [bool((level < 0).any()) for level in levels] == [i >= relu_levels for i in range(5)]
    p6 = fpn.downsample[0](features[2] if p6_source == "c5" else levels[2])
    torch.testing.assert_close(levels[3], p6.relu() if relu_levels > 3 else p6)
    p7 = fpn.downsample[1](levels[3])
    torch.testing.assert_close(levels[4], p7.relu() if relu_levels > 4 else p7)


@pytest.mark.parametrize("batch", [1, 2])
def test_head_lists_level_row_column_anchor(batch: int) -> None:
    head = randomised(PredictionHead(8, 6, num_anchors=3, num_classes=4, num_prototypes=5))
    levels = [random(batch, 8, 2, 3), random(batch, 8, 1, 2, seed=1)]
    logits, deltas, coefficients = head(levels)
    count = (2 * 3 + 1 * 2) * 3
    assert [part.shape for part in (logits, deltas, coefficients)] == [
        (batch, count, 5),
        (batch, count, 4),
        (batch, count, 5),
    ]
    position = 0
    for level in levels:
        x = F.relu(head.shared[0](level))
        for row in range(level.shape[2]):
            for column in range(level.shape[3]):
                classes, boxes, weights = (
                    output(x)[:, :, row, column].reshape(batch, 3, size)
                    for output, size in ((head.classes, 5), (head.boxes, 4), (head.coefficients, 5))
                )
                here = slice(position, position + 3)
                torch.testing.assert_close(logits[:, here], classes)
                torch.testing.assert_close(deltas[:, here], boxes)
                torch.testing.assert_close(coefficients[:, here], weights.tanh())
                position += 3
    assert position == count


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("batch", [0, 2])
def test_protonet(batch: int, align_corners: bool) -> None:
    protonet = randomised(ProtoNet(8, 6, 5, align_corners))
    p3 = random(batch, 8, 4, 7)
    x = p3
    for conv in protonet.convs:
        x = conv(x).relu()
    x = F.interpolate(x, (8, 14), mode="bilinear", align_corners=align_corners)
    x = protonet.refine(x).relu()
    prototypes = protonet(p3)
    assert prototypes.shape == (batch, 5, 8, 14)
    torch.testing.assert_close(prototypes, protonet.project(x).relu())


@pytest.mark.parametrize("labels", [[], [2], [0, 3, 3]])
def test_rescorer(labels: list[int]) -> None:
    rescorer = randomised(MaskRescorer(4))
    soft_masks = random(len(labels), 70, 100).sigmoid()
    quality = rescorer(soft_masks, torch.tensor(labels, dtype=torch.int64))
    x = soft_masks[:, None]
    for conv in rescorer.convs:
        x = conv(x).relu()
    expected = rescorer.classify(x).relu().flatten(2).amax(dim=2)
    assert quality.shape == (len(labels),)
    for i, label in enumerate(labels):
        torch.testing.assert_close(quality[i], expected[i, label])


def test_the_smallest_masks_of_the_rescorer() -> None:
    side = MaskRescorer.minimum_side
    label = torch.tensor([1])
    assert MaskRescorer(4)(random(1, side, side), label).shape == (1,)
    with pytest.raises(RuntimeError):
        MaskRescorer(4)(random(1, side - 1, side - 1), label)
