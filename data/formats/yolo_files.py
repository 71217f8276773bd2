"""Where a YOLO dataset keeps its images: the folders and lists that `data.yaml` names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data.annotations.locate import ImageFinder
from data.annotations.paths import shared_folder
from data.files import IMAGE_SUFFIXES, is_file, read_bytes
from data.problems import Unusable

from .data_yaml import read_places
from .splits import SplitName, image_places, split_folder

_SPLITS: tuple[SplitName, ...] = ("train", "val")
_MAX_LIST = 1 << 28  # bytes of a list of images


def find_places(names_file: Path) -> dict[str, list[Path]]:
    """Find the folders, and text files that list images, of "train" and "val".

    They are those that the file names, else the usual ones; a dataset that is not split has the
    same for both. A name is looked for in `path`, beside the file, and in `datasets` beside or
    above it or the working folder, also by its last parts if it was written on another machine.

    Raises:
        ValueError: the file cannot be read, or what it names is not there.
    """
    beside = names_file.parent
    root, named = read_places(names_file) if names_file.suffix != ".txt" else ("", {})
    roots = _roots(beside, root)
    if not named:
        usual = {split: _usual(roots, split) for split in _SPLITS}
        if not any(usual.values()):
            usual = dict.fromkeys(_SPLITS, _first(roots, "images"))
        if not any(usual.values()):
            raise ValueError(
                f"{names_file}: no such folder: images/train, train/images, images in {beside}"
            )
        return {split: [place] for split, place in usual.items() if place}
    places: dict[str, list[Path]] = {}
    for split, names in named.items():
        for name in names:
            place = _first(roots, name)
            if place is None:
                raise ValueError(
                    f"{names_file}: {split}: no such folder or list of images: "
                    f"{roots[0] / name}; correct the path, or take it out"
                )
            places.setdefault(split, []).append(place)
    return places


def common_folder(names_file: Path, places: Iterable[Path]) -> Path:
    """Return the folder that holds all images of folders and lists.

    Raises:
        ValueError: they lie on different drives of Windows.
    """
    folders = [place if place.is_dir() else _root(names_file) for place in places]
    return shared_folder([folder.absolute() for folder in folders])


def images_of(names_file: Path, place: Path) -> Iterator[Path | Unusable]:
    """Yield the images in a folder and below it, or those that a text file lists.

    For one of a list that is not there, or not of this dataset, comes the reason.
    """
    if place.is_dir():
        yield from images_below(place)
        return
    if place.stat().st_size > _MAX_LIST:
        raise ValueError(f"{place} has more than {_MAX_LIST} bytes: it is no list of images")
    try:
        lines = read_bytes(place).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not a text file in UTF-8") from error
    root = _root(names_file)
    names = list(dict.fromkeys(filter(None, map(str.strip, lines))))
    for found in ImageFinder(root, place).find_all(names):
        yield found if isinstance(found, Unusable) else root / found


def images_below(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder and below it, but hidden ones."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            yield path


def label_folder(image_folder: Path) -> Path:
    """Return the folder of the text files: `labels` in place of the last `images`, if it exists.

    Both may be written large.
    """
    parts = image_folder.absolute().parts
    names = [part.lower() for part in parts]
    if "images" in names:
        last = len(parts) - 1 - names[::-1].index("images")
        for name in ("labels", "Labels", "LABELS"):
            labels = Path(*parts[:last], name, *parts[last + 1 :])
            if labels.is_dir():
                return labels
    return image_folder


def _roots(beside: Path, root: str) -> list[Path]:
    """Return where the folders that a file names may be, likely ones first."""
    if not root:
        return [beside]
    path = Path(root.replace("\\", "/"))
    parts = path.parts
    for marker in ("..", "datasets"):
        parts = parts[len(parts) - parts[::-1].index(marker) :] if marker in parts else parts
    below = Path("datasets", *(parts if not path.is_absolute() else parts[-1:]))
    here = Path.cwd()
    collections = [folder / below for folder in (beside, beside.parent, here, here.parent)]
    return [beside / path, beside, here / path, *collections]


def _root(names_file: Path) -> Path:
    """Return the folder of the dataset, to which the images of a list are relative."""
    root = _roots(names_file.parent, read_places(names_file).root)[0]
    return root if root.is_dir() else names_file.parent


def _usual(roots: Iterable[Path], split: SplitName) -> Path | None:
    """Find images/train, train/images and alike."""
    for root in roots:
        for images in image_places(root):
            if found := split_folder(images, split):
                return found
        above = split_folder(root, split)
        if above and (found := next(image_places(above), None)):
            return found
    return None


def _first(roots: Sequence[Path], name: str) -> Path | None:
    """Find a folder or list under one of the roots, by as many parts of its name as there are."""
    parts = Path(name.replace("\\", "/")).parts
    # What is above the file's own folder is so only in what Roboflow writes.
    inner = [part for part in parts if part != ".."]
    tries = [inner, *([parts] if len(inner) < len(parts) else [])]
    tries += [inner[start:] for start in range(1, len(inner) - 1)]
    for place in (root.joinpath(*part) for part in tries for root in roots):
        if place.is_dir() or (place.suffix.lower() == ".txt" and is_file(place)):
            return place
    return None
