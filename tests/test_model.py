"""The protocol of a model, with a tiny network and two generated images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.plain import plain_target
from support.tiny import SETTINGS
from torch import Tensor

from data.classes import SHAPE_CLASSES
from data.images import Image
from data.shapes.scenes import ShapeScenes
from layers.masks import mask_confidence
from layers.structures import Candidates, Target
from yolact import Predictor, Yolact, build_model, get_config
from yolact.results.thresholds import Thresholds

LOSSES = ("box", "confidence", "mask", "semantic", "mask_iou")


RESCORED = ("model.mask_rescoring=True", "model.image_size=256")
WAYS = pytest.mark.parametrize(
    "way", [(), RESCORED, ("detect.refit=True",)], ids=["plain", "rescored", "refit"]
)


def build(way: tuple[str, ...] = ()) -> Yolact:
    torch.manual_seed(0)
    settings = [*SETTINGS, "detect.refit=False", *way, "detect.score_threshold=0.0"]
    config = get_config("yolact_resnet18").override(*settings).with_classes(SHAPE_CLASSES.names)
    return build_model(config).freeze_batch_norm()


def batch(side: int) -> tuple[list[Tensor], list[Target]]:
    scenes = ShapeScenes(2, 128)
    pairs = [plain_target(scenes.sample(i), side) for i in range(2)]
    return [image for image, _ in pairs], [target for _, target in pairs]


def test_rescoring_takes_no_input_that_training_makes_too_small() -> None:
    with pytest.raises(ValueError, match=r"with train.multi_scale=0.5: mask re-scoring needs at"):
        build((*RESCORED, "train.multi_scale=0.5"))


@pytest.mark.parametrize("name", LOSSES)
def test_one_step_lowers_each_loss(name: str) -> None:
    model = build(RESCORED).train()
    images, targets = batch(model.image_size)
    before = model(images, targets)
    assert tuple(before) == LOSSES
    before[name].backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    assert norm > 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad / norm
    assert model(images, targets)[name] < before[name]


def test_no_images_and_no_objects() -> None:
    model = build()
    assert Predictor(model)([]) == []
    model.train()
    images, targets = batch(model.image_size)
    empty = [target[torch.zeros(len(target), dtype=torch.bool)] for target in targets]
    losses = model(images, empty)
    assert losses["box"] == losses["mask"] == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@WAYS
def test_batched_equals_single(way: tuple[str, ...]) -> None:
    predictor = Predictor(build(way))
    images = [ShapeScenes(3, side).sample(1).image for side in (64, 100, 180)]
    together = predictor(images, score_threshold=0.0, top_k=20)
    for image, found in zip(images, together, strict=True):
        alone = predictor(image, score_threshold=0.0, top_k=20)
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-4, rtol=0)
        assert found.masks.shape == (len(found), *image.shape[:2])
        assert found.image_hw == image.shape[:2]
        assert (found.scores[:-1] >= found.scores[1:]).all()


@WAYS
def test_a_threshold_leaves_what_scores_as_much(way: tuple[str, ...]) -> None:
    predictor = Predictor(build(way))
    image = ShapeScenes(1, 100).sample(0).image
    every = predictor.find_all(image)
    assert len(every) == 100
    for threshold in (0.0, *every.scores[::30].tolist(), 1.0):
        (found,) = predictor.segment([image], Thresholds(threshold))
        expected = every[every.scores >= threshold]
        for name in ("scores", "labels", "boxes", "masks"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@WAYS
@pytest.mark.parametrize("drop_empty", [False, True])
@pytest.mark.parametrize("labels", [None, (), (2,), (0, 2, 5, 7)])
def test_top_k_are_the_best_of_what_counts(
    way: tuple[str, ...], labels: tuple[int, ...] | None, drop_empty: bool
) -> None:
    predictor = Predictor(build(way))
    image = ShapeScenes(1, 100).sample(0).image
    every = predictor.find_all(image)
    counts = torch.ones(len(every), dtype=torch.bool)
    if labels is not None:
        counts &= torch.isin(every.labels, torch.tensor(labels, dtype=torch.long))
    if drop_empty:
        counts &= every.masks.any(dim=(1, 2))
    for top_k in (1, 7, None):
        expected = every[counts][:top_k]
        (found,) = predictor.segment([image], Thresholds(0.0, top_k, labels, drop_empty))
        assert len(found) == len(expected)
        for name in ("scores", "labels", "boxes", "masks"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("hw", [(64, 64), (40, 64), (64, 40), (1, 90)])
def test_undistorted_images_are_padded_at_the_right_and_below(hw: tuple[int, int]) -> None:
    model = build()
    model.pixel_mean.round_()
    image = ShapeScenes(1, 96).sample(0).image[: hw[0], : hw[1]]
    square = np.empty((max(hw), max(hw), 3), np.uint8)
    square[:] = model.pixel_mean.flatten().numpy()
    square[: hw[0], : hw[1]] = image
    (expected,) = Predictor(model).segment([square], Thresholds(top_k=20))
    model.keep_aspect = True
    (found,) = Predictor(model).segment([image], Thresholds(top_k=20))
    assert found.image_hw == hw
    inside = expected.boxes.minimum(torch.tensor([hw[1], hw[0]] * 2))
    torch.testing.assert_close(found.boxes, inside)
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.masks, expected.masks[:, : hw[0], : hw[1]])


def test_training_needs_targets() -> None:
    model = build().train()
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        model(batch(64)[0])


def test_what_a_model_finds_has_no_gradients() -> None:
    for found in build().eval()(batch(64)[0]):
        assert not any(part.requires_grad for part in found._tensors().values())


def read_only(image: Image) -> Image:
    image = image.copy()
    image.flags.writeable = False
    return image


@pytest.mark.parametrize(
    "view",
    [
        read_only,
        lambda image: image[::-1].copy()[::-1],
        lambda image: image[..., ::-1].copy()[..., ::-1],  # as OpenCV's BGR
        np.asfortranarray,
    ],
)
@pytest.mark.filterwarnings("error")
def test_arrays_of_any_memory_are_taken(view: Callable[[Image], Image]) -> None:
    image = ShapeScenes(1, 64).sample(0).image
    predictor = Predictor(build())
    found, expected = predictor(view(image), 0.0, 5), predictor(image, 0.0, 5)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.boxes, expected.boxes)


def test_batch_norm_is_frozen_and_thawed_and_nothing_else_is() -> None:
    model = build().freeze_batch_norm(False)
    first = model.network.backbone.bn1
    first.weight.requires_grad_(False)  # by the user, for reasons of theirs
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    images, targets = batch(64)
    before = first.running_mean.clone()

    model.freeze_batch_norm().freeze_batch_norm().train()
    assert model.training and not first.training
    frozen = learned - {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(frozen) == 39  # weight and bias of 20, less the one that was frozen before
    model(images, targets)
    assert torch.equal(first.running_mean, before)
    for mode in (False, True):
        model.train(mode)
        assert not any(p.requires_grad for n, p in model.named_parameters() if n in frozen)

    model.freeze_batch_norm(False)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learned
    model(images, targets)
    assert not torch.equal(first.running_mean, before)


@pytest.mark.parametrize("frozen", [False, True])
def test_switching_to_evaluation_asks_for_no_gradients(frozen: bool) -> None:
    model = build().freeze_batch_norm(frozen).requires_grad_(False)
    for mode in (False, True):
        assert not any(p.requires_grad for p in model.train(mode).parameters())


def test_scores_never_exceed_one() -> None:
    """However much overlap a rescorer predicts."""
    model = build(RESCORED)
    assert model.mask_rescorer is not None
    torch.nn.init.constant_(model.mask_rescorer.classify.bias, 1000.0)
    found = Predictor(model).find_all(ShapeScenes(1, 64).sample(0).image)
    assert len(found) == 100
    assert (found.scores == 1).all() and (found.box_scores < 1).all()


def test_a_score_counts_how_clear_the_mask_is() -> None:
    found = Predictor(build(("detect.refit=True",))).find_all(ShapeScenes(1, 64).sample(0).image)
    assert len(found) == 100
    assert (found.scores[:-1] >= found.scores[1:]).all()
    assert (found.scores < found.box_scores).any()
    expected = found.box_scores * mask_confidence(found.soft_masks)
    torch.testing.assert_close(found.scores, expected)


@pytest.mark.parametrize(
    ("mode", "full"), [("cropped", False), ("smooth", False), ("whole", True), ("none", False)]
)
def test_mask_modes(mode: str, full: bool) -> None:
    model = build()
    model.mask_mode = mode  # type: ignore[assignment]
    found = Predictor(model)(ShapeScenes(1, 64).sample(0).image, score_threshold=0.0, top_k=5)
    assert len(found) == 5
    outside = torch.tensor([(m > 0).float().mean() for m in found.soft_masks])
    assert bool((outside == 1).all()) == full
    if mode == "none":
        assert not found.masks.any()


@pytest.mark.parametrize("count", [0, 40])
@pytest.mark.parametrize("image_hw", [(50, 70), (333, 200)])
def test_smooth_masks_are_whole_ones_cut_in_the_image(
    count: int, image_hw: tuple[int, int]
) -> None:
    rng = torch.Generator().manual_seed(0)
    prototypes = torch.randn(1, 16, 20, 24, generator=rng)
    boxes = torch.rand(count, 4, generator=rng) * 1.4 - 0.2  # corners in any order, or outside
    found = Candidates(
        boxes, torch.ones(count), torch.zeros(count).long(), torch.randn(count, 16, generator=rng)
    )
    model = build()
    results = {}
    for mode in ("smooth", "whole"):
        model.mask_mode = mode  # type: ignore[assignment]
        results[mode] = model.assemble(found, prototypes[0], image_hw, Thresholds())
    expected = results["whole"].masks
    for mask, box in zip(expected, results["whole"].boxes.round().int().tolist(), strict=True):
        x1, y1, x2, y2 = box
        inside = mask[y1:y2, x1:x2].clone()
        mask.zero_()
        mask[y1:y2, x1:x2] = inside
    smooth = results["smooth"]
    assert (smooth.masks == expected).all()
    assert smooth.crop_to_boxes and smooth[:3].crop_to_boxes and smooth.to("cpu").crop_to_boxes
    assert smooth.masks.any() == (count > 0)


def test_rescoring_sees_cropped_masks_of_smooth_ones() -> None:
    image = ShapeScenes(1, 64).sample(0).image
    model = build(RESCORED)
    found = []
    for mode in ("cropped", "smooth"):
        model.mask_mode = mode  # type: ignore[assignment]
        found += Predictor(model).segment([image], Thresholds(top_k=20))
    torch.testing.assert_close(found[0].scores, found[1].scores)
    assert found[0].scores.unique().numel() > 1
