"""The files with the results of all images: a table, lines of JSON, COCO annotations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from data.problems import reason_of
from yolact.files import whole_file

from .coco_file import CocoFile
from .detections import Detections
from .exports import csv_header, csv_lines
from .journal import matches_schema

Entry = Mapping[str, Any]
"""The content of the files for one image, as plain values: "csv" and "jsonl" as text, "coco"."""

_HEAD = {"csv": str, "classes": [str]}
_ENTRY: Mapping[str, Any] = {
    "csv": str,
    "jsonl": str,
    "coco": {"file_name": str, "height": int, "width": int, "objects": [dict]},
}


class CombinedFiles:
    """Writes these files as results arrive; CSV and JSON lines are in the file at once.

    Args:
        folder: folder of the files; created if any are written.
        kinds: some of "csv", "jsonl" and "coco"; others are ignored.
        image_folder: folder that image names in COCO's file are relative to.
        table: name of the files.
    """

    def __init__(
        self,
        folder: Path,
        kinds: Collection[str],
        image_folder: str | Path | None,
        table: str,
    ) -> None:
        self.paths = {kind: folder / f"{table}.{kind}" for kind in ("csv", "jsonl")}
        self.paths["coco"] = folder / f"{table}_coco.json"
        self.paths = {kind: path for kind, path in self.paths.items() if kind in kinds}
        self._image_folder = image_folder
        self._open = ExitStack()
        self._tables: dict[str, TextIO] = {}
        self._coco: CocoFile | None = None
        self._header = ""

    def begin(self, head: Entry, entries: Iterable[Entry] = ()) -> None:
        """Replace the files by ones with the recorded entries of an earlier run, to continue.

        Args:
            head: result of `head` in that run.
            entries: results of `entry` in that run.
        """
        self.close()
        with ExitStack() as parts:
            self._open_tables(parts)
            self._open_coco()
            for entry in entries:
                self.put(head, entry)
        for kind in self._tables:
            file = self.paths[kind].open("a", encoding="utf-8", errors="replace", newline="")
            self._tables[kind] = self._open.enter_context(file)

    def _open_tables(self, parts: ExitStack) -> None:
        """Open the files that are written line by line, each beside the file it will replace."""
        self._header = ""
        for kind in self.paths.keys() & {"csv", "jsonl"}:
            part = parts.enter_context(whole_file(self.paths[kind]))
            file = part.open("w", encoding="utf-8", errors="replace", newline="")
            self._tables[kind] = parts.enter_context(file)

    def _open_coco(self) -> None:
        if "coco" in self.paths:
            self._coco = self._open.enter_context(CocoFile(self.paths["coco"], self._image_folder))

    def head(self, detections: Detections) -> Entry:
        """Return the data that is the same for all images."""
        return {"csv": csv_header(detections), "classes": list(detections.class_names)}

    def entry(self, detections: Detections) -> Entry:
        """Return the content of the files for an image."""
        entry: dict[str, Any] = {}
        if "csv" in self.paths:
            entry["csv"] = csv_lines(detections, detections.source)
        if "jsonl" in self.paths:
            entry["jsonl"] = detections.to_json() + "\n"
        if "coco" in self.paths:
            entry["coco"] = CocoFile(self.paths["coco"], self._image_folder).entry(detections)
        return entry

    def is_head(self, value: object) -> bool:
        """Tell whether an untrusted value has the form of `head`'s result."""
        return matches_schema(value, _HEAD if self.paths else dict)

    def is_entry(self, value: object) -> bool:
        """Tell whether an untrusted value has the form of `entry`'s result."""
        return matches_schema(value, {kind: _ENTRY[kind] for kind in self.paths})

    def put(self, head: Entry, entry: Entry) -> None:
        """Write the result of `entry`.

        Raises:
            OSError: a file cannot be written.
            ValueError: some results have track ids and others not, but the table has one header.
        """
        columns = head.get("csv", "")
        if entry.get("csv") and self._header not in ("", columns):
            begun, given = self._header.strip(), columns.strip()
            raise ValueError(
                f"{self.paths['csv']} has the columns {begun}, and these results {given}: "
                "give them another folder or table="
            )
        for kind, file in self._tables.items():
            try:
                if kind == "csv" and not self._header:
                    file.write(columns)
                    self._header = columns
                file.write(entry[kind])
                file.flush()
            except OSError as error:
                reason = f"cannot write {self.paths[kind]}: {reason_of(error)}"
                raise OSError(reason) from error
        if self._coco is not None:
            self._coco.put(head["classes"], entry["coco"])

    def close(self) -> None:
        """Finish the files."""
        self._open.close()
        self._tables, self._coco = {}, None
