"""Labels that a model contradicts, the likeliest mistakes first.

As ObjectLab does for boxes (Tkachenko, Thyagarajan and Mueller 2023): an object may be overlooked,
badly placed or of another class; here a label may also show nothing. As in confident learning
(Northcutt, Jiang and Chuang 2021), how far the model is to be trusted is measured on the labels
themselves, most of which are right: of detections of a score, how many have a label; of labels of a
size, how many are found; of one class, how many look like another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from .views import Label, Seen, View, moved_overlap

Kind = Literal["swapped", "shifted", "missing", "spurious"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FITTED = 0.7  # of the trust in a detection: the rest is its own score, which orders equal ones
_ALIKE = 0.45  # overlap of masks from which a detection shows a label of another class
_TOUCHES = 0.02
_MOVED, _GAIN = 0.5, 0.15  # overlap of a label once moved, and what that gains at least
_LOOSE = 0.8  # overlap below which a label that was found may be shifted all the same
_RARELY = 0.25  # how often what a model does not see is not there, next to its other complaints


class Suspect(NamedTuple):
    """A label that is probably wrong, or lacks.

    Attributes:
        score: in [0, 1], to rank by.
        kind: "swapped": of another class; "shifted": in another place; "missing": seen by the
            model only; "spurious": seen by the annotator only.
        split: which part of the dataset.
        image: its index in it.
        label: what is annotated; None for "missing".
        seen: what the model sees there; None for "spurious".
    """

    score: float
    kind: Kind
    split: str
    image: int
    label: Label | None
    seen: Seen | None

    @property
    def box(self) -> list[float]:
        """x, y, width, height in pixels of what is suspected."""
        shown = self.label or self.seen
        return shown.box if shown else []

    def told(self) -> str:
        """Say what is annotated, and what the model sees."""
        label = f"labelled {self.label.name}" if self.label else "no label"
        seen = f"{self.seen.name} {self.seen.score:.2f}" if self.seen else "none"
        return f"{label}, the model sees {seen}"


class _Trust(NamedTuple):
    """What the labels say of the model.

    Attributes:
        of_score: how many detections of this score have a label.
        of_side: how many labels of this relative side are found.
        of_pair: class of a label, class of a detection -> sum of the evidence that such labels
            look like that.
        counts: labels of each class.
    """

    of_score: Callable[[float], float]
    of_side: Callable[[float], float]
    of_pair: dict[tuple[str, str], float]
    counts: dict[str, int]

    def rarity(self, label: str, seen: str, evidence: float) -> float:
        """Return 1 for a label whose likes never look like another class, down to 0."""
        others = max(self.of_pair[label, seen] - evidence, 0) / max(self.counts[label] - 1, 1)
        return max(0.0, 1 - 3 * others)


def find_suspects(views: Sequence[View], known: Sequence[str]) -> list[Suspect]:
    """Rank the labels that a model contradicts.

    Args:
        views: of all images: what is trusted is measured on them.
        known: names of the classes that the model and the data share; labels of other classes are
            suspected only where the model sees a shared one in their place.
    """
    names = set(known)
    trust = _measured(views, names)
    found = [suspect for view in views for suspect in _of_view(view, names, trust)]
    return sorted(found, key=lambda suspect: -suspect.score)


def _measured(views: Sequence[View], known: set[str]) -> _Trust:
    scores, sides = [], []
    pairs: dict[tuple[str, str], float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for view in views:
        met = set(view.matches.values())
        for number, seen in enumerate(view.seen):
            if not view.is_in_crowd[number]:
                scores.append((seen.score, number in view.matches))
        for number, label in enumerate(view.labels):
            counts[label.name] += 1
            if label.name in known:
                sides.append((view.relative_side(number), number in met))
            for name, value in _evidence(view, number).items():
                pairs[label.name, name] += value
    return _Trust(_rising(scores), _rising(sides), pairs, counts)


def _evidence(view: View, label: int) -> dict[str, float]:
    """Return how much a label looks like other classes, of the detections that found none."""
    found: dict[str, float] = defaultdict(float)
    for number, seen in enumerate(view.seen):
        overlap = view.mask_overlaps[number, label]
        if number not in view.matches and not view.is_same[number, label] and overlap >= 0.3:
            found[seen.name] = max(found[seen.name], seen.score * overlap**0.5)
    return found


def _of_view(view: View, known: set[str], trust: _Trust) -> Iterator[Suspect]:
    """Compare what a model sees with the labels of an image."""
    taken = {label: view.seen[number].score for number, label in view.matches.items()}
    for number, found in view.matches.items():
        if view.overlaps[number, found] < _LOOSE:
            yield from _shifted(view, number, found, trust, (_MOVED + 0.1, _GAIN + 0.05))
    for number in range(len(view.seen)):
        if number in view.matches or view.is_in_crowd[number]:
            continue
        suspect = _unlabelled(view, number, taken, trust)
        if suspect.label is not None:
            taken[view.labels.index(suspect.label)] = 1.0
        yield suspect
    for number, label in enumerate(view.labels):
        if number not in taken and label.name in known:
            scores = np.array([seen.score for seen in view.seen])
            sees = (scores * view.overlaps[:, number] * view.is_same[:, number]).max(initial=0.0)
            doubt = trust.of_side(view.relative_side(number)) * (1 - float(sees))
            yield Suspect(doubt * _RARELY, "spurious", view.split, view.image, label, None)


def _unlabelled(view: View, number: int, taken: Mapping[int, float], trust: _Trust) -> Suspect:
    """Explain a detection that has found no label: by one of another class, one close by, none.

    Args:
        view: of the image.
        number: of the detection.
        taken: label -> score of the detection that has found it.
        trust: in the model.
    """
    seen = view.seen[number]
    sure = _FITTED * trust.of_score(seen.score) + (1 - _FITTED) * seen.score
    alike = view.mask_overlaps[number]
    others = [
        x
        for x in range(len(view.labels))
        if not view.is_same[number, x] and alike[x] >= _ALIKE
        if taken.get(x, 0) < seen.score / 2
    ]
    if others:
        label = max(others, key=lambda x: alike[x])
        name = view.labels[label].name
        rarity = trust.rarity(name, seen.name, _evidence(view, label).get(seen.name, 0.0))
        score = sure * rarity * min(1.0, 1.3 * alike[label]) * (1 - taken.get(label, 0))
        return Suspect(score, "swapped", view.split, view.image, view.labels[label], seen)
    touched = np.flatnonzero(view.is_same[number] & (view.overlaps[number] > _TOUCHES)).tolist()
    near = [x for x in touched if x not in taken]
    shifts = [s for x in near for s in _shifted(view, number, x, trust, (_MOVED, _GAIN))]
    if shifts:
        return max(shifts, key=lambda suspect: suspect.score)
    # What lies in a label is explained by it: a part of an object, or what it is taken for.
    known = view.overlaps[number][view.is_same[number]].max(initial=0)
    explained = max(known, min(1.0, view.covered[number].sum()))
    score = sure * (1 - explained)
    return Suspect(score, "missing", view.split, view.image, None, seen)


def _shifted(
    view: View, number: int, label: int, trust: _Trust, limits: tuple[float, float]
) -> Iterator[Suspect]:
    """Suspect a label that would fit the detection much better elsewhere."""
    seen, overlap = view.seen[number], view.mask_overlaps[number, label]
    moved = moved_overlap(view.labels[label].mask, seen.mask)
    if moved < limits[0] or moved - overlap < limits[1]:
        return
    sure = _FITTED * trust.of_score(seen.score) + (1 - _FITTED) * seen.score
    # Two say so: a detection without a label, and a label without a detection.
    sure = 1 - (1 - sure) * (1 - 0.5 * trust.of_side(view.relative_side(label)))
    score = sure * min(1.0, 1.4 * moved) * (1 - overlap)
    yield Suspect(score, "shifted", view.split, view.image, view.labels[label], seen)


def _rising(pairs: Sequence[tuple[float, bool]]) -> Callable[[float], float]:
    """Fit how often something is true by a line that never falls: isotonic regression.

    Args:
        pairs: values, and whether it is true for them; of none it is always half true.
    """
    if not pairs:
        return lambda value: 0.5
    from scipy.optimize import isotonic_regression

    values, is_true = np.array(sorted(pairs), np.float64).T
    means = isotonic_regression(is_true).x
    return lambda value: float(np.interp(value, values, means))
