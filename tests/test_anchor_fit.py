from __future__ import annotations

import pytest
import torch

from layers.anchors import AnchorGenerator
from layers.boxes import box_iou, cxcywh_to_xyxy
from scripts import anchors
from yolact import build_model, get_config
from yolact.config import ModelConfig
from yolact.training.anchor_fit import anchor_settings, best_overlaps, propose_anchors

SMALL = get_config("yolact_resnet18").override("model.image_size=129")


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    """Boxes inside the image, cxcywh, some at its edge."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed))
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    return torch.cat(((low + high) / 2, high - low), dim=1)


def test_no_boxes() -> None:
    assert anchors.quality(torch.zeros(0, 4), SMALL.model, 0.5) == "no objects to measure"
    assert best_overlaps(torch.zeros(0, 4), SMALL.model).shape == (0,)


@pytest.mark.parametrize("square", [False, True])
def test_the_nearest_cell_is_the_best(square: bool) -> None:
    config = SMALL.override(f"model.square_anchors={square}")
    model = build_model(config).eval()
    with torch.inference_mode():
        anchors = model.network(torch.zeros(1, 3, 129, 129)).anchors
    boxes = random_boxes(200)
    expected = box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(anchors)).amax(dim=1)
    assert torch.allclose(best_overlaps(boxes, config.model), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("preset", "cells"),
    [("yolact_resnet18", 9), ("maskrcnn_resnet50_fpn", 17)],  # in a row of P4, of P3
)
def test_an_anchor_meets_itself(preset: str, cells: int) -> None:
    model = get_config(preset).override("model.image_size=129").model
    sizes = AnchorGenerator(model.anchor_scales, model.anchor_ratios, 129, False).sizes[1]
    box = torch.cat((torch.full((1, 2), 2.5 / cells), sizes[-1:]), dim=1)
    assert best_overlaps(box, model).item() == pytest.approx(1)


def boxes_of(width: float, height: float, count: int = 300) -> torch.Tensor:
    """Boxes of about one size, anywhere, in shares of the image."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([width, height]) * (0.9 + 0.2 * torch.rand(count, 2, generator=generator))
    centres = sizes / 2 + torch.rand(count, 2, generator=generator) * (1 - sizes)
    return torch.cat((centres, sizes), dim=1)


@pytest.mark.parametrize(("scales", "ratios"), [(1, 1), (3, 3), (2, 2)])
def test_a_proposal_meets_what_the_preset_misses(scales: int, ratios: int) -> None:
    model = get_config("yolact_base").model
    boxes = torch.cat((boxes_of(0.8, 0.12), boxes_of(0.3, 0.05)))
    before = best_overlaps(boxes, model)
    assert (before >= 0.5).float().mean() < 0.2
    proposed = propose_anchors(boxes, model, scales, ratios)
    assert (len(proposed.anchor_scales[0]), len(proposed.anchor_ratios)) == (scales, ratios)
    after = best_overlaps(boxes, proposed)
    assert (after >= 0.5).float().mean() > 0.8
    assert after.mean() > before.mean()
    assert propose_anchors(boxes, model, scales, ratios) == proposed


def test_one_object_is_enough() -> None:
    proposed = propose_anchors(boxes_of(0.2, 0.1, count=1), SMALL.model, 1, 1)
    assert best_overlaps(boxes_of(0.2, 0.1, count=1), proposed).item() > 0.6


@pytest.mark.parametrize("preset", ["yolact_base", "yolact_resnet18", "maskrcnn_resnet50_fpn"])
def test_the_settings_give_the_proposal(preset: str) -> None:
    config = get_config(preset)
    proposed = propose_anchors(boxes_of(0.3, 0.1, 30), config.model, 2, 3)
    settings = anchor_settings(proposed)
    assert not any(set(" \"'$`!") & set(setting) for setting in settings)  # safe in quotes
    changed = config.override(*settings)
    assert changed.model == proposed
    assert isinstance(changed.model, ModelConfig)
    assert not changed.model.square_anchors
