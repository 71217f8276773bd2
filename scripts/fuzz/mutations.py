"""Small damage to the content of a file: any bytes, or what the format lets through its parser.

Every function takes the content and a source of chance, and returns the damaged content.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

Mutate = Callable[[bytes, Random], bytes]

_NUMBERS: tuple[Any, ...] = (
    *(
        0,
        1,
        -1,
        2,
        7,
        255,
        256,
        32767,
        65536,
        2**31 - 1,
        2**31,
        2**32,
        2**53,
        2**63,
        2**64,
        -(2**63),
    ),
    *(10**30, 10**400, 0.0, -0.0, 0.5, 1e-300, 1e9, 1e300, 1e308, float("nan"), float("inf")),
)
_TEXTS = (
    *("", " ", "x", "-5", "nan", "1e999", "0x10", "\0", "a\nb", "\ud800", "\x1b[31m", "é中"),
    *("../../etc/passwd", "/dev/zero", "C:\\x", "a" * 300, "%d", "{}", "${x}", "1,2;3", "9" * 30),
    *("9" * 5000, "-1", "true", "null", "[", "&a *a", "http://localhost:1/x.png"),
)
JUNK: tuple[Any, ...] = (
    *(None, True, False, *_NUMBERS, *_TEXTS),
    *([], {}, [[]], [None], [{}], {"a": 1}, [1, 2, 3], ["x"] * 3, [[1e9, 1]] * 3, [0] * 1000),
)
_TOKEN = re.compile(rb"[\w.+-]+")
_VALUE = re.compile(rb"\"[^\"]*\"|>[^<]*<")
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST = 1 << 16  # bytes that damaged content may have


def damaged(content: bytes, random: Random) -> bytes:
    """Change, insert, remove or repeat a few bytes anywhere."""
    changed = bytearray(content)
    for _ in range(1 + int(min(random.expovariate(0.7), 12))):
        place = random.randrange(len(changed) + 1)
        length = int(min(1 + random.expovariate(0.1), 256))
        end = place + length
        choice = random.randrange(7)
        if choice == 0:
            changed[place : place + 1] = bytes([random.randrange(256)])
        elif choice == 1 and place < len(changed):
            changed[place] ^= 1 << random.randrange(8)
        elif choice == 2:
            del changed[place:end]
        elif choice == 3:
            changed[place:place] = changed[place:end] * random.choice((1, 1, 1, 2, 50))
        elif choice == 4:
            number = random.choice((0, 1, 127, 255, 256, 32767, 65535, 2**31 - 1, 2**32 - 1))
            form = random.choice(("<I", ">I", "<H", ">H"))
            size = struct.calcsize(form)
            changed[place : place + size] = struct.pack(form, number % 256**size)
        elif choice == 5:
            other = random.randrange(len(changed) + 1)
            changed[place:end] = changed[other : other + length]
        elif random.random() < 0.2:
            del changed[place:]
    return bytes(changed[:_MOST])


def damaged_text(content: bytes, random: Random) -> bytes:
    """Replace numbers and words of a text, or repeat and drop its lines."""
    if random.random() < 0.2:
        return damaged(content, random)
    for _ in range(1 + int(min(random.expovariate(1), 6))):
        if random.random() < 0.3:
            lines = content.splitlines(keepends=True)
            place = random.randrange(len(lines) + 1)
            again = random.choices(lines, k=random.choice((0, 1, 2, 100))) if lines else []
            lines[place : place + random.randrange(2)] = again
            content = b"".join(lines)[:_MOST]
        else:
            content = _with_one_replaced(content, _TOKEN, _word(random), random)
    return content[:_MOST]


def damaged_xml(content: bytes, random: Random) -> bytes:
    """Replace what is between quotes, or between elements."""
    if random.random() < 0.2:
        return damaged_text(content, random)
    for _ in range(1 + int(min(random.expovariate(1), 6))):
        found = _VALUE.search(content, random.randrange(len(content) + 1))
        if found:
            whole, inner = found[0], found[0][1:-1]
            new = damaged_text(inner, random) if random.random() < 0.6 else _word(random)
            content = (
                content[: found.start()] + whole[:1] + new + whole[-1:] + content[found.end() :]
            )
    return content[:_MOST]


def damaged_json(content: bytes, random: Random) -> bytes:
    """Put junk into a few places of a JSON value, or drop, repeat and swap what is there."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return damaged(content, random)
    if random.random() < 0.1:
        return damaged(content, random)
    for _ in range(1 + int(min(random.expovariate(1), 3))):
        value = damaged_value(value, random)
    try:
        changed = json.dumps(value).encode()
    except RecursionError:
        return content
    return changed if len(changed) <= _MOST else damaged(content, random)


