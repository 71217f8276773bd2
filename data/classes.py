"""Class lists: names, 0-based labels, and COCO's sparse category ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypedDict


class Category(TypedDict):
    """An entry of COCO's `categories`."""

    id: int
    name: str


@dataclass(frozen=True)
class Categories:
    """The classes of a dataset, whose labels are their positions.

    Attributes:
        names: one name for each label value.
        category_ids: the annotation file's own id of each.
        absent: numbers among these that stand for classes which the file does not have.

    Raises:
        ValueError: the two differ in length, or an id occurs twice.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    absent: frozenset[int] = field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.category_ids):
            raise ValueError(f"{len(self.names)} names for {len(self.category_ids)} category ids")
        if len(set(self.category_ids)) < len(self.category_ids):
            raise ValueError(f"a category id occurs twice: {list(self.category_ids)}")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Map from category id to 0-based label."""
        return {category_id: label for label, category_id in enumerate(self.category_ids)}

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Categories:
        """Number the classes 1, 2, 3, ..., as COCO files do."""
        return cls(tuple(names), tuple(range(1, len(names) + 1)))

    @classmethod
    def from_coco_json(cls, categories: Sequence[object]) -> Categories:
        """Read the `categories` list of an annotation file, sorted by id.

        Raises:
            ValueError: an entry lacks its `id` or `name`, or an id occurs twice.
        """
        names: list[tuple[int, str]] = []
        for entry in categories:
            if not isinstance(entry, dict) or type(entry.get("id")) is not int:
                raise ValueError(f"a category needs a whole number as its 'id': {entry!r:.80}")
            if not isinstance(entry.get("name"), str):
                raise ValueError(f"category {entry['id']} needs a text as its 'name'")
            names.append((entry["id"], entry["name"]))
        return cls.from_numbers(names)

    @cached_property
    def name_of(self) -> dict[int, str]:
        """Category id -> name."""
        return dict(zip(self.category_ids, self.names, strict=True))

    @cached_property
    def id_of(self) -> dict[str, int]:
        """Name -> category id; of a name that is listed twice, the last one."""
        return dict(zip(self.names, self.category_ids, strict=True))

    @classmethod
    def from_numbers(cls, names: Iterable[tuple[int, str]]) -> Categories:
        """Take over category ids with their names, sorted by id.

        Halves of characters, which JSON can hold but no file, picture or font, become "?".
        """
        ordered = sorted(names, key=lambda pair: pair[0])
        return cls(
            tuple(name.encode("utf-8", "replace").decode() for _, name in ordered),
            tuple(number for number, _ in ordered),
        )

    def to_coco_json(self) -> list[Category]:
        """Return the `categories` list of an annotation file."""
        return [{"id": number, "name": name} for number, name in self.name_of.items()]

    def matched_to(self, other: Categories) -> tuple[Categories, dict[int, int]]:
        """Take over the names and labels of another list of classes, a trained model's.

        Classes are matched by name; where the case differs, by a name that is the only one of its
        kind on either side. Only if not one name agrees, as in a translated file, are they matched
        by id.

        Returns:
            The other's classes with the ids of this file (unused numbers where it has no such
            class), and the label of each category id that both know.
        """
        exact = {name: label for label, name in enumerate(other.names)}
        known = {number: exact[name] for number, name in self.name_of.items() if name in exact}
        taken = set(known.values())
        own = [n for n in self.category_ids if n not in known]
        folded = _only_ones((self.name_of[n], n) for n in own)
        others = _only_ones((n, label) for n, label in exact.items() if label not in taken)
        known |= {number: others[name] for name, number in folded.items() if name in others}
        if not known:
            known = {n: other.label_of[n] for n in self.category_ids if n in other.label_of}
        number_of = {label: number for number, label in known.items()}
        unused = max(self.category_ids, default=0) + 1
        numbers = tuple(number_of.get(label, unused + label) for label in range(len(other)))
        return Categories(other.names, numbers, frozenset(numbers) - known.keys()), known


def _only_ones(names: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return what belongs to each name in lower case, unless several names become one."""
    found: dict[str, list[int]] = {}
    for name, value in names:
        found.setdefault(name.casefold(), []).append(value)
    return {name: values[0] for name, values in found.items() if len(values) == 1}


# fmt: off
COCO_CLASSES = Categories(
    names=(
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
        "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat",
        "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
        "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball",
        "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket",
        "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
        "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake",
        "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop",
        "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
        "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier",
        "toothbrush",
    ),
    category_ids=(
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
        27, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 46, 47, 48, 49, 50, 51,
        52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 67, 70, 72, 73, 74, 75, 76, 77,
        78, 79, 80, 81, 82, 84, 85, 86, 87, 88, 89, 90,
    ),
)
"""COCO's 80 classes, whose ids run from 1 to 90 with gaps."""

PASCAL_CLASSES = Categories.from_names((
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
))
"""Pascal's 20 classes, as the original's conversion of SBD numbers them."""

YOUTUBE_VIS_CLASSES = Categories.from_names((
    "person", "giant_panda", "lizard", "parrot", "skateboard", "sedan", "ape", "dog", "snake",
    "monkey", "hand", "rabbit", "duck", "cat", "cow", "fish", "train", "horse", "turtle",
    "bear", "motorbike", "giraffe", "leopard", "fox", "deer", "owl", "surfboard", "airplane",
    "truck", "zebra", "tiger", "elephant", "snowboard", "boat", "shark", "mouse", "frog",
    "eagle", "earless_seal", "tennis_racket",
))
"""The 40 classes of YouTube-VIS 2019."""

SHAPE_CLASSES = Categories.from_names(
    ("circle", "square", "triangle", "star", "ring", "cross", "heart", "crescent")
)
"""The eight classes of the generated scenes; `data.shapes.drawing` has an outline for each."""
# fmt: on
