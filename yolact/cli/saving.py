"""Writing, showing and printing of results."""

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
    """What to do with results.

    Attributes:
        kinds: kinds of files to write in addition to pictures.
        picture: write pictures and videos.
        json_lines: print one line of JSON for each result to standard output, and nothing else.
        quiet: print nothing to standard output.
        settings: settings that determine the results of a resumable run; None if not resumable.
        resume: continue the run.
    """

    kinds: tuple[Kind, ...] = ()
    picture: bool = True
    json_lines: bool = False
    quiet: bool = False
    settings: Mapping[str, object] | None = None
    resume: bool = False

    def can_show(self) -> bool:
        """Tell whether a window can show everything requested."""
        return self.picture and not self.kinds and not self.json_lines and has_display()

    def folder(self, path: Path, image_folder: Path | None = None, table: str = "") -> ResultFolder:
        """Return the folder of the result files.

        Args:
            path: path of the folder.
            image_folder: folder that image names are relative to.
            table: name of the files for all images, if the folder has other content.
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
        """Print lines for people, unless `quiet` or `json_lines`."""
        if not (self.json_lines or self.quiet):
            for line in lines:
                print(line)

    def print_json(self, detections: Detections) -> None:
        """Print a line of JSON for programs, if `json_lines`."""
        if self.json_lines:
            print(detections.to_json(), flush=True)


def save_options(args: argparse.Namespace) -> SaveOptions:
    """Return the options from the flags; with --quiet, also silence the log."""
    if args.quiet:
        logging.getLogger().setLevel(logging.ERROR)
    kinds = [kind for kind in KINDS if getattr(args, f"save_{kind}", False)]
    if args.video:
        kinds = ["jsonl" if kind == "json" else kind for kind in kinds]
    return SaveOptions(
        tuple(kinds), needs_drawing(args), args.json_lines, args.quiet, resume=args.resume
    )


def needs_drawing(args: argparse.Namespace) -> bool:
    """Tell whether pictures are drawn: with lines of JSON, only if the user names an output."""
    source = args.image or args.images or args.video
    is_named = source is not None and parse_source(source)[1] is not None
    return not args.no_picture and (is_named or not args.json_lines)
