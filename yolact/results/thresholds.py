"""Which detections count, and the one place that checks what a user says about it."""

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
        score: those that score lower are dropped; 0 to 1.
        top_k: at most this many are kept, best first; at least 1, None keeps all.
        labels: those of other classes are dropped; None keeps all.
        drop_empty: so are those whose mask has no pixel, before `top_k` counts.
        min_area: so are those whose mask has fewer pixels, likewise.

    Raises:
        OptionError: a value out of its range.
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
        """Return what counts where people look, with the model's own score unless told.

        Args:
            own_score: the model's.
            class_names: the model's.
            score_threshold: None for the model's own.
            top_k: None for no limit.
            classes: names or labels; None for all.

        Raises:
            OptionError: a value out of its range, or an unknown class.
        """
        score = own_score if score_threshold is None else score_threshold
        labels = None if classes is None else labels_of(classes, class_names)
        return cls(score, top_k, labels, drop_empty=True)

    def admit(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mark the (N,) detections with a score and a class that count."""
        admitted = scores >= self.score
        if self.labels is None:
            return admitted
        return admitted & (labels[:, None] == tensor_like(labels, self.labels)).any(dim=1)

    def select(self, found: InstancesT) -> InstancesT:
        """Return what counts of the N objects that are found, best first."""
        counts = self.admit(found.scores, found.labels)
        if self.drop_empty:
            counts = counts & found.has_pixels()
        if self.min_area > 1:
            counts = counts & (found.areas >= self.min_area)
        kept = counts.nonzero().squeeze(1)[: self.top_k]  # sync: on the CPU
        return found if len(kept) == len(found) else found[kept]


def check_count(option: str, value: Any, choice: str = "") -> None:
    """Refuse what counts nothing; `choice` tells what else there is.

    Raises:
        OptionError: not a whole number from 1 on.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not (is_whole and int(value) >= 1):
        expected = f"expected a whole number, at least 1{choice and ', ' + choice}"
        raise OptionError(option, value, expected)


def labels_of(classes: Iterable[str | int], class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the labels of classes that are given by name or label.

    A number is a label, and so is a text of digits that no class is called. A name stands for all
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
