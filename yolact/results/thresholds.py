"""Which detections count, and the checks of a user's values for that."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from layers.instances import InstancesT
from layers.structures import tensor_like
from yolact.errors import OptionError


@dataclass(frozen=True)
class Thresholds:
    """The detections that count.

    Attributes:
        score: minimum score, 0 to 1.
        top_k: maximum number to keep, best first; at least 1, None for all.
        labels: labels of the classes to keep; None for all.
        drop_empty: drop detections whose mask has no pixel, before `top_k` applies.
        min_area: minimum number of mask pixels; applied before `top_k`.

    Raises:
        OptionError: a value out of range.
    """

    score: float = 0.0
    top_k: int | None = None
    labels: tuple[int, ...] | None = None
    drop_empty: bool = False
    min_area: int = 0

    def __post_init__(self) -> None:
        is_number = isinstance(self.score, Real) and not isinstance(self.score, bool)
        if not (is_number and 0 <= float(self.score) <= 1):  # not NaN either
            raise OptionError("score_threshold", self.score, "expected a number from 0 to 1")
        if self.top_k is not None:
            check_count("top_k", self.top_k)

    @classmethod
    def for_pictures(
        cls,
        own_score: float,
        class_names: Sequence[str],
        score_threshold: float | None = None,
        top_k: int | None = None,
        classes: Iterable[str | int] | None = None,
    ) -> Thresholds:
        """Return the thresholds for pictures, by default with the model's own score threshold.

        Args:
            own_score: score threshold of the model.
            class_names: class names of the model.
            score_threshold: minimum score; None for the model's own.
            top_k: maximum number to keep; None for no limit.
            classes: names or labels to keep; None for all.

        Raises:
            OptionError: a value out of range, or an unknown class.
        """
        score = own_score if score_threshold is None else score_threshold
        labels = None if classes is None else labels_of(classes, class_names)
        return cls(score, top_k, labels, drop_empty=True)

    def admit(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Tell which detections have a score and a class that count, (N,) bool."""
        admitted = scores >= self.score
        if self.labels is None:
            return admitted
        return admitted & (labels[:, None] == tensor_like(labels, self.labels)).any(dim=1)

    def select(self, found: InstancesT) -> InstancesT:
        """Return those of N objects that count, best first."""
        counts = self.admit(found.scores, found.labels)
        if self.drop_empty:
            counts = counts & found.has_pixels()
        if self.min_area > 1:
            counts = counts & (found.areas >= self.min_area)
        kept = counts.nonzero().squeeze(1)[: self.top_k]  # sync: on the CPU
        return found if len(kept) == len(found) else found[kept]


def check_count(option: str, value: Any, choice: str = "") -> None:
    """Refuse a value that is not a positive count; `choice` names an alternative in the message.

    Raises:
        OptionError: not a whole number from 1 on.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not (is_whole and int(value) >= 1):
        expected = f"expected a whole number, at least 1{choice and ', ' + choice}"
        raise OptionError(option, value, expected)


def labels_of(classes: Iterable[str | int], class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the labels of classes that are given by name or label.

    A number is a label, and so is a text of digits that is not a class name. A name stands for all
    classes of that name.

    Raises:
        OptionError: no such class; the message names the nearest one.
    """
    numbers = {str(label): [label] for label in range(len(class_names))}
    named: dict[str, list[int]] = {}
    for label, name in enumerate(class_names):
        named.setdefault(name, []).append(label)
    texts = numbers | named
    labels: set[int] = set()
    for each in [classes] if isinstance(classes, (str, Integral)) else classes:
        known = numbers if isinstance(each, Integral) else texts
        if str(each) not in known:
            raise OptionError("classes", each, f"no such class{_choices(str(each), class_names)}")
        labels.update(known[str(each)])
    return tuple(sorted(labels))


def _choices(name: str, class_names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, class_names, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint}; there are {', '.join(class_names)}"
