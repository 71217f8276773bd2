"""Weights of classes that a checkpoint has learned, in a model that has others beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny_mask_rcnn import small_config
from torch import Tensor
from torch.testing import assert_close

from yolact import Config, Yolact, build_model, get_config
from yolact.checkpoint import Checkpoint, load_matching_weights
from yolact.training.pretrained import keep_known_classes

PARTS = ("network.head.classes", "network.semantic")
TENSORS = tuple(f"{part}.{kind}" for part in PARTS for kind in ("weight", "bias"))


def config_of(names: tuple[str, ...]) -> Config:
    small = ("fpn_channels=8", "prototype_channels=8", "head_channels=8", "image_size=64")
    settings = [f"model.{setting}" for setting in small]
    return get_config("yolact_resnet18").override(*settings).with_classes(names)


def random_model(names: tuple[str, ...], seed: int) -> Yolact:
    torch.manual_seed(seed)
    model = build_model(config_of(names))
    for name in TENSORS:
        model.state_dict()[name].normal_()
    return model


def logits(model: Yolact) -> tuple[Tensor, Tensor]:
    """Class logits (P, C + 1), the background first, and the semantic ones (C, h, w)."""
    torch.manual_seed(5)
    found = model.train().network(torch.rand(1, 3, 64, 64))
    assert found.semantic_logits is not None
    return found.class_logits[0], found.semantic_logits[0]


@pytest.mark.parametrize(
    ("before", "now", "shared"),
    [
        (("a",), ("b", "c"), {}),
        (("a",), ("a", "b"), {"a": "a"}),
        (("a",), ("b", "A", "c"), {"A": "a"}),
        (("a", "b", "c"), ("c",), {"c": "c"}),
        (("a", "b", "c"), ("d", "c", "e", "a"), {"a": "a", "c": "c"}),
        (("A", "a", "b"), ("a", "c"), {"a": "a"}),
        (("a", "b", "c"), ("b", "d", "a"), {"b": "b", "a": "a"}),
        (("a", "b"), ("b", "a"), {"b": "b", "a": "a"}),
    ],
)
def test_known_classes_are_found_as_before(
    before: tuple[str, ...], now: tuple[str, ...], shared: dict[str, str]
) -> None:
    theirs, model = random_model(before, 0), random_model(now, 1)
    checkpoint = Checkpoint(Path("a_1_2.pth"), theirs.state_dict(), False, config_of(before))
    load_matching_weights(model, checkpoint)
    assert keep_known_classes(model, now, checkpoint) == (TENSORS if shared else ())
    with torch.no_grad():
        (classes, maps), (their_classes, their_maps) = logits(model), logits(theirs)
    for name, their_name in shared.items():
        ours, their_label = now.index(name), before.index(their_name)
        assert_close(classes[:, ours + 1], their_classes[:, their_label + 1])
        assert_close(maps[ours], their_maps[their_label])
    if shared:
        new = [label for label, name in enumerate(now) if name not in shared]
        assert_close(classes[:, 0], their_classes[:, 0])
        assert not classes[:, [label + 1 for label in new]].any()
        assert not maps[new].any()


@pytest.mark.parametrize("now", [("b", "a", "d"), ("b", "c")])
def test_the_quality_of_masks_goes_with_its_class(now: tuple[str, ...]) -> None:
    before = ("a", "b", "c")
    theirs, model = (
        build_model(config_of(names).override("model.mask_rescoring=True", "model.image_size=256"))
        for names in (before, now)
    )
    checkpoint = Checkpoint(Path("a_1_2.pth"), theirs.state_dict(), False, config_of(before))
    load_matching_weights(model, checkpoint)
    keep_known_classes(model, now, checkpoint)
    for part in ("weight", "bias"):
        ours, known = (
            each.state_dict()[f"mask_rescorer.classify.{part}"] for each in (model, theirs)
        )
        for name in set(now) & set(before):
            assert torch.equal(ours[now.index(name)], known[before.index(name)])
        assert part == "bias" or ours.flatten(1).any(dim=1).all()  # by ReLU, 0 would stay 0


@pytest.mark.parametrize("now", [("a", "b"), ("A", "b"), ("c", "d")])
def test_the_same_classes_and_as_many_unknown_ones_are_left_alone(now: tuple[str, ...]) -> None:
    theirs, model = random_model(("a", "b"), 0), random_model(now, 1)
    checkpoint = Checkpoint(Path("a_1_2.pth"), theirs.state_dict(), False, config_of(("a", "b")))
    assert keep_known_classes(model, now, checkpoint) == ()


def test_a_file_that_does_not_tell_its_classes() -> None:
    model, theirs = random_model(("a", "b"), 0), random_model(("a",), 1)
    checkpoint = Checkpoint(Path("renamed.pth"), theirs.state_dict(), False)
    assert keep_known_classes(model, ("a", "b"), checkpoint) == ()


def test_classes_of_mask_rcnn_are_known_by_name_too() -> None:
    before, now = ("a", "b", "c"), ("b", "d", "a")
    config = small_config().with_classes(before)
    model = build_model(small_config().with_classes(now))
    state = {
        name: torch.rand(value.shape) + 1
        for name, value in build_model(config).state_dict().items()
    }
    checkpoint = Checkpoint(Path("a_1_2.pth"), state, False, config)
    kept = keep_known_classes(model, now, checkpoint)
    assert len(kept) == 6
    for name in kept:
        rows, their_rows = (
            value.view(4, -1, *value.shape[1:]) for value in (model.state_dict()[name], state[name])
        )
        assert torch.equal(rows[[0, 1, 3]], their_rows[[0, 2, 1]])  # background, b, a
        assert not rows[2].any()
