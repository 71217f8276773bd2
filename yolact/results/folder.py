"""Files for the results of many images or frames, in one folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, TextIO, get_args

import numpy as np
from numpy.typing import NDArray

from yolact.files import as_file_name, write_json, write_picture, write_text

from .coco_file import CocoFile
from .detections import Detections
from .exports import csv_text

logger = logging.getLogger(__name__)

Kind = Literal["json", "jsonl", "csv", "coco", "txt", "labelme", "masks", "crops", "cutouts"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class ResultFolder:
    """Writes what is asked for of each image, as it comes.

    | kind | files |
    | --- | --- |
    | json | json/NAME.json, masks in COCO's run lengths |
    | jsonl | TABLE.jsonl, the same in a line for each image or frame |
    | csv | TABLE.csv, a table of all objects |
    | coco | TABLE_coco.json, annotations of all images |
    | txt | labels/NAME.txt for YOLO, and labels/classes.txt |
    | labelme | NAME.json, where labelme looks for it; one that is there already is kept |
    | masks | masks/NAME_000_CLASS.png, as large as the image, 255 inside |
    | crops | crops/NAME_000_CLASS.png, what lies in each box |
    | cutouts | cutouts/NAME_000_CLASS.png, transparent outside the mask |

    Args:
        folder: of the files.
        kinds: what to write.
        image_folder: to which images are named relative in COCO's file.
        table: name of the files that hold all images.

    Raises:
        ValueError: no such kind.
    """

    def __init__(
        self,
        folder: str | Path,
        kinds: Collection[Kind],
        image_folder: str | Path | None = None,
        table: str = "detections",
    ) -> None:
        unknown = set(kinds) - set(KINDS)
        if unknown:
            raise ValueError(f"kinds={sorted(unknown)}: expected some of {', '.join(KINDS)}")
        self.folder, self.kinds = Path(folder), frozenset(kinds)
        self.image_folder, self.table = image_folder, table
        self._open = ExitStack()
        self._tables: dict[str, TextIO] = {}
        self._coco: CocoFile | None = None
        self._has_header = False

    def __enter__(self) -> ResultFolder:
        for kind in self.kinds & {"csv", "jsonl"}:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / f"{self.table}.{kind}").open("w", encoding="utf-8", newline="")
            self._tables[kind] = self._open.enter_context(file)
        if "coco" in self.kinds:
            file_of_all = CocoFile(self.folder / f"{self.table}_coco.json", self.image_folder)
            self._coco = self._open.enter_context(file_of_all)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, detections: Detections, name: str) -> None:
        """Write what is asked for of one image or frame.

        Args:
            detections: what was found in it.
            name: of its files, with "/" for sub-folders, and no suffix.

        Raises:
            OSError: a file cannot be written.
        """
        if "csv" in self.kinds:
            text = csv_text(detections, detections.source, header=not self._has_header)
            self._append("csv", text)
            self._has_header = True
        if "jsonl" in self.kinds:
            self._append("jsonl", detections.to_json() + "\n")
        if self._coco is not None:
            self._coco.add(detections)
        for kind, write in _FILES.items():
            if kind in self.kinds:
                write(self.folder, detections, name)

    @property
    def written(self) -> list[Path]:
        """The files and folders that results go to."""
        places = {kind: self.folder / kind for kind in ("json", "masks", "crops", "cutouts")}
        places |= {"txt": self.folder / "labels", "labelme": self.folder}
        places |= {kind: self.folder / f"{self.table}.{kind}" for kind in ("csv", "jsonl")}
        places["coco"] = self.folder / f"{self.table}_coco.json"
        return [places[kind] for kind in KINDS if kind in self.kinds]

    def _append(self, kind: str, text: str) -> None:
        """Add to a table, so that it is in the file at once."""
        if kind in self._tables:
            self._tables[kind].write(text)
            self._tables[kind].flush()


def _write_json(folder: Path, detections: Detections, name: str) -> None:
    write_json(folder / "json" / f"{name}.json", detections.to_dict())


def _write_yolo(folder: Path, detections: Detections, name: str) -> None:
    write_text(folder / "labels" / f"{name}.txt", detections.to_yolo())
    classes = folder / "labels" / "classes.txt"
    if not classes.exists():
        write_text(classes, "\n".join(detections.class_names) + "\n")


def _write_labelme(folder: Path, detections: Detections, name: str) -> None:
    file = folder / f"{name}.json"
    if file.exists():  # somebody may have corrected it
        logger.warning("kept: %s is there already", file)
    else:
        detections.to_labelme(file)


def _write_pictures(
    folder: Path, detections: Detections, name: str, pictures: Iterable[NDArray[np.uint8]]
) -> None:
    for number, (label, picture) in enumerate(zip(detections.names(), pictures, strict=True)):
        if picture.size:
            write_picture(folder / f"{name}_{number:03}_{as_file_name(label)}.png", picture)


def _write_masks(folder: Path, detections: Detections, name: str) -> None:
    masks = (each.masks[0].cpu().numpy().astype(np.uint8) * 255 for each in detections)
    _write_pictures(folder / "masks", detections, name, masks)


def _write_crops(folder: Path, detections: Detections, name: str) -> None:
    _write_pictures(folder / "crops", detections, name, detections.crops())


def _write_cutouts(folder: Path, detections: Detections, name: str) -> None:
    _write_pictures(folder / "cutouts", detections, name, detections.cutouts())


_FILES: Mapping[Kind, Callable[[Path, Detections, str], None]] = {
    "json": _write_json,
    "txt": _write_yolo,
    "labelme": _write_labelme,
    "masks": _write_masks,
    "crops": _write_crops,
    "cutouts": _write_cutouts,
}
