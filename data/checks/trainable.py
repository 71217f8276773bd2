"""Whether there is anything to learn, or to score, in a dataset as it is taken."""

from __future__ import annotations

from data.annotations.coco import CocoInstances
from data.problems import Problem

NOTHING = "not one object to learn"
_MANY_CROWDS = 0.25  # of all annotations: COCO has 1 %
_AS_OBJECTS = "if these are single objects, --crowd=objects takes them as such"


def check_trainable(dataset: CocoInstances, where: str) -> list[Problem]:
    """Look for what leaves nothing, or little, to learn.

    Args:
        dataset: one split.
        where: its name, for the messages.

    Returns:
        `NOTHING` alone, or a problem for each class of crowds alone, or for many crowds.
    """
    found = dataset.counts()
    if not found.objects:
        mend = "label the images"
        if found.crowds:
            where = f"{where}, all {found.crowds} are marked as crowds (iscrowd 1)"
            mend = _AS_OBJECTS
        elif dataset.skipped:
            where = f"{where}, {dataset.skipped} images with boxes alone are skipped"
            mend = "--boxes_only=use learns boxes and classes"
        elif not len(dataset):
            where, mend = f"{where}, which has no image", "label more images"
        return [Problem(NOTHING, where, mend)]
    problems = [
        Problem("a class of crowds alone, which is not learned", f"{where}, {name}", _AS_OBJECTS)
        for name in found.crowd_classes
    ]
    if not problems and found.crowds > _MANY_CROWDS * (found.objects + found.crowds):
        of = f"{where}, {found.crowds} of {found.objects + found.crowds}"
        problems.append(Problem("many crowds, which are not learned", of, _AS_OBJECTS))
    return problems
