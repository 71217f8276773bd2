"""A video that is written in parts, so that an interrupted run can be resumed in the middle."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from data.images import Image
from data.video.reader import VideoSource
from data.video.writer import VideoWriter, join_videos
from yolact.results.detections import Detections
from yolact.results.journal import Journal, matches_schema

logger = logging.getLogger(__name__)

LENGTH = 250
"""Minimum number of frames of a part: it ends before the next frame that the network runs on."""

_JOINED = "joined"
_DIGITS = 16  # of the number of a frame
_MOST_SECONDS = 1e9  # of a video; thirty years
_SIZE = (int, type(None))
_OF_ALL = {"size": _SIZE, "frames": int, "damage": str}
_OF_PART = {"size": _SIZE, "end": int, "seconds": float, "tracks": int}

OnFrame = Callable[[int, Detections], None]
"""Takes the number of a frame, and its detections."""


class Parts(AbstractContextManager["Parts"]):
    """Writes a video in parts, each a complete file, and joins them at the end.

    A hidden file beside the video records the finished parts, and at the end the video.

    Args:
        path: path of the video.
        settings: see `Journal`.
        batch: frames for each run of the network; a part begins with such a run.
        picture: False writes no video, and only records the parts.

    Attributes:
        path: path of the video.
        start: the frame to continue with.
        tracks: the highest track id in the frames before `start`.

    Raises:
        ValueError: the recorded parts were made with other settings.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, object], batch: int = 1, picture: bool = True
    ) -> None:
        self.path, self._picture = path, picture
        self._length = -(-LENGTH // batch) * batch
        self._batch = batch
        self._folder, journal = _files_of(path)
        if self._folder.is_symlink():  # replaced, not followed
            self._folder.unlink()
        self._journal = Journal(journal, settings, True, of=path, is_sound=_is_sound)
        self._writer: VideoWriter | None = None
        self._source: Path | None = None
        self.resume_from(sys.maxsize)
        if self.finished is not None:  # by a run that was killed before it deleted the parts
            shutil.rmtree(self._folder, ignore_errors=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        self._journal.__exit__()
        if kind is not None and _JOINED not in self._journal:
            logger.info("%d frames are done; --resume goes on", self._begun)

    @staticmethod
    def forget(path: Path) -> None:
        """Delete the parts and the record of a video."""
        folder, journal = _files_of(path)
        journal.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    @property
    def finished(self) -> Any:
        """The record of `finish`, if the video has not changed since; else None."""
        noted = self._journal.get(_JOINED)
        return noted if noted and noted["size"] == self._size(self.path) else None

    def resume_from(self, frames: int) -> None:
        """Start at the part that contains a frame, if it is the first that is not finished."""
        self.start, self.tracks, self._seconds = 0, 0, 0.0
        while (noted := self._noted(self.start)) is not None and noted["end"] <= frames:
            self.start, self.tracks = noted["end"], noted["tracks"]
        self._begun = self._next = self.start

    def resume_source(self, source: VideoSource, on_frame: OnFrame | None) -> OnFrame:
        """Skip the frames of a source that finished parts contain, to write the rest.

        Args:
            source: a source from which nothing has been read.
            on_frame: is called with frame numbers that count from the start of the whole video.

        Returns:
            The function that `run_video` must call instead of `on_frame`.

        Raises:
            ValueError: the source cannot be read again.
        """
        if source.path is None:
            raise ValueError(
                f"--resume: expected a video file, which can be read again: {source.name}"
            )
        self._source = source.path if source.sound is not None else None
        # Encode on the CPU: if a GPU failed for one part, it could not be joined with the others.
        self._make = partial(VideoWriter, fps=source.fps, image_hw=source.image_hw)
        if self._picture:
            self._folder.mkdir(exist_ok=True)
        frames = source.pictures()
        for _ in range(self.start):
            next(frames, None)
        first = self.start

        def on_next(number: int, detections: Detections) -> None:
            self.note(first + number, detections)
            if on_frame is not None:
                on_frame(first + number, detections)

        return on_next

    def note(self, number: int, detections: Detections) -> None:
        """Record the detections of the next frame, in order, before its picture is written."""
        due = number - self._begun >= self._length and (number - self._begun) % self._batch == 0
        if due and not detections.carried:
            self._end_part(number)
        if detections.track_ids is not None and len(detections):
            self.tracks = max(self.tracks, int(detections.track_ids.max()))
        self._next = number + 1

    def write(self, image: Image, seconds: float) -> None:
        """Append the picture of a frame with the time stamp `seconds`."""
        if not self._picture:
            return
        if self._writer is None:
            self._seconds, self._writer = seconds, self._make(self._part(self._begun))
        self._writer.write(image, seconds - self._seconds)

    def close(self) -> None:
        """Close the current part; it does not count as finished unless it was due to end here."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def finish(self, damage: str) -> Path | None:
        """Join the parts, with the sound of the source; return the video.

        Args:
            damage: what was wrong with the source, to be recorded.

        Raises:
            OSError: the disk is full.
        """
        self._end_part(self._next)
        parts, start = [], 0
        while (noted := self._noted(start)) is not None:
            parts.append((self._part(start), noted["seconds"]))
            start = noted["end"]
        is_made = self._picture and bool(parts)
        if is_made:
            join_videos(parts, self.path, self._source)
        size = self._size(self.path)
        self._journal.note(_JOINED, {"size": size, "frames": start, "damage": damage})
        shutil.rmtree(self._folder, ignore_errors=True)
        return self.path if is_made else None

    def _end_part(self, end: int) -> None:
        self.close()
        if end > self._begun:
            size = self._size(self._part(self._begun))
            noted = {"end": end, "seconds": self._seconds, "size": size, "tracks": self.tracks}
            self._journal.note(str(self._begun), noted)
            self._begun = end

    def _noted(self, start: int) -> Any:
        """Return the record of the part that begins with a frame, if it is complete; else None."""
        noted = self._journal.get(str(start))
        return noted if noted and noted["size"] == self._size(self._part(start)) else None

    def _part(self, start: int) -> Path:
        return self._folder / f"{start:09}{self.path.suffix}"

    @staticmethod
    def _size(path: Path) -> int | None:
        return path.stat().st_size if path.is_file() else None


def _is_sound(key: str, entry: Any) -> bool:
    if key == _JOINED:
        return matches_schema(entry, _OF_ALL)
    if not (key.isdecimal() and len(key) <= _DIGITS and matches_schema(entry, _OF_PART)):
        return False
    return bool(entry["end"] > int(key) and 0 <= entry["seconds"] <= _MOST_SECONDS)


def _files_of(path: Path) -> tuple[Path, Path]:
    """Return the folder of a video's parts, and the file that records them."""
    return path.with_name(f".{path.name}.parts"), path.with_name(f".{path.name}.progress")
