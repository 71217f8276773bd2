"""Files for the results of many images or frames, in one folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from yolact.errors import UsageError
from yolact.files import RunLock, as_file_name, write_json, write_picture, write_text

from .combined_files import CombinedFiles
from .detections import Detections
from .journal import Journal, matches_schema

logger = logging.getLogger(__name__)

Kind = Literal["json", "jsonl", "csv", "coco", "txt", "labelme", "masks", "crops", "cutouts"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Note = Mapping[str, Any]
"""The record of a finished image, as plain values."""


class ResultFolder:
    """Writes the requested kinds of files for each image, as results arrive.

    | kind | files |
    | --- | --- |
    | json | json/NAME.json, masks in COCO's run lengths |
    | jsonl | TABLE.jsonl, the same as one line per image or frame |
    | csv | TABLE.csv, a table of all objects |
    | coco | TABLE_coco.json, annotations of all images |
    | txt | labels/NAME.txt for YOLO, and labels/classes.txt |
    | labelme | NAME.json, where labelme looks for it; existing files are kept |
    | masks | masks/NAME_000_CLASS.png, at image size, 255 inside |
    | crops | crops/NAME_000_CLASS.png, the content of each box |
    | cutouts | cutouts/NAME_000_CLASS.png, transparent outside the mask |

    With `settings`, a hidden file, .TABLE.progress, records each finished image. After any end of
    the run, even a kill, `resume` continues from these records: see `missing`. A second run into
    the files of the same folder is refused. When an image is processed again, its old masks, crops
    and cut-outs that are not rewritten are deleted.

    Args:
        folder: folder of the files.
        kinds: kinds of files to write.
        image_folder: folder that image names in COCO's file are relative to.
        table: name of the files for all images.
        settings: plain values that determine the results, such as the digest of the model.
        resume: continue a folder of the same settings; a folder without results is started.

    Raises:
        ValueError: no such kind; on entering: the folder has results of other settings.
        UsageError: on entering: another run is writing into the folder.

    Example:
        >>> settings = {"model": "yolact_lite2_person", "score_threshold": 0.5}
        >>> with ResultFolder("out", ["cutouts"], settings=settings, resume=True) as folder:
        ...     for detections in predictor.stream(folder.missing(paths), score_threshold=0.5):
        ...         folder.add(detections, Path(detections.source).stem)
    """

    def __init__(
        self,
        folder: str | Path,
        kinds: Collection[Kind],
        image_folder: str | Path | None = None,
        table: str = "detections",
        *,
        settings: Mapping[str, object] | None = None,
        resume: bool = False,
    ) -> None:
        unknown = set(kinds) - set(KINDS)
        if unknown:
            raise ValueError(f"kinds={sorted(unknown)}: expected some of {', '.join(KINDS)}")
        self.folder, self.kinds = Path(folder), frozenset(kinds)
        self._table, self._settings, self._resume = table, settings, resume
        self._combined = CombinedFiles(self.folder, self.kinds, image_folder, table)
        self._open = ExitStack()
        self._journal: Journal | None = None
        self._to_begin_with: list[str] | None = None
        self._named: dict[str, str] = {}
        self._from_memory = count(1)
        self._is_open = False

    def __enter__(self) -> ResultFolder:
        with ExitStack() as undo:
            if self._settings is not None or self._combined.paths:
                self._hold(undo)
            if self._settings is not None:
                settings = {**self._settings, "files": sorted(self.kinds)}
                path = progress_of(self.folder, self._table)
                journal = Journal(path, settings, self._resume, is_sound=self._is_sound)
                self._journal = undo.enter_context(journal)
            undo.callback(self._combined.close)
            self._to_begin_with = self._noted()
            if not self._to_begin_with:
                self._begin()
            undo.callback(self._begin)
            self._open = undo.pop_all()
        self._is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_open = False
        self._open.close()

    def missing(self, sources: Iterable[str | Path] | Mapping[str, str]) -> list[str]:
        """Return the images that still have to be processed.

        An image is finished if all its files exist as they were written, and the image itself has
        not changed since. Entries of other images are dropped from the files for all images.

        Args:
            sources: paths or addresses, as in `Detections.source`; or a mapping from these to the
                name of each image's files, if that may have changed since.
        """
        names = sources if isinstance(sources, Mapping) else dict.fromkeys(map(str, sources))
        done = {source for source, name in names.items() if self._is_done(source, name)}
        noted, has_begun = self._noted(), self._to_begin_with is None
        kept = [source for source in noted if source in done]
        if self._journal is not None:
            journal = self._journal
            self._named |= {journal[source]["name"].casefold(): source for source in kept}
        if not has_begun or len(kept) < len(noted):
            self._to_begin_with = kept
        if has_begun:
            self._begin()
        return [source for source in names if source not in done]

    def add(self, detections: Detections, name: str, files: Iterable[Path] = ()) -> None:
        """Write the files of one image or frame.

        Args:
            detections: detections in it.
            name: name of its files, with "/" for sub-folders, and no suffix. If files of another
                image have this name, a number is added and logged. For an image in memory, it is
                also the source in the files for all images.
            files: other files of this image in the folder, such as its picture.

        Raises:
            OSError: a file cannot be written.
            ValueError: the folder is not open, or the name would lead outside of it.
        """
        _check_name(name)
        self._check_open()
        own = self._own_name(detections.source, name)
        written = self.write(detections, own, files)
        self.note({**written, "note": {**written["note"], "asked": name}})

    def write(self, detections: Detections, name: str, files: Iterable[Path] = ()) -> Note:
        """Write only the image's or frame's own files; see `add`. Any process can do this.

        Returns:
            A record in plain values, for `note` of the entered folder.
        """
        _check_name(name)
        stamp = stamp_of(detections.source)
        named = replace(detections, source=detections.source or name)
        head, entry = self._combined.head(named), self._combined.entry(named)
        sizes = {path: _size(path) for path in files}
        for kind, write in _FILES.items():
            if kind in self.kinds:
                written = write(self.folder, detections, name)
                # A labelme file may be corrected by hand, which changes its size.
                sizes |= {path: None if kind == "labelme" else _size(path) for path in written}
        names = {path.relative_to(self.folder).as_posix(): sizes[path] for path in sizes}
        note = {"name": name, "stamp": stamp, "files": names, "collected": entry}
        return {"source": detections.source, "head": head, "note": note}

    def finished(self, source: str, name: str, files: Iterable[Path]) -> Note:
        """Return the record of a source whose files, in the folder, were all written by others."""
        sizes = {path.relative_to(self.folder).as_posix(): _size(path) for path in files}
        note = {"name": name, "stamp": stamp_of(source), "files": sizes, "collected": {}}
        return {"source": source, "head": {}, "note": note}

    def note(self, written: Note) -> None:
        """Add the result of `write` to the files for all images, and record the image as finished.

        Raises:
            OSError: a file cannot be written.
            ValueError: the folder is not open.
        """
        self._check_open()
        self._begin()
        self._combined.put(written["head"], written["note"]["collected"])
        if self._journal is not None and written["source"]:  # without one it is not found again
            if "" not in self._journal:
                self._journal.note("", written["head"])
            self._journal.note(written["source"], written["note"])

    @property
    def noted(self) -> int:
        """Number of images recorded as finished."""
        return len(self._noted())

    @property
    def written(self) -> list[Path]:
        """The files and folders that results go to."""
        places = {kind: self.folder / kind for kind in ("json", "masks", "crops", "cutouts")}
        places |= {"txt": self.folder / "labels", "labelme": self.folder}
        places |= self._combined.paths
        return [places[kind] for kind in KINDS if kind in self.kinds]

    def _check_open(self) -> None:
        if not self._is_open:
            raise ValueError(f"{self.folder} is not open: use it in a `with` statement")

    def _own_name(self, source: str, name: str) -> str:
        source = source or f"image {next(self._from_memory)} from memory"
        names = chain([name], (f"{name}_{number}" for number in count(2)))
        own = next(n for n in names if self._named.setdefault(n.casefold(), source) == source)
        if own != name:
            logger.warning(
                "%s: %s has the files called %s; its own are %s",
                source,
                *(self._named[name.casefold()], name, own),
            )
        return own

    def _hold(self, undo: ExitStack) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        refusal = f"{self.folder}: another run writes {self._table} there; "
        refusal += "stop it, or name another output"
        key = os.getpid(), self.folder.resolve(), self._table
        if _held.setdefault(key, self) is not self:  # the lock does not exclude its own process
            raise UsageError(refusal)
        undo.callback(_held.pop, key, None)
        undo.callback(RunLock(self.folder, self._table, refusal).close)

    def _noted(self) -> list[str]:
        if self._journal is None or "" not in self._journal:
            return []
        return [source for source in self._journal if source]

    def _begin(self) -> None:
        """Begin the files for all images with the recorded images, unless already begun."""
        sources, self._to_begin_with = self._to_begin_with, None
        if sources is None:
            return
        journal = self._journal
        if journal is None or "" not in journal:
            self._combined.begin({})
        else:
            entries = (journal[source]["collected"] for source in sources)
            self._combined.begin(journal[""], entries)

    def _is_sound(self, key: str, entry: Any) -> bool:
        if not key:
            return self._combined.is_head(entry)
        is_note = matches_schema(entry, {"name": str, "stamp": (list, type(None)), "files": dict})
        return is_note and self._combined.is_entry(entry.get("collected"))

    def _is_done(self, source: str, name: str | None) -> bool:
        if self._journal is None or not source or not {"", source} <= self._journal.keys():
            return False
        noted = self._journal[source]
        there = ((_size(self.folder / name), size) for name, size in noted["files"].items())
        whole = all(now is not None and size in (None, now) for now, size in there)
        names = (None, noted["name"], noted.get("asked"))
        return whole and noted["stamp"] == stamp_of(source) and name in names


_held: WeakValueDictionary[tuple[int, Path, str], ResultFolder] = WeakValueDictionary()
"""Open folders by process: a forked process inherits its parent's but does not hold them."""


