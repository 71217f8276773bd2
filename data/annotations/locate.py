"""Where the images are that annotations name, whatever machine and tool wrote the names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

from data.files import IMAGE_SUFFIXES, is_file, is_url
from data.problems import Unusable

from .paths import relative_name

MISSING_IMAGE = "a missing image"
"""The problem with a name for which there is no file."""

_AMBIGUOUS = "an image that could be several files"
_PART_FOLDERS = frozenset(
    ("annotations", "annotation", "anns", "labels", "label", "json", "jsons", "xml", "images")
)
"""Names of folders that hold a part of a dataset, so that its root is above."""

_DEPTH = 3  # folders that the root may be above the images or their annotations
_MOST_FILES = 1_000_000  # that are listed below a root: more are no dataset
_MOST_ALIKE = 100  # files of one name that are told apart: a bound for hostile folders
_DRIVE = re.compile(r"[A-Za-z]:(?=/)")
_UPLOAD = re.compile(
    r"(?<![^/])[0-9a-f]{8}-(?=[^/]+$)"
)  # what Label Studio puts before the name of an upload
_NOT_IN_UPLOADS = re.compile(r"[^-\w.]")  # what it leaves out of the name, as Django does


def joined_name(folder: str, name: str) -> str:
    """Return a name relative to where the folder is that it is relative to; either may be ""."""
    is_free = not folder or _is_absolute(name.replace("\\", "/")) or is_url(name)
    return name if is_free else f"{folder}/{name}"


def image_path(folder: Path, relative: str) -> Path:
    """Return the path of an image that was found, without the links that `..` would follow."""
    path = folder / relative
    return Path(os.path.normpath(path)) if relative.startswith("..") else path


class _Found(NamedTuple):
    """A file for a name.

    Attributes:
        path: absolute.
        is_exact: the name leads there, rather than only its last parts.
    """

    path: str
    is_exact: bool


class ImageFinder:
    """Finds images by the names in annotations, without ever leaving the dataset.

    The image folder comes first. Then a name is taken relative to the annotations and to the
    folders above the images, up to the root: the folder that holds both, or the one above if that
    is called `annotations`, `labels` or `images`. In the end whatever lies below the root and
    agrees in the last parts is taken, unless another folder of images is named. Names may have
    either slash, be quoted as in addresses, be addresses (Label Studio's too), be absolute paths
    of another machine, or differ in case.

    A folder is listed once. Links are followed in the image folder, where the user put them; what
    is found elsewhere has to lie below the root when all links are resolved.

    Args:
        folder: of the images.
        annotations: the annotation file, or the folder of such files.
    """

    def __init__(self, folder: Path, annotations: Path) -> None:
        beside = annotations if annotations.is_dir() else annotations.parent
        folder, beside = _absolute(folder), _absolute(beside)
        self._folder, self._beside = str(folder), str(beside)
        self._root = str(_root_of(folder, beside))
        self._names = _files_in(self._folder)
        self._listings: dict[str, frozenset[str]] = {}
        self._real_folders: dict[str, bool] = {}

    def find(self, name: str, loosely: bool = True) -> Path:
        """Return the absolute path of the image of one name.

        Args:
            name: in any of the forms.
            loosely: take an image that only ends like it, too.

        Raises:
            Unusable: there is none, or there are several.
        """
        return Path(self._find(name, loosely).path)

    def relative(self, path: Path | str) -> str:
        """Return the path of an image as text, relative to the image folder and with slashes."""
        text, top = str(path), self._folder + os.sep
        if not text.startswith(top):
            return relative_name(text, self._folder)
        return text[len(top) :].replace(os.sep, "/")

    def find_all(self, names: Sequence[str]) -> list[str | Unusable]:
        """Return the image of each name, relative to the image folder, or why there is none.

        A file that a name leads to is not taken for another name that only ends like it; names
        that all only end like one file are refused.
        """
        found: list[_Found | Unusable] = []
        for name in names:
            try:
                found.append(self._find(name))
            except Unusable as error:
                found.append(error)
        exact = {hit.path for hit in found if isinstance(hit, _Found) and hit.is_exact}
        pairs = zip(names, found, strict=True)
        loose = {(name, hit.path) for name, hit in pairs if isinstance(hit, _Found)}
        claims = Counter(path for _, path in loose)
        results: list[str | Unusable] = []
        for hit in found:
            if isinstance(hit, Unusable):
                results.append(hit)
            elif not hit.is_exact and (hit.path in exact or claims[hit.path] > 1):
                mend = f"only {hit.path} is called so, and is the image of another entry"
                results.append(Unusable(MISSING_IMAGE, mend))
            else:
                results.append(self.relative(hit.path))
        return results

    def _find(self, name: str, loosely: bool = True) -> _Found:
        if name in self._names:
            return _Found(self._folder + os.sep + name, is_exact=True)
        spellings = list(dict.fromkeys(_spellings(name)))
        for spelling in spellings:
            path = _joined(self._folder, spelling)
            is_own = _is_below(path, self._folder)
            if self._is_listed(path) and (is_own or self._stays(path)):
                return _Found(path, is_exact=True)
        for spelling in spellings:
            paths = dict.fromkeys(_joined(base, spelling) for base in self._bases)
            hits = [path for path in paths if self._is_listed(path) and self._stays(path)]
            if hits:
                return _Found(_only(hits), is_exact=True)
        for spelling in spellings if loosely else ():
            if hits := [path for path in self._ending_like(spelling) if self._stays(path)]:
                return _Found(_only(hits), is_exact=False)
        uploads = dict.fromkeys(_UPLOAD.sub("", each) for each in spellings if _UPLOAD.search(each))
        for upload in uploads if loosely else ():
            paths = dict.fromkeys(
                (*self._ending_like(upload), *self._uploads.get(_key(_last(upload)), []))
            )
            if hits := [path for path in paths if self._stays(path)]:
                return _Found(_only(hits), is_exact=False)
        is_outside = any(is_file(Path(_joined(self._folder, each))) for each in spellings)
        why = f"it is not below {self._root}: " if is_outside else ""
        what = f"{unquote(_last(min(uploads))):.99}" if uploads else "it"
        raise Unusable(MISSING_IMAGE, f"{why}put {what} into {self._folder}, or delete its entry")

    @cached_property
    def _bases(self) -> list[str]:
        """The folders that names may be relative to, but for the image folder."""
        folder = Path(self._folder)
        above = (str(parent) for parent in folder.parents)
        return [self._beside, *(parent for parent in above if _is_below(parent, self._root))]

    def _is_listed(self, path: str) -> bool:
        """Tell whether there is such a file."""
        folder, _, name = path.rpartition(os.sep)
        if folder not in self._listings:
            self._listings[folder] = _files_in(folder)
        return name in self._listings[folder]

    def _stays(self, path: str) -> bool:
        """Tell whether a file is below the root when links are resolved."""
        if Path(path).is_symlink():
            return self._is_real_inside(os.path.realpath(path))
        folder = path.rpartition(os.sep)[0]
        if folder not in self._real_folders:
            self._real_folders[folder] = self._is_real_inside(os.path.realpath(folder))
        return self._real_folders[folder]

    def _is_real_inside(self, path: str) -> bool:
        return any(_is_below(path, os.path.realpath(top)) for top in (self._root, self._folder))

    @cached_property
    def _tree(self) -> _Tree:
        return _Tree.below([self._root, self._folder])

    @cached_property
    def _uploads(self) -> dict[str, list[str]]:
        """The images under the names of uploads, where these are others."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in sorted({path for paths in self._tree.by_end.values() for path in paths}):
            name = path.rpartition(os.sep)[2]
            forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
            uploads = {_key(_NOT_IN_UPLOADS.sub("", form.replace(" ", "_"))) for form in forms}
            for upload in uploads - {_key(name)}:
                found[upload].append(path)
        return found

    def _ending_like(self, spelling: str) -> list[str]:
        """Return the images whose last parts agree best with a name, if no part contradicts."""
        parts = [_key(part) for part in spelling.split("/") if part not in ("", ".", "..")]
        if not parts:
            return []
        if not _is_absolute(spelling):
            parts = [*_keys_below(self._root, self._folder), *parts]
        for end in ("/".join(parts[-2:]), parts[-1]):
            paths = self._tree.by_end.get(end, [])
            if best := paths if len(paths) > _MOST_ALIKE else self._best(paths, spelling, parts):
                return best
        return []

    def _best(self, paths: Sequence[str], spelling: str, parts: Sequence[str]) -> list[str]:
        ranked: dict[tuple[int, int, bool], list[str]] = {}
        for path in paths:
            own = _keys_below(self._root, path)
            shared = _shared_end(parts, own)
            dropped = parts[-shared - 1] if shared < len(parts) else None
            if dropped in self._tree.folders and dropped not in own:
                continue  # it names another folder of images, which lacks it
            is_same = path.rpartition(os.sep)[2] == _last(spelling)
            ranked.setdefault((shared, len(set(parts) & set(own)), is_same), []).append(path)
        return ranked[max(ranked)] if ranked else []


class _Tree(NamedTuple):
    """The images below some folders.

    Attributes:
        by_end: absolute paths by the keys of the last part, and of the last two. A backslash in the
            name of a file parts it, too: so archives of Windows are unpacked elsewhere.
        folders: the keys of all folders on the way from the first of them to an image.
    """

    by_end: dict[str, list[str]]
    folders: set[str]

    @classmethod
    def below(cls, tops: Sequence[str]) -> _Tree:
        by_end: dict[str, list[str]] = defaultdict(list)
        above: set[str] = set()
        for path in sorted(set(_images_below(tops))):
            folder, _, name = path.replace("\\", "/").rpartition("/")
            above.add(folder)
            by_end[_key(name)].append(path)
            by_end[_key(f"{_last(folder)}/{name}")].append(path)
        return cls(by_end, {part for path in above for part in _keys_below(tops[0], path)})


def _images_below(tops: Iterable[str]) -> Iterator[str]:
    count = 0
    for top in tops:
        for folder, subfolders, names in os.walk(top):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            count += len(names)
            if count > _MOST_FILES:
                return
            for name in names:
                if Path(name).suffix.lower() in IMAGE_SUFFIXES and name[0] != ".":
                    yield folder + os.sep + name


def _root_of(folder: Path, beside: Path) -> Path:
    """Return the folder of all that belongs to a dataset; the image folder if that is unclear."""
    try:
        common = Path(os.path.commonpath([folder, beside]))
    except ValueError:  # on two drives
        return folder
    depths = (len(path.relative_to(common).parts) for path in (folder, beside))
    if max(depths) > _DEPTH or common == common.parent:
        return folder
    return common.parent if common.name.lower() in _PART_FOLDERS else common


def _spellings(name: str) -> Iterator[str]:
    """Yield a name as it is written, with slashes, without what makes it an address, unquoted."""
    yield name
    plain = name.replace("\\", "/")
    yield plain
    yield unquote(plain)
    try:
        address = urlsplit(_DRIVE.sub("", plain, 1))
        query = parse_qs(address.query).get("d", [])  # Label Studio's local files
    except ValueError:
        return
    path = query[0].replace("\\", "/") if query else address.path
    yield path
    yield unquote(path).replace("\\", "/")
    yield unquote_plus(path).replace("\\", "/")
    yield path.strip()


def _files_in(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if not entry.is_dir())
    except (OSError, ValueError):  # not there, or no name that a folder can have
        return frozenset()


def _only(paths: Sequence[str]) -> str:
    if len(paths) > 1:
        raise Unusable(_AMBIGUOUS, f"{paths[0]} or {paths[1]}: name it with its folder")
    return paths[0]


def _absolute(folder: Path) -> Path:
    return folder.resolve() if ".." in folder.parts else folder.absolute()


def _joined(folder: str, name: str) -> str:
    # One slash: on Windows two lead to another machine, which is told who the user is.
    name = re.sub("^//+", "/", name)
    return os.path.normpath(name if _is_absolute(name) else f"{folder}/{name}")


def _keys_below(top: str, path: str) -> list[str]:
    """Return the keys of the parts of a path below a folder; of one elsewhere, of all parts."""
    inside = path[len(top) :] if _is_below(path, top) else path
    return [_key(part) for part in re.split(r"[/\\]", inside) if part]


def _key(part: str) -> str:
    """Return what names have in common that differ in case, or in the form of their accents."""
    return unicodedata.normalize("NFC", part).casefold()


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or _DRIVE.match(name) is not None


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip(os.sep) + os.sep)


def _shared_end(parts: Sequence[str], others: Sequence[str]) -> int:
    count = 0
    for part, other in zip(reversed(parts), reversed(others), strict=False):
        if part != other:
            break
        count += 1
    return count
