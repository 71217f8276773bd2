"""Settings from text or plain values, as any frozen dataclass, checked by its types."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from data.problems import printable

from .timm_networks import TIMM_PREFIX, pixel_statistics

_MOST_NAMES, _MOST_NUMBERS = 10_000, 1000  # in a list
_MOST_BITS = 64  # of a whole number, with its sign

T = TypeVar("T")


def within(least: float, greatest: float, default: T) -> T:
    """Return the field of a setting that is a number, or holds some, in these limits."""
    return field(default=default, metadata={"limits": (least, greatest)})


def check_limits(part: Any, where: str = "") -> None:
    """Refuse numbers out of range, infinite or NaN.

    Args:
        part: a dataclass of settings.
        where: what their names begin with, for messages.

    Raises:
        ValueError: the first such number.
    """
    for entry in fields(part):
        name, value = where + entry.name, getattr(part, entry.name)
        if "limits" in entry.metadata:
            low, high = entry.metadata["limits"]
            if not all(low <= number <= high for number in _numbers(value)):
                raise ValueError(f"{name}={shown(value)}: expected {low:.15g} to {high:.15g}")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    else:
        yield value


def shown(value: object) -> str:
    """Return an untrusted value as text for an error: one line of limited length."""
    return f"{value!r:.200}"


def plain(value: Any) -> Any:
    """Convert tuples to lists, recursively."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def assign(part: Any, path: list[str], text: str, whole: str) -> Any:
    """Return a copy of a dataclass with one field replaced.

    Args:
        part: the dataclass.
        path: names of the field, from the outermost.
        text: its value, as on a command line.
        whole: the path as the user wrote it, for messages.

    Raises:
        KeyError: no such field; the message names the nearest one.
        ValueError: a value of the wrong type or out of range.
    """
    hints = _hints_of(type(part))
    name = path[0]
    if name not in hints or is_dataclass(hints[name]) != (len(path) > 1):
        raise KeyError(f"{shown(whole)} is no setting{_nearest(part, path, whole)}")
    if len(path) > 1:
        return replace(part, **{name: assign(getattr(part, name), path[1:], text, whole)})
    values = {name: _coerce(_literal(text, hints[name]), hints[name], whole)}
    if name == "class_names":
        values["num_classes"] = len(values[name]) or part.num_classes
    elif name == "num_classes" and values[name] != len(part.class_names):
        values["class_names"] = ()
    elif name == "backbone":
        own = _statistics(part, values[name])
        if own != _statistics(part, part.backbone):
            values["pixel_mean"], values["pixel_std"] = own
    return replace(part, **values)


def _statistics(model: Any, backbone: str) -> tuple[tuple[float, ...], ...]:
    """Return the pixel mean and standard deviation that a backbone was trained with."""
    if backbone.startswith(TIMM_PREFIX):
        return pixel_statistics(backbone)
    if backbone == "darknet53":
        return (0.0,) * 3, (255.0,) * 3
    return type(model).pixel_mean, type(model).pixel_std


def _nearest(part: Any, path: list[str], whole: str) -> str:
    prefix = whole.removesuffix(".".join(path))
    names = [f.name for f in fields(part)]
    close = difflib.get_close_matches(path[0], names, 1)
    if close and close[0] != path[0]:
        return f"; did you mean {prefix + '.'.join([close[0], *path[1:]])!r}?"
    return f"; there are {', '.join(prefix + name for name in names)}"


def _literal(text: str, hint: Any) -> Any:
    """Read a command-line value: a Python literal, or words, split at commas for tuples."""
    many = get_origin(hint) is tuple
    words = (get_args(hint)[0] if many else hint) is str
    if words and not (many and text[:1] in ("(", "[")):
        value: Any = text
    else:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = {"true": True, "false": False}.get(text.lower(), text)
    if many and isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return (value,) if many and not isinstance(value, (tuple, list)) else value


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Check a value against a field's type, turning lists to tuples and ints to floats."""
    if type(value) is int and value.bit_length() > _MOST_BITS:  # no float, and none to be shown
        raise ValueError(f"{where}: expected a number of at most {_MOST_BITS} bits")
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise ValueError(f"{where}={shown(value)}: expected one of {', '.join(get_args(hint))}")
    if get_origin(hint) is tuple:
        if isinstance(value, (list, tuple)):
            most = _MOST_NAMES if get_args(hint)[0] is str else _MOST_NUMBERS
            if len(value) > most:
                raise ValueError(f"{where}: expected at most {most:,} values, not {len(value):,}")
            return tuple(_coerce(item, get_args(hint)[0], where) for item in value)
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
    raise ValueError(f"{where}={shown(value)}: expected {expected}")


_hints_of: Callable[[type[Any]], dict[str, Any]] = cache(get_type_hints)  # type: ignore[assignment]  # a class can be hashed


def build(cls: type[Any], values: Any, where: str) -> Any:
    """Build a dataclass from plain values, which may be untrusted.

    Args:
        cls: the dataclass; fields may be dataclasses, too.
        values: values by name.
        where: name of the values, for messages.

    Raises:
        ValueError: a field is unknown, missing, of the wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected settings by name, got {type(values).__name__}")
    hints = _hints_of(cls)
    unknown = set(values) - set(hints)
    if unknown:
        names = printable(", ".join(sorted(map(str, unknown))))
        raise ValueError(f"{where}: unknown settings {names:.200}")
    built = {}
    for name, value in values.items():
        hint, path = hints[name], f"{where}.{name}"
        nested = isinstance(hint, type) and is_dataclass(hint)
        built[name] = build(hint, value, path) if nested else _coerce(value, hint, path)
    try:
        return cls(**built)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None