def progress_of(folder: Path, table: str = "detections") -> Path:
    """Return the file in which a `ResultFolder` records finished images."""
    return folder / f".{table}.progress"


def _check_name(name: str) -> None:
    """Refuse a name that is not a path inside the folder."""
    path = Path(name)
    if not path.name or path.anchor or ".." in path.parts:
        raise ValueError(
            f"name={name!r}: expected the name of an image's files in the folder, as '0001' or "
            "'sub/0001'"
        )


def stamp_of(source: str | Path) -> list[int] | None:
    """Return what tells a file from a later one of its name; None where there is none."""
    try:
        status = Path(source).stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


def _write_json(folder: Path, detections: Detections, name: str) -> list[Path]:
    file = folder / "json" / f"{name}.json"
    write_json(file, detections.to_dict())
    return [file]


def _write_yolo(folder: Path, detections: Detections, name: str) -> list[Path]:
    file, classes = folder / "labels" / f"{name}.txt", folder / "labels" / "classes.txt"
    if name.casefold() == classes.stem:  # the same file on macOS and Windows
        file = classes.with_name("classes_1.txt")
        logger.warning("%s: %s holds the names of the classes", file, classes.name)
    names = "\n".join(detections.class_names) + "\n"
    if not classes.is_file() or classes.read_text("utf-8", "replace") != names:
        write_text(classes, names)
    return [write_text(file, detections.to_yolo())]


