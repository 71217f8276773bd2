"""The detections of an evaluation, kept image by image, so that it goes on after any end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from yolact.results.journal import Journal

from .result_files import CocoResults, Result, parse_results, save_results
from .result_origin import Origin

logger = logging.getLogger(__name__)


class Kept(AbstractContextManager["Kept"]):
    """Notes what is found in a hidden file beside the one for all results, until that is written.

    Args:
        file: for all results.
        origin: of the detections.
        resume: go on with what an evaluation noted that did not end well.

    Attributes:
        results: what it noted.

    Raises:
        ValueError: that was of another origin, or is broken.
    """

    def __init__(self, file: Path, origin: Origin, resume: bool) -> None:
        self._file, self._origin = file, origin
        file.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(journal_of(file), _settings(origin), resume)
        images, rows = [], []
        for key in self._journal:
            hw, found = self._journal[key]
            images.append([int(key), *hw])
            rows += found
        self.results: CocoResults = parse_results(self._journal.path, images, rows)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._journal.__exit__()
        if kind is None:
            self._journal.path.unlink(missing_ok=True)
        else:
            logger.info("%d images done; --resume goes on", len(self._journal))

    def note(self, image_id: int, image_hw: tuple[int, int], found: Sequence[Result]) -> None:
        """Keep what was found in an image."""
        self._journal.note(str(image_id), [image_hw, found])

    def finish(self, results: CocoResults) -> None:
        """Write the file for all results."""
        save_results(self._file, results, self._origin)


def journal_of(file: Path) -> Path:
    """Return the file in which an evaluation notes what is found; it is there if that broke off."""
    return file.with_name(f".{file.name}.progress")


def _settings(origin: Origin) -> dict[str, object]:
    """Return the origin by the flags that choose it."""
    settings = {f"--set {name}": value for name, value in origin.settings.items()}
    return {
        "--trained_model": f"SHA-256 {origin.digest[:16]}",
        "--dataset": origin.dataset,
        "masks": origin.masks,
        "--score_threshold": origin.score_threshold,
        "--engine": origin.engine,
        "--precision": origin.precision,
        **settings,
    }
