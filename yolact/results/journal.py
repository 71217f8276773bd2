"""A record of the finished parts of a long run, in a file that survives any end of the run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from yolact.files import is_plain_file, naming, write_text

_LONGEST = 1 << 28  # bytes of a line: an entry of ten thousand objects has some megabytes
_SHOWN, _SHOWN_TEXT = 40, 400  # characters of a value in a message, and of a path or the like
_MOST = 2**53  # of a whole number, which every reader of JSON holds


class Journal(Mapping[str, Any], AbstractContextManager["Journal"]):
    """A mapping of keys to entries, stored as lines of JSON; each entry is in the file at once.

    The first line has the settings of the run. A line that was being written when the run ended is
    ignored, and so is an entry that was edited and became invalid. A link, pipe or the like under
    the name of the file is replaced, not followed.

    Args:
        path: path of the file; its folder must exist.
        settings: plain values that determine the entries, each by the flag or argument for it.
        resume: continue the file, if it exists; else begin a new one.
        of: place of the results, for messages; by default the folder of the file.
        is_sound: tells for a key and its entry whether the entry is valid.

    Raises:
        ValueError: the file has other settings.
        OSError: the file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, object],
        resume: bool = False,
        of: Path | None = None,
        is_sound: Callable[[str, Any], bool] = lambda *_: True,
    ) -> None:
        self.path, self._of, self._is_sound = path, of or path.parent, is_sound
        self._places: dict[str, int] = {}  # key -> offset of its line
        settings = json.loads(json.dumps(dict(settings)))
        end = self._read(settings) if resume and is_plain_file(path) else 0
        if not end:
            write_text(path, _line({"settings": settings}))
        self._file = path.open("r+b")
        self._end = self._file.seek(end, 0 if end else 2)
        self._file.truncate()

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def remove(self) -> None:
        """Close the file, then delete it: Windows deletes none that is open."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys in the order in which they were added."""
        return iter(list(self._places))

    def __getitem__(self, key: str) -> Any:
        """Return the latest entry of a key."""
        self._file.seek(self._places[key])
        return json.loads(self._file.readline())["entry"]

    def note(self, key: str, entry: object) -> None:
        """Add an entry, or replace that of the key."""
        line = _line({"key": key, "entry": entry}).encode()
        self._file.seek(self._end)
        with naming(self.path):
            self._file.write(line)
            self._file.flush()
        self._places.pop(key, None)
        self._places[key] = self._end
        self._end += len(line)

    def _read(self, settings: Mapping[str, object]) -> int:
        """Index the entries; return the end of the last complete line, 0 without a first line."""
        end = 0
        with self.path.open("rb") as file:
            for line in _lines(file):
                if not line.endswith(b"\n"):
                    break
                content = _parsed(line)
                if end == 0:
                    if not isinstance(content.get("settings"), dict):
                        return 0
                    self._check(content["settings"], settings)
                elif isinstance(key := content.get("key"), str) and "entry" in content:
                    self._places.pop(key, None)
                    if self._is_sound(key, content["entry"]):
                        self._places[key] = end
                end += len(line)
        return end

    def _check(self, noted: Mapping[str, object], settings: Mapping[str, object]) -> None:
        if others := told_differences(noted, settings):
            raise ValueError(
                f"{self._of} holds results of a run with {'; '.join(others[:3])}: go on "
                "with its settings, name another output, or begin anew without --resume"
            )


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; the last may be incomplete, or a part of a much too long line."""
    while line := file.readline(_LONGEST):
        yield line
        if not line.endswith(b"\n"):
            break


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a `Journal`'s file; empty if there is none."""
    if not is_plain_file(path):
        return {}
    try:
        with path.open("rb") as file:
            settings = _parsed(file.readline(_LONGEST)).get("settings")
    except OSError:
        return {}
    return settings if isinstance(settings, dict) else {}


def told_differences(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    """Say how settings differ, by their flags; of long lists, the first elements that do."""
    names = [*ours, *sorted(theirs.keys() - ours.keys())]
    pairs = ((name, ours.get(name), theirs.get(name)) for name in names)
    return [_difference(*pair) for pair in pairs if pair[1] != pair[2]]


def matches_schema(value: Any, form: Any) -> bool:
    """Tell whether an untrusted plain value has a form.

    A form is a type, a tuple of types, [form] for a list, or {name: form} for a mapping, which may
    have more keys. Whole numbers must not be negative, and no number may be infinite or NaN.
    """
    if isinstance(form, list):
        return isinstance(value, list) and all(matches_schema(each, form[0]) for each in value)
    if isinstance(form, dict):
        return isinstance(value, dict) and all(matches_schema(value.get(k), form[k]) for k in form)
    if isinstance(form, tuple):
        return any(matches_schema(value, each) for each in form)
    if form is int:
        return type(value) is int and 0 <= value < _MOST
    return isinstance(value, form) and (form is not float or math.isfinite(value))


def _line(content: Mapping[str, object]) -> str:
    return json.dumps(content) + "\n"


def _parsed(line: bytes) -> dict[str, Any]:
    """Parse a line of the file; return {} if it is invalid, for example after a power cut."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _difference(name: str, ours: object, theirs: object) -> str:
    is_long = max(len(str(ours)), len(str(theirs))) > _SHOWN
    if is_long and isinstance(ours, list) and isinstance(theirs, list):
        pairs = enumerate(zip_longest(ours, theirs, fillvalue="nothing"))
        shorter = min(len(ours), len(theirs))
        index, pair = next((i, (a, b)) for i, (a, b) in pairs if i >= shorter or a != b)
        return _difference(f"{name}[{index}]", *pair)
    return f"{name}={_short(ours)}, not {_short(theirs)}"


def _short(value: object) -> str:
    text, most = str(value), _SHOWN_TEXT if isinstance(value, str) else _SHOWN
    return text if len(text) <= most else f"{text[:most]}..."
