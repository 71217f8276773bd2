"""Objects of which only the box is known, on their way through training and evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.coco_rectangles import LARGE, MEDIUM, SMALL, annotation, detections, ground_truth
from support.tiny_mask_rcnn import batch, build
from test_copy_paste import Always, filled, target_of
from test_criterion import criterion, predict, target
from test_data_transforms import sample_of
from test_evaluation import scored

from data.augment.copy_paste import paste_objects
from data.augment.transform import TrainTransform
from data.options import Switches
from data.sample import Sample
from layers.losses import semantic_loss
from layers.structures import Target


def without_masks(objects: Target, *chosen: int) -> Target:
    has_mask = torch.ones(len(objects), dtype=torch.bool)
    has_mask[list(chosen)] = False
    masks = objects.masks & has_mask[:, None, None]
    return replace(objects, masks=masks, has_mask=has_mask)


ROWS = [(1.0, 2.0, 30.0, 40.0), (20.0, 20.0, 60.0, 60.0)]


def test_no_objects() -> None:
    assert target([]).has_mask.tolist() == []
    assert target(ROWS).has_mask.tolist() == [True, True]
    with pytest.raises(ValueError, match="parts of different lengths"):
        replace(target(ROWS), has_mask=torch.ones(1, dtype=torch.bool))


@pytest.mark.parametrize("rescoring", [False, True])
def test_only_the_masks_of_others_are_learned(rescoring: bool) -> None:
    """Boxes and classes are learned as ever."""
    learn = criterion(rescoring, discard_mask_area=0.0)
    whole, boxed = target(ROWS), without_masks(target(ROWS), 1)
    predictions = predict(1, grid=64)
    losses, known = (learn(predictions, [each]) for each in (boxed, whole))
    assert losses["box"] == known["box"]
    assert losses["confidence"] == known["confidence"]
    assert losses["mask"] != known["mask"]
    # Which pixels the mask of the second object has makes no difference.
    drawn = replace(boxed, masks=boxed.masks.clone())
    drawn.masks[1] = True
    for name in {"mask", "mask_iou"} & losses.keys():
        assert learn(predictions, [drawn])[name] == losses[name]


def test_of_boxes_alone_no_mask_is_learned() -> None:
    predictions = predict(2)
    boxed = without_masks(target(ROWS), 0, 1)
    losses = criterion(True)(predictions, [boxed, boxed])
    assert losses["mask"] == losses["mask_iou"] == 0
    assert losses["box"] > 0
    assert losses["confidence"] > 0
    torch.stack(list(losses.values())).sum().backward()
    assert predictions.prototypes.grad is not None
    assert not predictions.prototypes.grad.any()


@pytest.mark.parametrize("count", [1, 3])
def test_a_mask_counts_the_same_among_boxes(count: int) -> None:
    """The mask loss is a mean over the anchors with a mask, however many there are without."""
    rows = [(8.0, 8.0, 20.0, 20.0), *[(40.0, 40.0, 60.0 + i, 60.0) for i in range(count)]]
    boxed = without_masks(target(rows), *range(1, count + 1))
    alone, among = (criterion()(predict(1), [each])["mask"] for each in (target(rows[:1]), boxed))
    assert among.item() == pytest.approx(alone.item(), rel=1e-5)


def test_the_semantic_loss_does_not_know() -> None:
    logits = torch.zeros(2, 4, 4, requires_grad=True)
    mask, unknown = torch.zeros(1, 4, 4), torch.zeros(2, 4, 4)
    mask[0, :2, :2] = 1
    unknown[0, :, :3] = 1  # of the class that the mask is of
    loss = semantic_loss(logits, mask, torch.tensor([0]), unknown)
    assert loss.item() == pytest.approx(np.log(2) * (4 + 4 + 16) / 16)
    loss.backward()
    assert logits.grad is not None
    learned = (logits.grad != 0).int()
    assert learned[0].tolist() == [[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert learned[1].all()


def test_what_is_taken_for_a_crowd_is_no_background_to_the_semantic_loss() -> None:
    boxed = without_masks(target([(0, 0, 32, 64), (32, 0, 64, 64)]), 1)
    ignored = replace(boxed, is_crowd=torch.tensor([False, True]))
    semantic = [criterion()(predict(1), [each])["semantic"] for each in (boxed, ignored)]
    assert semantic[0] == semantic[1]
    crowd = target([(0, 0, 32, 64), (32, 0, 64, 64)], crowds=1)
    alone = target([(0, 0, 32, 64)])
    # The original's rule for crowds that have an outline: background.
    as_2019, without = (criterion()(predict(1), [each])["semantic"] for each in (crowd, alone))
    assert as_2019 == without != semantic[0]


def test_the_semantic_loss_of_an_image() -> None:
    predictions = predict(1)
    boxed = without_masks(target([(0.0, 0.0, 32.0, 32.0)]), 0)
    criterion()(predictions, [boxed])["semantic"].backward()
    assert predictions.semantic_logits is not None
    gradient = predictions.semantic_logits.grad
    assert gradient is not None
    assert not gradient[0, 0, :5, :5].any()  # a cell more than the box
    assert gradient[0, 0, 5:].all()
    assert gradient[0, 1:].all()


def test_mask_rcnn_learns_no_mask_of_them() -> None:
    model = build().train()
    images, targets = batch()

    def losses_of(chosen: list[Target]) -> dict[str, float]:
        torch.manual_seed(0)
        return {name: loss.item() for name, loss in model(images, chosen).items()}

    known = losses_of(targets)
    boxed = losses_of([without_masks(each, *range(len(each))) for each in targets])
    assert boxed.pop("mask") == 0
    assert known.pop("mask") > 0
    assert boxed == known
    # The pixels of what has no mask make no difference.
    half = [without_masks(each, 0) for each in targets]
    assert losses_of(half)["mask"] > 0
    for each in half:
        each.masks[0] = True
    assert losses_of(half) == losses_of([without_masks(each, 0) for each in targets])


@pytest.mark.parametrize("seed", range(6))
def test_boxes_follow_the_geometry(seed: int) -> None:
    whole = sample_of((10, 12, 40, 50), (30, 5, 70, 30))
    boxed = Sample(**{**vars(whole), "segmentations": ([], whole.segmentations[1])})
    jitter = (0.5, 2.0) * (seed % 2)
    transform = TrainTransform(64, Switches(rotate=True, flip=True, scale_jitter=jitter))
    expected = transform(whole, np.random.default_rng(seed))[1]
    found = transform(boxed, np.random.default_rng(seed))[1]
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.has_mask, found.masks.flatten(1).any(dim=1))
    assert expected.has_mask.all()


def test_pasting_leaves_them_unless_they_are_hidden() -> None:
    own = without_masks(target_of((0, 0, 10, 10), (10, 10, 20, 20)), 0, 1)
    other = without_masks(target_of((10, 10, 20, 19), (0, 0, 5, 5), (2, 2, 9, 9)), 2)
    _, pasted = paste_objects(filled(1), own, filled(2), other, Always())
    assert pasted.boxes.tolist() == [[0, 0, 10, 10], [10, 10, 20, 19], [0, 0, 5, 5]]
    assert pasted.has_mask.tolist() == [False, True, True]


def test_boxes_count_and_masks_are_ignored() -> None:
    """What is found at a box alone is right for the boxes, and nothing at all for the masks."""
    entries = [annotation(1, 1, 0, SMALL), annotation(2, 1, 0, MEDIUM), annotation(3, 2, 1, LARGE)]
    for entry in entries[1:]:
        entry["segmentation"] = []
    found = {
        1: detections([MEDIUM, SMALL], [0, 0], [0.9, 0.8]),
        2: detections([LARGE], [1], [0.7], mask_boxes=[SMALL]),
        5: detections(),
    }
    metrics = scored(ground_truth(entries), found)
    assert metrics.box.overlaps["all"] == pytest.approx(100)
    assert metrics.mask.overlaps["all"] == pytest.approx(100)
    assert np.isnan(metrics.mask.per_class[1])  # there is no mask of this class
    missed = scored(ground_truth(entries), {**found, 2: detections()})
    assert missed.box.overlaps["all"] == pytest.approx(50)
    assert missed.mask.overlaps["all"] == pytest.approx(100)
