"""Names and contents of files that may be anything, read and told apart; files in the making."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import stat
import struct
import sys
import time
import zipfile
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeGuard
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from .problems import reason_of

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif"),
    )
)

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".flv", ".mpg", ".mpeg", ".ogv"),
        *(".3gp", ".ts", ".mts", ".m2ts", ".mjpg", ".mjpeg", ".m3u8"),
    )
)

# scheme://[user:password@]host[:port]; a scheme has two letters or more, so that C:// is a drive.
URL_HEAD = re.compile(
    r"[a-z][a-z0-9+.-]+://"
    r"(?:[^/?#]*@)?"
    r"(?:\[[^\]]*\]|[^/:?#]*)"
    r"(?::\d+(?=[:/?#]|$))?",
    re.IGNORECASE,
)

MAX_BYTES = 1 << 32
"""Larger files are refused: no image or annotation file is as large, and no memory holds it."""

NUMBER = re.compile(r"%(?:0(\d+))?d")
"""The place of the number in the names of numbered images; its group holds the fewest digits."""

# No scheme is longer; without that bound, a long text without one takes the square of its length.
# A password may hold what should have been written as %2F, %3F or %23; what may be a port is none.
_USER_PASSWORD = re.compile(
    r"([a-z][a-z0-9+.-]{1,20}://[^/?#@:\s]*:)(?:[^/?#\s]*@|(?!\d{1,5}(?:[/?\s]|$))[^@\n]{1,100}@)",
    re.IGNORECASE,
)
_QUERY_PASSWORD = re.compile(
    r"([?&](?:pass|passwd|password|pwd|loginpas|token|access_token|api_?key|key|secret|auth|"
    r"sig|signature|x-amz-signature|x-amz-security-token)=)[^&#\s]+",
    re.IGNORECASE,
)

_PART = re.compile(r"\..+\.\d+-([0-9a-f]{8})\.part(\.\w+)?")
_CHUNK = 1 << 20  # bytes of XML that are read at once
_MOST_TAG = 1 << 24  # bytes of a single tag of XML
_ZIP_END = 98  # bytes of the records at the end of a large archive
_IN_RECORD = 2**32 - 1  # of a small record: the number is in the large one
_LONGEST_NAME = 250  # bytes, of the 255 that file systems allow
_RETRIES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds to wait for a scanner of Windows


def open_file(path: Path) -> BinaryIO:
    """Open a file of unknown origin for reading: none that waits, never ends, or fills the memory.

    Raises:
        OSError: it is a folder, a pipe or a device, or has more than `MAX_BYTES`; or as `open`.
        ValueError: no file can have this name.
    """
    at_once = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for its writer
    descriptor = os.open(path, os.O_RDONLY | at_once | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"more than {MAX_BYTES:,} bytes", str(path))
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; errors are those of `open_file`."""
    with open_file(path) as file:
        return file.read()


def check_archive(file: BinaryIO) -> None:
    """Refuse an archive that unpacks to more than its size: PyTorch and NumPy pack nothing.

    Raises:
        ValueError: so it does.
    """
    file.seek(0)
    if file.read(4) == b"PK\3\4" or zipfile.is_zipfile(file):
        size = file.seek(0, os.SEEK_END)
        if not _has_one_directory(file, size):  # readers would find different ones
            raise ValueError("its directory is not at its end")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        packed = [entry.filename for entry in entries if entry.compress_type]
        if packed:
            raise ValueError(f"its entry {packed[0]!a:.80} is compressed")
        if sum(entry.file_size for entry in entries) > size:  # several share their bytes
            raise ValueError("its entries are larger than the file")
    file.seek(0)


def _has_one_directory(file: BinaryIO, size: int) -> bool:
    """Tell whether a ZIP file ends with its directory and the plain records of its end.

    Args:
        file: to be read.
        size: of it in bytes.
    """
    file.seek(max(size - _ZIP_END, 0))
    tail = file.read().rjust(_ZIP_END, b"\0")
    record, locator, end = tail[:56], tail[56:76], tail[76:]
    directory, begin, comment = struct.unpack("<2LH", end[12:])
    if end[:4] != b"PK\5\6" or comment:
        return False
    if locator[:4] != b"PK\6\7":
        return bool(begin + directory + len(end) == size)
    (place,), large = struct.unpack("<Q", locator[8:16]), struct.unpack("<2Q", record[40:])
    is_same = all(a in (b, _IN_RECORD) for a, b in zip((directory, begin), large, strict=True))
    at_end = place == sum(large) == size - _ZIP_END
    return bool(is_same and at_end and record[:4] == b"PK\6\6")


def read_json(file: Path) -> object:
    """Read a JSON file.

    Raises:
        ValueError: it is none, or cannot be read; one line that names it.
    """
    return read_json_of(file)[0]


def read_json_of(file: Path) -> tuple[object, str]:
    """Read a JSON file, and tell its encoding; the rest is as in `read_json`."""
    text, encoding = read_text_of(file)
    try:
        return json.loads(text), encoding
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error


def read_text_of(file: Path) -> tuple[str, str]:
    """Read a text file, and tell its encoding, see `decode_text`.

    Raises:
        ValueError: it cannot be read; one line that names it.
    """
    try:
        return decode_text(read_bytes(file))
    except (OSError, ValueError) as error:  # a name with a zero byte
        raise ValueError(f"cannot read {file}: {reason_of(error)}") from error


