"""The parts of a COCO file, in every form that tools write: its lists, identifiers and classes."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

from data.classes import Categories
from data.files import is_positive, read_json_of
from data.images import MAX_PIXELS
from data.problems import Unusable, printable

_logger = logging.getLogger(__name__)

MAX_ID = 2**63 - 1
"""The largest identifier that fits into a table."""

Key = int | str
"""An identifier: a whole number, or a text that is none."""

_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,19})(?:\.0*)?\s*")


def id_key(value: object) -> Key | None:
    """Return the identifier that a JSON value stands for: 7 for 7, 7.0 and "7"; None for none."""
    if type(value) is int:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if not isinstance(value, str) or not value.strip():
        return None
    number = _WHOLE.fullmatch(value)
    return int(number[1]) if number else value.strip()


def numbers_of(keys: Iterable[Key]) -> dict[Key, int]:
    """Give every identifier that is a text a number that no other one has."""
    keys = dict.fromkeys(keys)
    numbers: dict[Key, int] = {key: key for key in keys if isinstance(key, int)}
    unused = (number for number in count(1) if number not in numbers)
    return numbers | {key: next(unused) for key in keys if isinstance(key, str)}


def read_content(file: Path) -> dict[str, object]:
    """Read a COCO file without a look at its lists.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a JSON file with an object.
    """
    if not file.exists():
        raise FileNotFoundError(f"no such annotation file: {file}")
    content, encoding = read_json_of(file)
    if not encoding.startswith("utf"):
        _logger.warning("%s is not UTF-8: read as %s", file, encoding)
    if not isinstance(content, dict):
        raise ValueError(
            f"{file}: expected an object with 'images', 'annotations' and 'categories', "
            f"found a {type(content).__name__}"
        )
    return content


def entries_of(content: Mapping[str, object], key: str) -> list[object]:
    """Return a list of the file; some tools write an object instead, with the ids as its keys.

    Raises:
        ValueError: there is none.
    """
    entries = content.get(key)
    if isinstance(entries, dict):
        entries = [
            {"id": number} | entry if isinstance(entry, dict) else entry
            for number, entry in entries.items()
        ]
    if not isinstance(entries, list):
        found = printable(", ".join(content)) or "nothing"
        raise ValueError(f"expected a list {key!r}, found {found:.300}")
    return entries


def read_categories(
    content: Mapping[str, object], wanted: Categories | None
) -> tuple[Categories, dict[Key, int]]:
    """Return the classes, and the label of each category id in the file, and of each name.

    Roboflow lists the group of all classes as the first of them: what only groups others, and has
    no object, is no class.

    Args:
        content: of the file.
        wanted: the classes of a trained model, whose labels are taken over.

    Raises:
        ValueError: there are none, or none that is wanted.
    """
    if wanted is not None and "categories" not in content:
        return wanted, {number: label for number, label in wanted.label_of.items()}
    entries = entries_of(content, "categories")
    keys = [id_key(entry.get("id")) if isinstance(entry, dict) else None for entry in entries]
    numbers = numbers_of(key for key in keys if key is not None)
    groups = _groups(entries, keys, content)
    if groups:
        names = ", ".join(groups.values())
        _logger.info("no object is of class %s, which groups others: left out", names)
    own = Categories.from_coco_json(
        [
            entry | {"id": numbers[key]} if isinstance(entry, dict) and key is not None else entry
            for place, (entry, key) in enumerate(zip(entries, keys, strict=True))
            if place not in groups
        ]
    )
    categories, label_of = (own, own.label_of) if wanted is None else _matched(own, wanted)
    number_of: dict[Key, int] = {**dict(zip(own.names, own.category_ids, strict=True)), **numbers}
    return categories, {key: label_of[n] for key, n in number_of.items() if n in label_of}


def other_names(content: Mapping[str, object], label_of: Mapping[Key, int]) -> dict[Key, str]:
    """Return the names of the classes in a file that have no label, by id and by name."""
    others: dict[Key, str] = {}
    for entry in entries_of(content, "categories") if "categories" in content else []:
        if isinstance(entry, dict) and (key := id_key(entry.get("id"))) is not None:
            name = str(entry.get("name"))
            others |= {} if key in label_of else {key: name, name: name}
    return others


def _groups(
    entries: list[object], keys: Sequence[Key | None], content: Mapping[str, object]
) -> dict[int, str]:
    """Return the entries of `categories` that only group others, and have no object, with names."""
    texts = [_texts(entry) for entry in entries]
    members = Counter(group for name, group in texts if group != name)
    groups = {place: name for place, (name, _) in enumerate(texts) if name and members[name]}
    if not groups or "annotations" not in content:
        return {}
    objects = entries_of(content, "annotations")
    used = {id_key(each.get("category_id")) for each in objects if isinstance(each, dict)}
    return {place: name for place, name in groups.items() if used.isdisjoint({keys[place], name})}


def _texts(entry: object) -> tuple[str, str]:
    """Return the name and the group of an entry, "" for what it lacks."""
    found = [entry.get(key) if isinstance(entry, dict) else "" for key in ("name", "supercategory")]
    name, group = (text if isinstance(text, str) else "" for text in found)
    return name, group


def _matched(own: Categories, wanted: Categories) -> tuple[Categories, dict[int, int]]:
    matched, label_of = own.matched_to(wanted)
    if len(own) and not label_of:
        raise ValueError(f"none of its classes is known to the model: {', '.join(own.names)}")
    known = {name: own.category_ids[place] for place, name in enumerate(own.names)}
    labels = {name: label_of[number] for name, number in known.items() if number in label_of}
    other = {name: wanted.names[label] for name, label in labels.items()}
    if other and not any(name.casefold() == other[name].casefold() for name in other):
        _logger.warning("no class name agrees with the model's: classes are matched by id")
    elif spelled := [f"{name} as {other[name]}" for name in other if name != other[name]]:
        _logger.warning("classes that the model spells otherwise: %s", ", ".join(spelled))
    return matched, label_of


def stated_hw(
    entry: Mapping[str, object], height_key: str = "height", width_key: str = "width"
) -> tuple[int, int] | None:
    """Return the size that a file states for an image, None if it does not.

    Raises:
        Unusable: it is more than can be read.
    """
    height, width = id_key(entry.get(height_key)), id_key(entry.get(width_key))
    if not (is_positive(height) and is_positive(width)):
        return None
    if height * width > MAX_PIXELS:
        most = f"{width} x {height}, but at most {MAX_PIXELS:,} pixels are read"
        mend = f"{most}: cut it into parts, or correct its {height_key!r} and {width_key!r}"
        raise Unusable("an image of impossible size", mend)
    return height, width
