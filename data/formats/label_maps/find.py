"""Finds the splits of datasets whose masks are pictures, by the names of their folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data.formats.splits import SplitName, SplitPaths, split_folder, split_of

from .numbered import are_paired
from .pngs import ID_SUFFIX, MASKS, OWN_IMAGE
from .voc import CLASSES, IMAGES, OBJECTS, voc_lists

Splits = tuple[SplitPaths | None, SplitPaths | None]

_NAMES: tuple[SplitName, ...] = ("train", "val")
_DEPTHS = ("", "*/", "*/*/")  # where pictures may be below a folder


def label_map_splits(folder: Path) -> Splits:
    """Find the training and the validation split, None for what is not there."""
    for root in _voc_roots(folder):
        return _voc_splits(root)
    if any(numbered := _numbered_splits(folder)):
        return numbered
    images, masks = (next(_below(folder, name), folder) for name in ("leftImg8bit", "gtFine"))
    return _png_splits(images, masks)


def _below(folder: Path, name: str) -> Iterator[Path]:
    """Yield what is called so in a folder, or in one of it: Cityscapes' two archives have such."""
    yield from (path for depth in _DEPTHS[:2] for path in sorted(folder.glob(f"{depth}{name}")))


def _voc_roots(folder: Path) -> Iterator[Path]:
    """Yield the folders that hold a dataset of VOC: itself, VOC2012, VOCdevkit/VOC2012."""
    for depth in _DEPTHS:
        for objects in sorted(folder.glob(f"{depth}{OBJECTS}")):
            if (objects.parent / CLASSES).is_dir():
                yield objects.parent


def _voc_splits(root: Path) -> Splits:
    images = root / IMAGES
    images = next(filter(Path.is_dir, (images, root / "images")), root)
    lists = {file.stem: file for file in voc_lists(root)}
    train, val = (
        next((SplitPaths("voc", images, f) for n, f in lists.items() if split_of(n) == name), None)
        for name in _NAMES
    )
    if train or val:
        return train, val
    listing = lists.get("trainval") or (next(iter(lists.values())) if len(lists) == 1 else root)
    whole = SplitPaths("voc", images, listing)
    return whole, whole


def _numbered_splits(folder: Path) -> Splits:
    """Find `images` beside `masks` in folders of the splits, the other way round, or alone."""
    images, masks = folder / OWN_IMAGE, folder / MASKS
    train, val = (
        _numbered(inner / OWN_IMAGE, inner / MASKS)
        if (inner := split_folder(folder, name))
        else _numbered(split_folder(images, name), split_folder(masks, name))
        for name in _NAMES
    )
    whole = None if train or val else _numbered(images, masks)
    return train or whole, val or whole


def _numbered(images: Path | None, masks: Path | None) -> SplitPaths | None:
    if images is None or masks is None or not (images.is_dir() and masks.is_dir()):
        return None
    return SplitPaths("numbered", images, masks) if are_paired(images, masks) else None


def _png_splits(images: Path, masks: Path) -> Splits:
    splits: list[SplitPaths | None] = []
    for name in _NAMES:
        folders = split_folder(images, name), split_folder(masks, name)
        is_there = folders[0] and folders[1] and _has_masks(folders[1])
        splits.append(SplitPaths("pngs", *folders) if is_there else None)  # type: ignore[arg-type]
    if not any(splits) and _has_masks(masks):
        splits = [SplitPaths("pngs", images, masks)] * 2
    return splits[0], splits[1]


def _has_masks(folder: Path) -> bool:
    ids = (path for depth in _DEPTHS for path in folder.glob(f"{depth}*{ID_SUFFIX}"))
    masks = (path for depth in _DEPTHS[1:] for path in folder.glob(f"{depth}{MASKS}"))
    beside = (path for path in masks if (path.parent / OWN_IMAGE).is_dir())
    return any(next(found, None) is not None for found in (ids, beside))
