"""Categories: sorted, checked, and matched to those of a model."""

from __future__ import annotations

import pytest

from data.classes import COCO_CLASSES, PASCAL_CLASSES, Categories


def test_no_categories() -> None:
    empty = Categories.from_coco_json([])
    assert len(empty) == 0
    assert empty.label_of == {}


def test_known_classes() -> None:
    assert len(COCO_CLASSES) == 80
    assert COCO_CLASSES.label_of[1] == 0
    assert COCO_CLASSES.label_of[13] == COCO_CLASSES.names.index("stop sign") == 11
    assert COCO_CLASSES.label_of[90] == COCO_CLASSES.names.index("toothbrush") == 79
    assert PASCAL_CLASSES.category_ids == tuple(range(1, 21))
    assert PASCAL_CLASSES.names[14] == "person"


def test_categories_are_sorted_by_id() -> None:
    categories = Categories.from_coco_json([{"id": 7, "name": "b"}, {"id": 0, "name": "a"}])
    assert categories == Categories(("a", "b"), (0, 7))
    assert categories.label_of == {0: 0, 7: 1}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["cat"], "'id'"),
        ([{"name": "cat"}], "'id'"),
        ([{"id": "1", "name": "cat"}], "'id'"),
        ([{"id": 1}], "'name'"),
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}], "twice"),
    ],
)
def test_bad_categories(entries: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Categories.from_coco_json(entries)


@pytest.mark.parametrize(
    ("own", "wanted", "ids", "labels"),
    [
        (Categories((), ()), Categories.from_names(["cat"]), (1,), {}),
        # by name, whatever the case and the order; the widget is unknown to the model
        (
            Categories(("Dog", "widget", "cat"), (3, 4, 9)),
            Categories.from_names(["cat", "horse", "dog"]),
            (9, 11, 3),
            {9: 0, 3: 2},
        ),
        # classes that differ in case
        (Categories(("cat", "Cat"), (1, 2)), Categories.from_names(["cat"]), (1,), {1: 0}),
        (Categories(("CAT", "Cat"), (1, 2)), Categories(("cat",), (9,)), (3,), {}),
        (
            Categories(("a", "A", "b"), (1, 2, 3)),
            Categories.from_names(["A", "a", "b", "B"]),
            (2, 1, 3, 7),
            {1: 1, 2: 0, 3: 2},
        ),
        # by id, since no name agrees
        (
            Categories(("Hund", "Katze"), (18, 17)),
            Categories(("cat", "dog"), (17, 18)),
            (17, 18),
            {18: 1, 17: 0},
        ),
    ],
)
def test_matched_to(
    own: Categories, wanted: Categories, ids: tuple[int, ...], labels: dict[int, int]
) -> None:
    assert own.matched_to(wanted) == (Categories(wanted.names, ids), labels)
