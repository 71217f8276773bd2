"""What is written, shown and printed of each result."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yolact.drawing.window import has_display
from yolact.results.detections import Detections
from yolact.results.folder import KINDS, Kind, ResultFolder

from .inputs import parse_source


@dataclass(frozen=True)
class SaveOptions:
    """What becomes of results.

    Attributes:
        kinds: files that are written beside the pictures.
        picture: pictures and videos are.
        json_lines: a line of JSON for each goes to standard output, and nothing else does.
        quiet: nothing goes there.
        settings: what decides the results of a run that can be resumed; None for one that cannot.
        resume: go on with it.
    """

    kinds: tuple[Kind, ...] = ()
    picture: bool = True
    json_lines: bool = False
    quiet: bool = False
    settings: Mapping[str, object] | None = None
    resume: bool = False

    def can_show(self) -> bool:
        """Tell whether a window can show all that is asked for."""
        return self.picture and not self.kinds and not self.json_lines and has_display()

    def folder(self, path: Path, image_folder: Path | None = None, table: str = "") -> ResultFolder:
        """Return the files of the results.

        Args:
            path: of the folder.
            image_folder: to which images are named relative.
            table: name of the files for all images, where the folder has other things in it.
        """
        return ResultFolder(
            path,
            self.kinds,
            image_folder,
            table or "detections",
            settings=self.settings if self.picture or self.kinds else None,
            resume=self.resume,
        )

    def print(self, *lines: object) -> None:
        """Print what people read."""
        if not (self.json_lines or self.quiet):
            for line in lines:
                print(line)

    def print_json(self, detections: Detections) -> None:
        """Print what programs read, if that is asked for."""
        if self.json_lines:
            print(detections.to_json(), flush=True)


def save_options(args: argparse.Namespace) -> SaveOptions:
    """Return what the flags ask for; --quiet also silences the log."""
    if args.quiet:
        logging.getLogger().setLevel(logging.ERROR)
    kinds = [kind for kind in KINDS if getattr(args, f"save_{kind}", False)]
    if args.video:
        kinds = ["jsonl" if kind == "json" else kind for kind in kinds]
    return SaveOptions(
        tuple(kinds), needs_drawing(args), args.json_lines, args.quiet, resume=args.resume
    )


def needs_drawing(args: argparse.Namespace) -> bool:
    """Tell whether pictures are drawn: beside lines of JSON, only those that somebody named."""
    source = args.image or args.images or args.video
    is_named = source is not None and parse_source(source)[1] is not None
    return not args.no_picture and (is_named or not args.json_lines)