def _write_labelme(folder: Path, detections: Detections, name: str) -> list[Path]:
    file = folder / f"{name}.json"
    if file.exists():  # it may have been corrected by hand
        logger.warning("kept: %s is there already", file)
    else:
        detections.to_labelme(file)
    return [file]


def _write_pictures(
    folder: Path, detections: Detections, name: str, pictures: Iterable[NDArray[np.uint8]]
) -> list[Path]:
    named = zip(count(), detections.names(), pictures, strict=False)
    written = [
        write_picture(folder / f"{name}_{number:03}_{as_file_name(label)}.png", picture)
        for number, label, picture in named
        if picture.size
    ]
    labels = {as_file_name(label) for label in detections.class_names}
    for number in count():  # delete files of an earlier run
        every = [folder / f"{name}_{number:03}_{label}.png" for label in labels]
        here = [path for path in every if path.is_file()]
        if number >= len(detections) and not here:
            break
        for path in set(here).difference(written):
            path.unlink()
    return written


def _write_masks(folder: Path, detections: Detections, name: str) -> list[Path]:
    masks = (each.masks[0].cpu().numpy().astype(np.uint8) * 255 for each in detections)
    return _write_pictures(folder / "masks", detections, name, masks)


def _write_crops(folder: Path, detections: Detections, name: str) -> list[Path]:
    return _write_pictures(folder / "crops", detections, name, detections.crops())


def _write_cutouts(folder: Path, detections: Detections, name: str) -> list[Path]:
    return _write_pictures(folder / "cutouts", detections, name, detections.cutouts())


CROP_KINDS: frozenset[Kind] = frozenset({"crops", "cutouts"})
"""Kinds of files that are made from an image's pixels."""

_FILES: Mapping[Kind, Callable[[Path, Detections, str], list[Path]]] = {
    "json": _write_json,
    "txt": _write_yolo,
    "labelme": _write_labelme,
    "masks": _write_masks,
    "crops": _write_crops,
    "cutouts": _write_cutouts,
}
