"""Labels that a model contradicts: each kind planted, and none in clean data."""

from __future__ import annotations

import numpy as np
import pytest

from data.annotations.run_lengths import encode
from data.classes import Categories
from data.sample import RunLengths
from yolact.doctor.image_comparison import (
    Detection,
    ImageComparison,
    Label,
    aligned_overlap,
    labels_of,
)
from yolact.doctor.model_comparison import shared_classes
from yolact.doctor.suspects import Suspect, find_suspects

HW = (100, 120)
Rectangle = tuple[int, int, int, int]
A, B, C = (10, 10, 40, 60), (60, 10, 100, 50), (70, 60, 110, 95)
A_MOVED, BETWEEN, BEYOND = (22, 10, 52, 60), (13, 10, 43, 60), (16, 10, 46, 60)


def mask(box: Rectangle) -> RunLengths:
    bitmap = np.zeros(HW, np.uint8)
    bitmap[box[1] : box[3], box[0] : box[2]] = 1
    return encode(bitmap)


def sized(box: Rectangle) -> list[float]:
    x1, y1, x2, y2 = box
    return [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]


def seen(name: str, box: Rectangle, score: float = 0.95) -> Detection:
    return Detection(name, score, sized(box), mask(box))


def view(
    detections: list[Detection],
    labels: list[tuple[str, Rectangle]],
    crowds: list[tuple[str, Rectangle]] | None = None,
) -> ImageComparison:
    kinds = [
        tuple(Label(name, place, sized(box), mask(box)) for place, (name, box) in enumerate(part))
        for part in (labels, crowds or [])
    ]
    return ImageComparison("train", 3, HW, tuple(detections), *kinds)


RIGHT = view([seen("cat", A), seen("dog", B, 0.8)], [("cat", A), ("dog", B)])


def suspects(one: ImageComparison) -> list[Suspect]:
    """Among twenty images without a mistake."""
    return find_suspects([*[RIGHT] * 20, one], ["cat", "dog"])


@pytest.mark.parametrize(
    "views",
    [
        [],
        [view([], [])],
        [RIGHT],
        [RIGHT] * 5,
        [view([seen("cat", A)], [], [("cat", (0, 0, 90, 90))])],  # in a crowd
        [view([], [("horse", A)])],  # which the model does not know
        # The second detection fits the first label as well as its own.
        [view([seen("cat", A), seen("cat", BETWEEN, 0.9)], [("cat", A), ("cat", BEYOND)])],
    ],
)
def test_nothing_is_suspected(views: list[ImageComparison]) -> None:
    assert find_suspects(views, ["cat", "dog"]) == []


@pytest.mark.parametrize(
    ("detections", "labels", "kind", "label", "found"),
    [
        ([seen("cat", A)], [], "missing", None, "cat"),
        ([seen("cat", A)], [("dog", B)], "missing", None, "cat"),
        ([seen("cat", A)], [("dog", A)], "swapped", "dog", "cat"),
        ([seen("cat", A)], [("horse", A)], "swapped", "horse", "cat"),  # a class it never saw
        ([seen("cat", A), seen("dog", A, 0.4)], [("dog", A)], "swapped", "dog", "cat"),
        ([seen("cat", A)], [("cat", A_MOVED)], "shifted", "cat", "cat"),
        ([], [("cat", A)], "spurious", "cat", None),
    ],
)
def test_each_kind(
    detections: list[Detection],
    labels: list[tuple[str, Rectangle]],
    kind: str,
    label: str | None,
    found: str | None,
) -> None:
    first, *_ = suspects(view(detections, labels))
    assert (first.kind, first.split, first.image) == (kind, "train", 3)
    assert (first.label and first.label.name, first.detection and first.detection.name) == (
        label,
        found,
    )
    assert 0 < first.score <= 1
    assert (label or "no label") in first.describe()


def test_one_mistake_is_told_once() -> None:
    for labels in ([("dog", A)], [("cat", A_MOVED)], []):
        assert len(suspects(view([seen("cat", A)], labels))) == 1


def test_a_surer_model_ranks_higher() -> None:
    views = [view([seen("cat", A, score)], []) for score in (0.4, 0.99, 0.7)]
    found = find_suspects([*[RIGHT] * 20, *views], ["cat", "dog"])
    assert [round(s.detection.score, 2) for s in found if s.detection] == [0.99, 0.7, 0.4]


def test_a_part_of_a_label_is_not_missing() -> None:
    part = view([seen("cat", A), seen("cat", (10, 10, 40, 25), 0.9)], [("cat", A)])
    whole = view([seen("cat", A), seen("cat", C, 0.9)], [("cat", A)])
    (explained,), (missing,) = suspects(part), suspects(whole)
    assert explained.score < 0.05 < 0.8 < missing.score


def test_classes_that_the_model_always_confuses_say_little() -> None:
    """A model that takes all horses for cats: one more horse is no mistake, a lone bus is."""
    horses = [view([seen("cat", A)], [("horse", A)]) for _ in range(10)]
    found = find_suspects([*[RIGHT] * 20, *horses, view([seen("cat", A)], [("bus", A)])], ["cat"])
    first, *others = found
    assert first.label is not None
    assert first.label.name == "bus"
    assert max(suspect.score for suspect in others) < 0.1


def test_a_shift_needs_the_same_shape() -> None:
    narrow = (38, 10, 44, 60)
    kinds = {s.kind for s in suspects(view([seen("cat", A)], [("cat", narrow)]))}
    assert "shifted" not in kinds


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (A, A, 1.0),
        (A, A_MOVED, 1.0),
        ((0, 0, 20, 10), (50, 50, 70, 70), 0.5),
        ((0, 0, 0, 0), A, 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_overlap_once_moved(one: Rectangle, other: Rectangle, expected: float) -> None:
    assert aligned_overlap(mask(one), mask(other)) == expected


def test_labels_of_an_image() -> None:
    box = [10.0, 20.0, 30.0, 40.0]
    part = {"id": 1, "image_id": 1, "category_id": 7, "bbox": box, "area": 1200.0, "iscrowd": 0}
    outlined = {**part, "segmentation": mask((10, 20, 40, 60))}
    parts = [{**part, "segmentation": []}, outlined, {**outlined, "iscrowd": 1}]
    labels, crowds = labels_of(parts, {7: "cat"}, HW)  # type: ignore[arg-type]
    assert [(label.name, label.place) for label in labels] == [("cat", 0), ("cat", 1)]
    assert labels[0].mask == labels[1].mask  # a box alone is its own outline
    assert [crowd.place for crowd in crowds] == [2]
    assert labels_of([], {}, HW) == ((), ())


@pytest.mark.parametrize(
    ("data", "model", "shared"),
    [
        (["cat"], ["cat"], {0: "cat"}),
        (["Cat", "tree"], ["dog", "cat"], {1: "Cat"}),
        (["A", "a"], ["a", "A"], {0: "a", 1: "A"}),  # two classes, each by its own name
        (["A", "a"], ["b", "a"], {1: "a"}),
    ],
)
def test_classes_that_a_model_shares(
    data: list[str], model: list[str], shared: dict[int, str]
) -> None:
    assert shared_classes(Categories.from_names(data), model) == shared


def test_no_class_is_shared_by_its_number() -> None:
    with pytest.raises(ValueError, match="knows none of the classes of the data: it knows dog"):
        shared_classes(Categories.from_names(["cat"]), ["dog"])
