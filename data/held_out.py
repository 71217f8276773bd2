"""A part of the training images, held out to validate on."""

from __future__ import annotations

import logging
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from data.annotations.coco import CocoInstances

from .files import natural_key
from .image_groups import group_images

_logger = logging.getLogger(__name__)

_MANY = 5000  # images, which take a while to look at


def held_out(dataset: CocoInstances, share: float) -> list[int]:
    """Choose images to validate on: the same ones on every run, whatever the order of the file.

    About the same share is chosen of the images of each class, of those without objects, and of
    those with outlines. Images that belong together (`data.image_groups`) are all chosen or none. A
    single video is cut into pieces.

    Args:
        dataset: the images.
        share: of them, above 0 and below 1.

    Returns:
        Indices in ascending order; of two images or more, at least one, and at least one is left.
    """
    names = [dataset.image_info(index)["file_name"] for index in range(len(dataset))]
    order = sorted(range(len(names)), key=lambda index: natural_key(names[index]))
    names = [names[index] for index in order]
    if len(names) > _MANY:
        _logger.info("comparing %d images, so that copies and frames stay together", len(names))
    groups = group_images(names, [dataset.image_path(index) for index in order])
    if len(names) > 1 and np.bincount(groups).max() > len(names) * (1 - share / 2):
        groups = _cut(groups, share)
        _logger.warning(
            "most images are frames of one video, or look alike: it is cut into pieces to validate "
            "on some, whose first and last frames may look like training images"
        )
    groups = np.unique(groups, return_inverse=True)[1]
    by_name = np.argsort(dataset.categories.names, kind="stable")  # however they are numbered
    has_class = dataset.has_class()[:, by_name]
    kinds = np.column_stack((has_class, ~has_class.any(axis=1), dataset.has_outline()))
    images = _gathered(kinds[order], groups)
    chosen = choose_groups(images, _shuffled(names, groups), share)
    return sorted(order[i] for i in np.flatnonzero(np.isin(groups, chosen)).tolist())


def choose_groups(images: NDArray[np.int64], order: list[int], share: float) -> list[int]:
    """Choose groups so that of each kind of image about the same share is chosen.

    The rarest kind comes first, for a common one can still make up for what it brings along.

    Args:
        images: (G, K) how many images of each kind are in each group; the last kind is all images.
        order: of the G groups, the first ones being chosen if there is a choice.
        share: of the images.
    """
    total = images.sum(axis=0)
    wanted = share * total
    undecided = dict.fromkeys(order)
    chosen: list[int] = []
    for kind in np.argsort(total, kind="stable").tolist():
        missing = wanted[kind] - images[chosen, kind].sum()
        for group in [each for each in undecided if images[each, kind]]:
            if images[group, kind] / 2 <= missing and len(chosen) < len(images) - 1:
                chosen.append(group)
                missing -= images[group, kind]
            del undecided[group]
    if not chosen and len(images) > 1:  # even the smallest is too large
        chosen = [min(order, key=lambda group: images[group, -1])]
    return chosen


def _cut(groups: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Cut the largest group into pieces of neighbours, each as large as is to be chosen."""
    rows = np.flatnonzero(groups == np.bincount(groups).argmax())
    pieces = min(len(rows), max(2, round(1 / min(share, 1 - share))))
    groups = groups.copy()
    groups[rows] = rows[np.arange(len(rows)) * pieces // len(rows) * len(rows) // pieces]
    return groups


def _gathered(kinds: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the images of each group: of each kind, and all."""
    kinds = np.column_stack((kinds, np.ones(len(groups), np.bool_)))
    counts = np.zeros((groups.max(initial=-1) + 1, kinds.shape[1]), np.int64)
    np.add.at(counts, groups, kinds)
    return counts


def _shuffled(names: list[str], groups: NDArray[np.int64]) -> list[int]:
    """Put the groups into an order that depends on the first of their names alone."""
    firsts: dict[int, str] = {}
    for name, group in zip(names, groups.tolist(), strict=True):
        firsts.setdefault(group, name)
    digest = {group: sha256(name.encode("utf-8", "replace")) for group, name in firsts.items()}
    return sorted(firsts, key=lambda group: digest[group].digest())
