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

from .image_comparison import Detection, ImageComparison, Label, aligned_overlap

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
        detection: what the model sees there; None for "spurious".
    """

    score: float
    kind: Kind
    split: str
    image: int
    label: Label | None
    detection: Detection | None

    @property
    def box(self) -> list[float]:
        """x, y, width, height in pixels of what is suspected."""
        shown = self.label or self.detection
        return shown.box if shown else []

    def describe(self) -> str:
        """Say what is annotated, and what the model sees."""
        label = f"labelled {self.label.name}" if self.label else "no label"
        found = f"{self.detection.name} {self.detection.score:.2f}" if self.detection else "none"
        return f"{label}, the model sees {found}"


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

    def rarity(self, label: str, detection: str, evidence: float) -> float:
        """Return 1 for a label whose likes never look like another class, down to 0."""
        others = max(self.of_pair[label, detection] - evidence, 0) / max(self.counts[label] - 1, 1)
        return max(0.0, 1 - 3 * others)


def find_suspects(comparisons: Sequence[ImageComparison], known: Sequence[str]) -> list[Suspect]:
    """Rank the labels that a model contradicts.

    Args:
        comparisons: of all images: what is trusted is measured on them.
        known: names of the classes that the model and the data share; labels of other classes are
            suspected only where the model sees a shared one in their place.
    """
    names = set(known)
    trust = _measure_trust(comparisons, names)
    found = [
        suspect for comparison in comparisons for suspect in _suspects_in(comparison, names, trust)
    ]
    return sorted(found, key=lambda suspect: -suspect.score)


def _measure_trust(comparisons: Sequence[ImageComparison], known: set[str]) -> _Trust:
    scores, sides = [], []
    pairs: dict[tuple[str, str], float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for comparison in comparisons:
        met = set(comparison.matches.values())
        for number, detection in enumerate(comparison.detections):
            if not comparison.is_in_crowd[number]:
                scores.append((detection.score, number in comparison.matches))
        for number, label in enumerate(comparison.labels):
            counts[label.name] += 1
            if label.name in known:
                sides.append((comparison.relative_side(number), number in met))
            for name, value in _evidence(comparison, number).items():
                pairs[label.name, name] += value
    return _Trust(_fit_isotonic(scores), _fit_isotonic(sides), pairs, counts)


def _evidence(comparison: ImageComparison, label: int) -> dict[str, float]:
    """Return how much a label looks like other classes, of the detections that found none."""
    found: dict[str, float] = defaultdict(float)
    for number, detection in enumerate(comparison.detections):
        overlap = comparison.mask_overlaps[number, label]
        if (
            number not in comparison.matches
            and not comparison.is_same[number, label]
            and overlap >= 0.3
        ):
            found[detection.name] = max(found[detection.name], detection.score * overlap**0.5)
    return found


def _suspects_in(comparison: ImageComparison, known: set[str], trust: _Trust) -> Iterator[Suspect]:
    """Compare what a model sees with the labels of an image."""
    taken = {
        label: comparison.detections[number].score for number, label in comparison.matches.items()
    }
    for number, found in comparison.matches.items():
        if comparison.overlaps[number, found] < _LOOSE:
            yield from _shifted(comparison, number, found, trust, (_MOVED + 0.1, _GAIN + 0.05))
    for number in range(len(comparison.detections)):
        if number in comparison.matches or comparison.is_in_crowd[number]:
            continue
        suspect = _unlabelled(comparison, number, taken, trust)
        if suspect.label is not None:
            taken[comparison.labels.index(suspect.label)] = 1.0
        yield suspect
    for number, label in enumerate(comparison.labels):
        if number not in taken and label.name in known:
            scores = np.array([detection.score for detection in comparison.detections])
            sees = (scores * comparison.overlaps[:, number] * comparison.is_same[:, number]).max(
                initial=0.0
            )
            doubt = trust.of_side(comparison.relative_side(number)) * (1 - float(sees))
            yield Suspect(
                doubt * _RARELY, "spurious", comparison.split, comparison.image, label, None
            )


def _unlabelled(
    comparison: ImageComparison, number: int, taken: Mapping[int, float], trust: _Trust
) -> Suspect:
    """Explain a detection that has found no label: by one of another class, one close by, none.

    Args:
        comparison: of the image.
        number: of the detection.
        taken: label -> score of the detection that has found it.
        trust: in the model.
    """
    detection = comparison.detections[number]
    sure = _FITTED * trust.of_score(detection.score) + (1 - _FITTED) * detection.score
    alike = comparison.mask_overlaps[number]
    others = [
        x
        for x in range(len(comparison.labels))
        if not comparison.is_same[number, x] and alike[x] >= _ALIKE
        if taken.get(x, 0) < detection.score / 2
    ]
    if others:
        label = max(others, key=lambda x: alike[x])
        name = comparison.labels[label].name
        rarity = trust.rarity(
            name, detection.name, _evidence(comparison, label).get(detection.name, 0.0)
        )
        score = sure * rarity * min(1.0, 1.3 * alike[label]) * (1 - taken.get(label, 0))
        return Suspect(
            score,
            "swapped",
            comparison.split,
            comparison.image,
            comparison.labels[label],
            detection,
        )
    touched = np.flatnonzero(
        comparison.is_same[number] & (comparison.overlaps[number] > _TOUCHES)
    ).tolist()
    near = [x for x in touched if x not in taken]
    shifts = [s for x in near for s in _shifted(comparison, number, x, trust, (_MOVED, _GAIN))]
    if shifts:
        return max(shifts, key=lambda suspect: suspect.score)
    # What lies in a label is explained by it: a part of an object, or what it is taken for.
    known = comparison.overlaps[number][comparison.is_same[number]].max(initial=0)
    explained = max(known, min(1.0, comparison.covered[number].sum()))
    score = sure * (1 - explained)
    return Suspect(score, "missing", comparison.split, comparison.image, None, detection)


def _shifted(
    comparison: ImageComparison, number: int, label: int, trust: _Trust, limits: tuple[float, float]
) -> Iterator[Suspect]:
    """Suspect a label that would fit the detection much better elsewhere."""
    detection, overlap = comparison.detections[number], comparison.mask_overlaps[number, label]
    moved = aligned_overlap(comparison.labels[label].mask, detection.mask)
    if moved < limits[0] or moved - overlap < limits[1]:
        return
    sure = _FITTED * trust.of_score(detection.score) + (1 - _FITTED) * detection.score
    # Two say so: a detection without a label, and a label without a detection.
    sure = 1 - (1 - sure) * (1 - 0.5 * trust.of_side(comparison.relative_side(label)))
    score = sure * min(1.0, 1.4 * moved) * (1 - overlap)
    yield Suspect(
        score, "shifted", comparison.split, comparison.image, comparison.labels[label], detection
    )


def _fit_isotonic(pairs: Sequence[tuple[float, bool]]) -> Callable[[float], float]:
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
