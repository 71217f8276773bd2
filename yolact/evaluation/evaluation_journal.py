"""The detections of an evaluation, stored image by image, so that it can always be resumed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from yolact.files import RunLock
from yolact.results.journal import Journal

from .result_files import CocoResults, Result, parse_results, save_results
from .result_origin import Origin

logger = logging.getLogger(__name__)


class EvaluationJournal(AbstractContextManager["EvaluationJournal"]):
    """Records detections in a hidden file beside the final result file, until that is written.

    The hidden file is kept if it has more images than are wanted, for the run that wanted those.

    Args:
        file: final file for all results.
        origin: origin of the detections.
        wanted: ids of the images to evaluate; records of other images are not used.
        resume: continue with the records of an interrupted evaluation.

    Attributes:
        results: the recorded results.

    Raises:
        ValueError: the records have another origin, or are broken.
        UsageError: another evaluation is writing the file.
    """

    def __init__(self, file: Path, origin: Origin, wanted: Collection[int], resume: bool) -> None:
        self._file, self._origin = file, origin
        file.parent.mkdir(parents=True, exist_ok=True)
        refusal = f"{file}: another evaluation writes it; stop it, or give another --ap_data_file"
        with ExitStack() as undo:
            undo.callback(RunLock(file.parent, file.name, refusal).close)
            without = ("--tile", "none")  # not written, as in journals from before there were tiles
            made_by = {
                name: value for name, value in origin.by_flags().items() if (name, value) != without
            }
            journal = Journal(journal_of(file), made_by, resume, of=file, is_sound=_is_sound)
            self._journal = undo.enter_context(journal)
            self.results: CocoResults = _noted(journal, wanted)
            self._is_all = {*journal.keys(), *map(str, wanted)} == {*map(str, wanted)}
            self._open = undo.pop_all()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._is_all:
            self._journal.remove()
        else:
            logger.info("%d images done; --resume goes on", len(self._journal))
        self._open.close()

    def note(self, image_id: int, image_hw: tuple[int, int], found: Sequence[Result]) -> None:
        """Record the detections of an image."""
        self._journal.note(str(image_id), [image_hw, found])

    def finish(self, results: CocoResults) -> None:
        """Write the final file for all results."""
        save_results(self._file, results, self._origin)


def _is_sound(key: str, entry: Any) -> bool:
    try:
        (height, width), found = entry
        parse_results(Path(key), [[int(key), height, width]], found)
    except (TypeError, ValueError):
        return False
    return True


def _noted(journal: Journal, wanted: Collection[int]) -> CocoResults:
    images, rows = [], []
    for image_id in wanted:
        if (key := str(image_id)) in journal:
            hw, found = journal[key]
            images.append([image_id, *hw])
            rows += found
    return parse_results(journal.path, images, rows)


def journal_of(file: Path) -> Path:
    """Return the hidden file of an evaluation, which exists if that was interrupted."""
    return file.with_name(f".{file.name}.progress")