def decode_text(content: bytes) -> tuple[str, str]:
    """Decode a text whose encoding nobody noted.

    UTF-8, 16 and 32 are told for sure. What is none of them comes from an old program: of Chinese
    ones the letters beyond ASCII are pairs of bytes, of Western ones single bytes.

    Returns:
        The text without a byte order mark, and the encoding.
    """
    encoding = json.detect_encoding(content)
    with contextlib.suppress(UnicodeDecodeError):
        return content.decode(encoding), encoding
    runs = re.findall(rb"[\x80-\xff]+", content)
    pairs = sum(len(run) % 2 == 0 for run in runs)
    for name in ("gb18030", "cp1252") if 2 * pairs > len(runs) else ("cp1252",):
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode(name), name
    return content.decode("latin-1"), "latin-1"


def xml_elements(file: Path, tags: Collection[str]) -> Iterator[Element]:
    """Yield the outermost elements of some names, each as soon as it is read.

    Entities are refused: they could expand a small file to gigabytes, or name other files.

    Raises:
        ValueError: the file is no XML, or cannot be read; one line that names it.
    """
    elements = _Elements(tags)
    try:
        with open_file(file) as stream:
            while chunk := stream.read(_CHUNK):
                elements.parser.Parse(chunk, False)
                # A tag that goes on is parsed from its beginning each time.
                if stream.tell() - elements.parser.CurrentByteIndex > _MOST_TAG:
                    raise ValueError(f"a tag in it has more than {_MOST_TAG:,} bytes")
                yield from elements.take()
        elements.parser.Parse(b"", True)
        yield from elements.take()  # Expat from 2.6 on may wait with a long tag until the end
    except OSError as error:
        raise ValueError(f"cannot read {file}: {reason_of(error)}") from error
    except (expat.ExpatError, ValueError, LookupError) as error:  # also an unknown encoding
        raise ValueError(f"{file} is not valid XML: {error}") from error


class _Elements:
    """Collects the elements of some names, and lets go of all others."""

    def __init__(self, tags: Collection[str]) -> None:
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._refuse
        self._tags, self._depth = tags, 0
        self._builder = TreeBuilder()
        self._done: list[Element] = []

    def take(self) -> list[Element]:
        done, self._done = self._done, []
        return done

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._depth or tag in self._tags:
            self._depth += 1
            self._builder.start(tag, attributes)

    def _end(self, tag: str) -> None:
        if self._depth:
            self._depth -= 1
            self._builder.end(tag)
            if not self._depth:
                self._done.append(self._builder.close())
                self._builder = TreeBuilder()

    def _text(self, text: str) -> None:
        if self._depth:
            self._builder.data(text)

    def _refuse(self, name: str, *_: object) -> None:
        raise ValueError(f"it declares an entity, {name:.40}")


def is_file(path: Path) -> bool:
    """Tell whether there is a file of a name that may be anything."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a JSON value is a number that a float can hold, so not NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -1e300 < value < 1e300


def is_positive(value: object) -> TypeGuard[int]:
    """Tell whether a JSON value is a whole number above 0."""
    return type(value) is int and value > 0


def is_url(text: str) -> bool:
    """Tell a stream or web address such as `rtsp://camera/live` from a path."""
    return URL_HEAD.match(text) is not None


def url_path(url: str) -> PurePosixPath:
    """Return the path of a web address, without what follows "?" or "#".

    Raises:
        ValueError: its host is none.
    """
    return PurePosixPath(urlsplit(url).path)


def url_stem(url: str) -> str:
    """Return the name of what a web address leads to, without suffix; it may hold any letter."""
    return unquote(url_path(url).stem)


def is_numbered(text: str) -> bool:
    """Tell whether a name stands for numbered images, as `frames/%06d.png`."""
    path = Path(text)
    return NUMBER.search(path.name) is not None and path.suffix.lower() in IMAGE_SUFFIXES


def natural_key(name: str | Path) -> tuple[list[str | int], str]:
    """Return a key that sorts 9 before 10 and a2 before A10; texts and numbers take turns in it."""
    parts = re.split(r"(\d{1,18})", str(name).lower())  # Python reads no number of 5000 digits
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(name)


def without_password(text: str) -> str:
    """Return a text, such as an address or a message, with the passwords in addresses masked."""
    text = _USER_PASSWORD.sub(r"\1***@", text)
    return _QUERY_PASSWORD.sub(r"\1***", text)


def part_name(name: str, suffix: str = "") -> str:
    """Return the name of a file while it is written: hidden, of this process and machine alone.

    Args:
        name: of the finished file, or another one.
        suffix: for writers that go by it.
    """
    own = f".{os.getpid()}-{_machine()}.part{suffix}"
    if len(name.encode(errors="surrogateescape")) + len(own) > _LONGEST_NAME:
        name = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return f".{name}{own}"


@contextlib.contextmanager
def locked_part(part: Path) -> Iterator[None]:
    """Make a file, and keep others from sweeping it up; its system ends that with the process."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with part.open("ab") as file:
        with contextlib.suppress(OSError):  # a file system without locks: none is swept there
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def remove_stale_parts(folder: Path) -> None:
    """Delete what killed processes of this machine left half-written, if that can be told.

    Args:
        folder: to look into; it need not exist.
    """
    if sys.platform == "win32":
        return
    import fcntl

    for part in folder.glob(".*.part*"):
        name = _PART.fullmatch(part.name)
        if name and name[1] == _machine() and part.is_file():
            with contextlib.suppress(OSError), part.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error: somebody writes it
                part.unlink()


def replace_file(part: Path, path: Path) -> None:
    """Give a finished file its name, in place of an older file.

    Windows refuses that while a virus scanner or the like reads one of them: it is tried again.
    """
    for seconds in _RETRIES if sys.platform == "win32" else ():
        with contextlib.suppress(PermissionError):
            part.replace(path)
            return
        time.sleep(seconds)
    part.replace(path)


@cache
def _machine() -> str:
    """Return what tells machines apart that share a folder: locks may hold on one of them alone."""
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