def damaged_value(value: Any, random: Random, leaf: Callable[[Any], Any] | None = None) -> Any:
    """Damage one place of a plain value, found by a walk from its root; the value stays as it is.

    Args:
        value: of dicts, lists, numbers and texts.
        random: chance.
        leaf: damages what is none of these, such as a tensor.
    """
    if isinstance(value, (dict, list)) and value and random.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key, other = random.choice(keys), random.choice(keys)
        copy: Any = value.copy()
        choice = random.random()
        if choice < 0.05:
            del copy[key]
        elif choice < 0.08 and isinstance(copy, dict):
            copy[random.choice(_TEXTS)] = copy[key]
        elif choice < 0.08:
            copy[key:key] = [copy[key]] * random.choice((1, 1, 20))
        elif choice < 0.11:
            copy[key] = copy[other]
        else:
            copy[key] = damaged_value(value[key], random, leaf)
        return copy
    if leaf is not None and not isinstance(value, (dict, list, str, int, float, type(None))):
        return leaf(value)
    if isinstance(value, str) and random.random() < 0.5:
        return damaged(value.encode("utf-8", "surrogatepass"), random).decode("utf-8", "replace")
    if type(value) in (int, float) and random.random() < 0.5:
        return _near(value, random)
    return random.choice(([value], {"a": value})) if random.random() < 0.05 else random.choice(JUNK)


def damaged_zip(content: bytes, random: Random) -> bytes:
    """Damage a member of an archive, whose checksums fit afterwards; sometimes its frame."""
    if random.random() < 0.15:
        return damaged(content, random)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # whatever zipfile raises for an archive that is damaged already
        return damaged(content, random)
    if not members:
        return damaged(content, random)
    pickles = [i for i, (name, _) in enumerate(members) if name.endswith(".pkl")]
    place = (
        random.choice(pickles)
        if pickles and random.random() < 0.7
        else random.randrange(len(members))
    )
    name, inner = members[place]
    members[place] = (name, damaged(inner, random))
    if random.random() < 0.05:
        members[place] = (damaged(name.encode(), random).decode("utf-8", "replace"), inner)
    elif random.random() < 0.05:
        del members[place]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, inner in dict(members).items():
            archive.writestr(name[:60000].replace("\0", "0") or "0", inner)
    return packed.getvalue()


def damaged_safetensors(content: bytes, random: Random) -> bytes:
    """Damage the JSON head of a file of safetensors, whose length fits afterwards."""
    length = int.from_bytes(content[:8], "little")
    if random.random() < 0.2 or len(content) < 8 + length:
        return damaged(content, random)
    head = damaged_json(content[8 : 8 + length], random)
    return len(head).to_bytes(8, "little") + head + content[8 + length :]


def damaged_image(content: bytes, random: Random) -> bytes:
    """Damage an image; the checksums of PNG fit afterwards, or nothing of it would be looked at."""
    changed = damaged(content, random)
    if not changed.startswith(_PNG) or random.random() < 0.2:
        return changed
    pieces, place = [_PNG], len(_PNG)
    while place + 12 <= len(changed):
        length = int.from_bytes(changed[place : place + 4], "big")
        chunk = changed[place + 4 : place + 8 + min(length, len(changed))]
        crc = zlib.crc32(chunk).to_bytes(4, "big")
        pieces.append(changed[place : place + 4] + chunk + crc)
        place += 8 + len(chunk)
    return b"".join(pieces)


def _with_one_replaced(
    content: bytes, pattern: re.Pattern[bytes], new: bytes, random: Random
) -> bytes:
    found = pattern.search(content, random.randrange(len(content) + 1))
    return content[: found.start()] + new + content[found.end() :] if found else content + new


def _word(random: Random) -> bytes:
    value = random.choice(_NUMBERS + _TEXTS)
    return str(value).encode("utf-8", "surrogatepass") if value != 10**400 else b"1" + b"0" * 400


def _near(value: float, random: Random) -> Any:
    """Return a number that is not far off, or of another kind."""
    try:
        changes = (
            value + 1,
            value - 1,
            -value,
            value * 2,
            value * 1000,
            value / 3,
            float(value),
            int(value),
        )
    except (OverflowError, ValueError):
        return 0
    return random.choice(changes)
