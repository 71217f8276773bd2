"""All findings in a dataset, in the order in which to look at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from data.annotations.coco import CocoInstances
from data.duplicates import DuplicateGroup
from data.formats.yolo import FROM_ONE
from data.problems import Problem
from data.sample import Dataset, ImageInfo
from yolact.predictor import Predictor

from .model_comparison import compare_with_model, shared_classes
from .notices import (
    Notice,
    Place,
    SizedObject,
    few_objects,
    find_image_duplicates,
    find_object_duplicates,
    names_alike,
    near_duplicate_notice,
    sized_objects,
    split_of,
    too_small,
    two_classes,
)
from .suspects import Suspect, find_suspects

MOST = 50
"""Default number of labels to report that a model contradicts."""


@dataclass(frozen=True)
class Findings:
    """The findings in a dataset.

    Attributes:
        name: name of the dataset.
        splits: its splits, as far as they are files.
        image_size: side of the network input to check for, in pixels.
        problems: errors, for each split and between splits.
        notices: findings that deserve a look, for each split and between splits.
        image_duplicates: duplicate images, and their places.
        object_duplicates: objects that are annotated twice.
        objects: objects of each split, without crowds.
        suspects: labels that a model contradicts, the likeliest mistakes first.
        shared: classes of the data that the model knows.
    """

    name: str
    splits: Mapping[str, CocoInstances]
    image_size: int
    problems: Mapping[str, Sequence[Problem]]
    notices: Mapping[str, Sequence[Notice]]
    image_duplicates: Sequence[tuple[DuplicateGroup, tuple[Place, ...]]]
    object_duplicates: Sequence[Place]
    objects: Mapping[str, Sequence[SizedObject]]
    suspects: Sequence[Suspect] = field(default=())
    shared: Sequence[str] = field(default=())

    def info(self, place: Place | Suspect) -> ImageInfo:
        """Describe the image of a place."""
        return self.splits[place.split].image_info(place.image)

    def suggestions(self) -> Iterator[dict[str, Any]]:
        """Yield the findings to look at, in order: duplicates first, which need no model."""
        for group, places in self.image_duplicates:
            first = self.info(places[0])["file_name"]
            # Hundreds of frames of a video can be alike: one of them stands for all.
            for place in places[1:] if group.is_exact else places[1:2]:
                kind = "copy" if group.is_exact else "near copy"
                alike = {"of": first, "images": len(places)}
                yield {"kind": kind, "score": 1.0, **self._where(place), **alike}
        for place in self.object_duplicates:
            yield {"kind": "twice", "score": 1.0, **self._where(place)}
        for suspect in self.suspects:
            label, detection = suspect.label, suspect.detection
            looks = detection and {
                "class": detection.name,
                "score": round(detection.score, 4),
                "box": detection.box,
            }
            place = Place(suspect.split, suspect.image, (label.place,) if label else ())
            yield {
                "kind": suspect.kind,
                "score": round(suspect.score, 4),
                **self._where(place),
                "labelled": label and {"class": label.name, "box": label.box},
                "seen": looks,
            }

    def to_record(self) -> dict[str, Any]:
        """Return all findings as plain values for JSON."""
        return {
            "dataset": self.name,
            "image_size": self.image_size,
            "images": {split: len(dataset) for split, dataset in self.splits.items()},
            "objects": {split: len(objects) for split, objects in self.objects.items()},
            "problems": {part: _plain(found) for part, found in self.problems.items()},
            "notices": {part: _plain(found) for part, found in self.notices.items()},
            "classes_of_the_model": list(self.shared),
            "suggestions": list(self.suggestions()),
        }

    def _where(self, place: Place) -> dict[str, Any]:
        info, number = self.info(place), None
        if place.objects:
            number = self.splits[place.split].annotation(place.image, place.objects[-1])["id"]
        names = {"split": place.split, "image_id": info["id"], "file_name": info["file_name"]}
        return names | {"annotation_id": number}


def examine(
    name: str,
    all_splits: Mapping[str, Dataset],
    problems: Mapping[str, Sequence[Problem]],
    image_size: int,
) -> Findings:
    """Examine a dataset without a model; generated scenes are correct by construction.

    Args:
        name: name of the dataset.
        all_splits: its splits, as far as they can be opened.
        problems: results of `data.checks.dataset.check_dataset`; those that only deserve a look
            become notices.
        image_size: side of the network input in pixels.
    """
    splits = {s: dataset for s, dataset in all_splits.items() if isinstance(dataset, CocoInstances)}
    image_duplicates = list(find_image_duplicates(splits))
    objects = {split: sized_objects(split, dataset) for split, dataset in splits.items()}
    notices: dict[str, list[Notice]] = {part: [] for part in (*splits, *problems)}
    for part, found in problems.items():
        notices[part] += [Notice(p.what, p.where, p.mend) for p in found if p.is_notice]
    problems = {part: [p for p in found if not p.is_notice] for part, found in problems.items()}
    object_duplicates: list[Place] = []
    for split, dataset in splits.items():
        names = dataset.categories.names if split == "train" else ()
        is_shifted = any(problem.what == FROM_ONE for problem in problems.get(split, ()))
        few = few_objects(objects[split], names[is_shifted:])
        small = too_small(objects[split], image_size)
        own = list(find_object_duplicates(split, dataset))
        notices[split] += chain(two_classes(dataset, own), names_alike(names), few, small)
        object_duplicates += own
    for group, places in image_duplicates:
        if not group.is_exact:
            files = [splits[p.split].image_info(p.image)["file_name"] for p in places]
            notices.setdefault(split_of(places), []).append(
                near_duplicate_notice(group, places, files)
            )
    return Findings(
        name, splits, image_size, problems, notices, image_duplicates, object_duplicates, objects
    )


def with_suspects(
    findings: Findings, predictor: Predictor, most: int = MOST, progress: bool = True
) -> Findings:
    """Add the labels that a model contradicts, at most `most`.

    Raises:
        ValueError: the model knows none of the classes.
    """
    names = predictor.model.class_names
    known = {
        split: shared_classes(dataset.categories, names)
        for split, dataset in findings.splits.items()
    }
    shared = list(dict.fromkeys(chain.from_iterable(each.values() for each in known.values())))
    comparisons = compare_with_model(predictor, findings.splits, known, progress)
    suspects = find_suspects(comparisons, shared)
    return replace(findings, suspects=suspects[:most], shared=shared)


def _plain(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"what": p.what, "where": p.where, "mend": p.mend} for p in problems]
