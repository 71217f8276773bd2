"""The `data.yaml` of a YOLO dataset: the names of its classes, and where its images are.

Such files come with scripts to download the images (`download`): these are never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from data.classes import Categories
from data.files import read_text_of
from data.problems import first_line, reason_of

MAX_BYTES = 1 << 20
"""Of a file: a thousand classes take some 30 kB."""

_DEEPEST = 50  # of brackets in each other
_SPELLINGS = {"train": ("train",), "val": ("val", "valid", "validation")}
_NOTHING = ("", "~", "null", "Null", "NULL")  # how YAML writes it


class YoloPaths(NamedTuple):
    """Where a file says that the images are.

    Attributes:
        root: the folder of the dataset, as it is written there; "" if it is not.
        splits: folders and lists of images, as they are written, by "train" and "val".
    """

    root: str
    splits: dict[str, list[str]]


def read_class_names(file: Path) -> Categories:
    """Read the classes with their numbers, also from a `classes.txt` with one name a line.

    Raises:
        ValueError: there are none, or not in a form that is understood.
    """
    if file.suffix.lower() == ".txt":
        lines = map(str.strip, _text(file).splitlines())
        return Categories.from_numbers(enumerate(filter(None, lines)))
    content = _content(file)
    if "names" not in content:
        listed = ", ".join(map(str, content))[:80] or "nothing"
        raise ValueError(f"{file}: expected 'names' of the classes, found {listed}")
    names = content["names"]
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(numbered, dict) or not numbered or not all(map(_is_class, numbered.items())):
        raise ValueError(
            f"{file}: cannot read 'names': expected [cat, dog], or lines like '0: cat' or '- cat'"
        )
    return Categories.from_numbers((int(number), name) for number, name in numbered.items())


def read_places(file: Path) -> YoloPaths:
    """Read `path`, `train` and `val`, as far as they are there.

    Raises:
        ValueError: one is neither a name nor a list of names.
    """
    content = _content(file)
    splits = {
        split: names
        for split, spellings in _SPELLINGS.items()
        for key in [next((key for key in spellings if key in content), "")]
        if key and (names := _names(content[key], f"{file}: {key}"))
    }
    root = _names(content.get("path", ""), f"{file}: path")
    return YoloPaths(root[0] if root else "", splits)


def write_data_yaml(file: Path, content: Mapping[str, object]) -> None:
    """Write such a file."""
    import yaml

    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    file.write_text(text, encoding="utf-8")


def _is_class(item: tuple[object, object]) -> bool:
    number, name = item
    is_number = isinstance(number, int) or (isinstance(number, str) and number.isdecimal())
    return is_number and len(str(number)) < 7 and isinstance(name, str) and bool(name.strip())


def _names(value: object, where: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    names = [name for name in values if isinstance(name, str)]
    if len(names) < len(values):
        raise ValueError(f"{where}: expected a folder as in images/train, or a list of them")
    return [name for name in names if name not in _NOTHING]


@cache
def _loader() -> type[Any]:
    """Return what reads texts, lists and dicts alone; texts as they are written: "no" stays that.

    References are shared, not copied, so few lines cannot stand for gigabytes.
    """
    import yaml

    class Loader(yaml.BaseLoader):
        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level >= _DEEPEST:  # each further bracket would take longer than the last
                raise yaml.YAMLError(f"lists in lists, more than {_DEEPEST} deep")
            super().fetch_flow_collection_start(token)

    return Loader


def _content(file: Path) -> Mapping[object, object]:
    import yaml

    try:
        content = yaml.load(_text(file), _loader())
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{file}: no YAML to read 'names' from: {line}{error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = f"{first_line(error):.80}"
        raise ValueError(f"{file}: no YAML to read 'names' from: {reason}") from error
    return content if isinstance(content, dict) else {}


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"{file} has more than {MAX_BYTES} bytes: no such file lists classes")
    except OSError as error:
        raise ValueError(f"cannot read {file}: {reason_of(error)}") from error
    return read_text_of(file)[0]
