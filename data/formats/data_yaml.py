"""The `data.yaml` of a YOLO dataset: the names of its classes, and its folders.

Of YAML it reads what such files contain: texts, and `names` as a list or by number, in brackets
or on lines of their own. Everything else is skipped, or refused where it matters.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from data.classes import Categories

_KEY = re.compile(r"([A-Za-z_][\w-]*)[ ]*:(?:\s(.*))?$")
_QUOTED = r"""'(?:[^']|'')*' | "(?:[^"\\]|\\.)*" """
# A quote opens a text only where one can begin, so not in "don't".
_QUOTED_OR_COMMENT = re.compile(rf"(?<!\w)(?:{_QUOTED}) | (?:^|\s)\#.*", re.VERBOSE)
_TEXT = re.compile(rf"{_QUOTED} | [^-'\"\[\]{{}},&*!|>%@`?] .* | -\S.*", re.VERBOSE)
_ITEM = re.compile(
    rf"\s* (?:(\d{{1,6}})\s*:)? \s* ({_QUOTED} | [^'\",\[\]{{}}:] [^,\[\]{{}}:]*) (?:,|$)",
    re.VERBOSE,
)
_LINE = re.compile(r"(?:-|(\d{1,6})\s*:)\s+(.*)$")


def read_class_names(file: Path) -> Categories:
    """Read the classes with their numbers, also from a `classes.txt` with one name a line.

    Raises:
        ValueError: there are none, or not in a form that is understood.
    """
    if file.suffix.lower() == ".txt":
        return Categories.from_numbers(enumerate(filter(None, map(str.strip, _lines(file)))))
    keys = _top_level(file)
    if "names" not in keys:
        raise ValueError(f"{file}: expected 'names' of the classes, found {_listed(keys)}")
    first, *below = keys["names"]
    names = _flow(" ".join([first, *below])) if first else _block(below)
    if not names:
        raise ValueError(
            f"{file}: cannot read 'names': expected [cat, dog], or lines like '0: cat' or '- cat'"
        )
    return Categories.from_numbers(names.items())


def read_folders(file: Path) -> dict[str, str]:
    """Read `path`, `train` and `val`, as far as they are there.

    Raises:
        ValueError: one is not a folder's name.
    """
    keys = _top_level(file)
    values = {key: " ".join(keys.get(key, [])).strip() for key in ("path", "train", "val")}
    folders = {key: _text(value) for key, value in values.items()}
    for key, folder in folders.items():
        if folder is None or folder.endswith(".txt"):
            raise ValueError(
                f"{file}: {key}: {values[key]:.80}: expected one folder, as in images/train"
            )
    return {key: folder for key, folder in folders.items() if folder}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file") from error


def _listed(keys: dict[str, list[str]]) -> str:
    return ", ".join(keys)[:80] or "nothing"


def _top_level(file: Path) -> dict[str, list[str]]:
    """Return what stands behind each key, and on the lines below it, without comments."""
    keys: dict[str, list[str]] = {}
    value: list[str] = []
    for line in _lines(file):
        line = _QUOTED_OR_COMMENT.sub(_kept, line)
        key = _KEY.match(line)
        if key:
            value = keys[key[1]] = [(key[2] or "").strip()]
        elif line.strip():
            value.append(line.strip())
    return keys


def _kept(match: re.Match[str]) -> str:
    return match[0] if match[0][0] in "'\"" else ""


def _flow(text: str) -> dict[int, str] | None:
    """Read [cat, dog] or {0: cat, 1: dog}; None if it is neither."""
    if text[0] + text[-1] not in ("[]", "{}"):
        return None
    names: dict[int, str] = {}
    position, end = 1, len(text.rstrip("]} ,"))
    while position < end:
        item = _ITEM.match(text, position, end)
        if item is None or (item[1] is None) != (text[0] == "["):
            return None
        names[int(item[1] or len(names))] = _unquoted(item[2].strip())
        position = item.end()
    return names


def _block(lines: list[str]) -> dict[int, str] | None:
    """Read lines like "- cat" or "0: cat"; None if one is neither."""
    names: dict[int, str] = {}
    for line in lines:
        item = _LINE.match(line)
        name = item and _text(item[2])
        if item is None or not name:
            return None
        names[int(item[1] or len(names))] = name
    return names


def _text(value: str) -> str | None:
    """Read a text, plain or in quotes; None if it is something else."""
    if not value:
        return ""
    return _unquoted(value) if _TEXT.fullmatch(value) else None


def _unquoted(text: str) -> str:
    if text[0] == "'":
        return text[1:-1].replace("''", "'")
    if text[0] != '"':
        return text
    try:
        return str(json.loads(re.sub(r"\\x(..)", r"\\u00\1", text)))
    except ValueError:  # an escape that JSON does not know
        return text[1:-1]
