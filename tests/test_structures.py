from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from layers.structures import Candidates, Target
from yolact.results.detections import Detections

Part = Target | Candidates | Detections


def target(count: int) -> Target:
    return Target(
        boxes=torch.rand(count, 4),
        labels=torch.arange(count),
        masks=torch.rand(count, 8, 8) > 0.5,
        is_crowd=torch.arange(count) % 2 == 1,
    )


def candidates(count: int) -> Candidates:
    return Candidates(
        boxes=torch.rand(count, 4),
        scores=torch.linspace(1, 0, count),
        labels=torch.arange(count),
        coefficients=torch.rand(count, 3),
    )


def detections(count: int) -> Detections:
    return Detections(
        boxes=torch.rand(count, 4) * 8,
        scores=torch.linspace(1, 0, count),
        labels=torch.arange(count) % 3,
        soft_masks=torch.rand(count, 4, 4),
        mask_frames=torch.tensor([0.0, 0.0, 9.0, 6.0]).expand(count, 4),
        box_scores=torch.linspace(1, 0, count),
        image_hw=(6, 9),
        class_names=("ant", "bee", "cat"),
    )


MAKERS = [target, candidates, detections]
ids = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


def tensors(part: Part) -> dict[str, torch.Tensor]:
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


@ids
@pytest.mark.parametrize("count", [0, 1, 5])
def test_length(make: Any, count: int) -> None:
    assert len(make(count)) == count


@ids
def test_lengths_must_agree(make: Any) -> None:
    part = make(3)
    for name, value in tensors(part).items():
        with pytest.raises(ValueError, match=rf"{type(part).__name__}.*{name}.*2"):
            replace(part, **{name: value[:2]})


@ids
def test_parts_are_frozen(make: Any) -> None:
    with pytest.raises(AttributeError):
        make(1).boxes = torch.zeros(1, 4)


INDICES: list[tuple[Any, list[int]]] = [
    ([], []),
    (slice(0, 0), []),
    (torch.zeros(5, dtype=torch.bool), []),
    (np.zeros(0), []),
    (0, [0]),
    (-1, [4]),
    (np.int64(3), [3]),
    (torch.tensor(3), [3]),
    (slice(None), [0, 1, 2, 3, 4]),
    (slice(1, 4), [1, 2, 3]),
    (slice(None, None, 2), [0, 2, 4]),
    (slice(None, None, -1), [4, 3, 2, 1, 0]),
    ([3, 1], [3, 1]),
    ([2, 2], [2, 2]),
    ((0, 1), [0, 1]),
    ([True, False, False, True, False], [0, 3]),
    ([False] * 5, []),
    (range(1, 3), [1, 2]),
    (torch.zeros(0, dtype=torch.int64), []),
    (torch.tensor([[1], [-1]]), [1, 4]),
    (torch.tensor([4, 0]), [4, 0]),
    (torch.tensor([True, False, False, False, True]), [0, 4]),
    (np.array([4, 0], dtype=np.int32), [4, 0]),
    (np.array([0, 4])[::-1], [4, 0]),
    (np.array([False, True, False, False, False]), [1]),
]


@ids
@pytest.mark.parametrize(("index", "expected"), INDICES, ids=repr)
def test_indexing(make: Any, index: Any, expected: list[int]) -> None:
    part = make(5)
    selected = part[index]
    assert type(selected) is type(part)
    assert len(selected) == len(expected)
    for name, value in tensors(part).items():
        assert getattr(selected, name).shape == (len(expected), *value.shape[1:])
        assert (getattr(selected, name) == value[expected]).all(), name


@ids
@pytest.mark.parametrize("index", [[], slice(None), torch.zeros(0, dtype=torch.bool)], ids=repr)
def test_indexing_nothing(make: Any, index: Any) -> None:
    assert len(make(0)[index]) == 0


@ids
@pytest.mark.parametrize(("count", "index"), [(0, 0), (0, -1), (5, 5), (5, -6), (5, [5])])
def test_index_out_of_range(make: Any, count: int, index: Any) -> None:
    with pytest.raises(IndexError):
        make(count)[index]


@ids
@pytest.mark.parametrize("count", [0, 5])
@pytest.mark.parametrize(
    "mask",
    [[True] * 4, np.ones(4, bool), torch.ones(4, dtype=torch.bool), np.ones(6, bool), [False]],
)
def test_a_boolean_mask_must_have_the_length(make: Any, count: int, mask: Any) -> None:
    with pytest.raises(IndexError):
        make(count)[mask]


@ids
@pytest.mark.parametrize("mask", [np.zeros(0, bool), torch.zeros(0, dtype=torch.bool)])
def test_an_empty_mask_is_for_an_empty_group(make: Any, mask: Any) -> None:
    assert len(make(0)[mask]) == 0
    with pytest.raises(IndexError):
        make(5)[mask]


@ids
@pytest.mark.parametrize("index", [1, [0, 2], slice(1, 3), torch.tensor([2, 0])], ids=repr)
def test_indexing_where_the_group_is(make: Any, index: Any) -> None:
    # The index comes from the CPU, the group is elsewhere.
    part = make(3).to("meta")
    assert len(part[index]) == len(make(3)[index])
    assert {value.device.type for value in tensors(part[index]).values()} == {"meta"}


@ids
def test_groups_are_compared_as_things(make: Any) -> None:
    group = make(3)
    assert group == group
    assert (group == make(3), group in [make(3), group], len({group, make(3)})) == (False, True, 2)


@ids
def test_a_selection_is_a_copy(make: Any) -> None:
    part = make(2)
    part[:1].boxes.fill_(7)
    assert (part.boxes != 7).all()


@pytest.mark.parametrize("count", [0, 2])
def test_pinning_takes_every_tensor(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    # Needs a GPU, so a double stands for it.
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 0)
    part = target(count)
    pinned = part.pin_memory()
    assert all(getattr(pinned, name) is not value for name, value in tensors(part).items())
    assert [len(pinned), pinned.masks.shape] == [count, part.masks.shape]


@pytest.mark.parametrize("count", [0, 3])
def test_detections_keep_the_image_when_indexed(count: int) -> None:
    selected = detections(count)[:1]
    assert selected.image_hw == (6, 9)
    assert selected.class_names == ("ant", "bee", "cat")
    assert selected.masks.shape == (min(count, 1), 6, 9)


@pytest.mark.parametrize(("count", "names"), [(0, []), (4, ["ant", "bee", "cat", "ant"])])
def test_names(count: int, names: list[str]) -> None:
    assert detections(count).names() == names


@pytest.mark.parametrize("count", [0, 3])
def test_iteration(count: int) -> None:
    many = detections(count)
    singles = list(many)
    assert [len(single) for single in singles] == [1] * count
    assert [single.scores.item() for single in singles] == many.scores.tolist()
    assert [single.names()[0] for single in singles] == many.names()


@pytest.mark.parametrize("make", [target, detections], ids=["target", "detections"])
@pytest.mark.parametrize("count", [0, 2])
def test_to(make: Any, count: int) -> None:
    part = make(count)
    same = part.to("cpu")
    assert all((getattr(same, name) == value).all() for name, value in tensors(part).items())
    moved = part.to(torch.device("meta"))
    assert {value.device.type for value in tensors(moved).values()} == {"meta"}
    assert len(moved) == count
    assert {value.device.type for value in tensors(part).values()} == {"cpu"}


def test_masks_are_made_on_each_access() -> None:
    part = detections(2)
    part.masks.fill_(True)
    assert not part.masks.all()
