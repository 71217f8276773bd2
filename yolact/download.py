"""Fetch the published weights: resumed after a break, checked, and put in place all at once."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, NamedTuple, cast

from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from tqdm import tqdm

BASE_URL = "https://huggingface.co/dbolya"
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18


class DownloadError(OSError):
    """A file could not be fetched; the message says where to put it by hand."""


class OfficialFile(NamedTuple):
    """One published file, by the authors of YOLACT or by torchvision's.

    Attributes:
        file_name: as it lies in weights/; the preset is read from it.
        path: below the publisher's address.
        base_url: the publisher's address.
        sha256: the first digits of its digest, where they are known.
    """

    file_name: str
    path: str
    base_url: str = BASE_URL
    sha256: str | None = None

    @property
    def url(self) -> str:
        """The publisher's address of the file."""
        return f"{self.base_url}/{self.path}"


def _published(repository: str, file_name: str) -> OfficialFile:
    return OfficialFile(file_name, f"{repository}/resolve/main/{file_name}?download=true")


def _of_torchvision(url: str) -> OfficialFile:
    base_url, _, file_name = url.rpartition("/")  # the name ends in eight digits of the digest
    return OfficialFile(file_name, file_name, base_url, file_name.split("-")[-1].split(".")[0])


OFFICIAL_WEIGHTS: dict[str, OfficialFile] = {
    "yolact_base": _published("yolact-base", "yolact_base_54_800000.pth"),
    "yolact_im700": _published("yolact-im700", "yolact_im700_54_800000.pth"),
    "yolact_darknet53": _published("yolact-darknet53", "yolact_darknet53_54_800000.pth"),
    "yolact_resnet50": _published("yolact-resnet50", "yolact_resnet50_54_800000.pth"),
    "yolact_plus_base": _published("yolact-plus-base", "yolact_plus_base_54_800000.pth"),
    "yolact_plus_resnet50": _published(
        "yolact-plus-resnet50", "yolact_plus_resnet50_54_800000.pth"
    ),
    "maskrcnn_resnet50_fpn": _of_torchvision(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url),
    "darknet53": _published("yolact-initial-weights", "darknet53.pth"),
}
"""The trained models by preset name, and the Darknet-53 backbone to start training from."""


def fetch_weights(name: str, folder: Path = Path("weights"), base_url: str | None = None) -> Path:
    """Return a published file, downloading it unless it is there already.

    Args:
        name: a key of `OFFICIAL_WEIGHTS`.
        folder: where files are kept.
        base_url: of a mirror with the same paths; by default the publisher's.

    Raises:
        KeyError: no such name.
        DownloadError: the file is absent and cannot be fetched.
    """
    if name not in OFFICIAL_WEIGHTS:
        raise KeyError(f"no weights are named {name!r}; there are {', '.join(OFFICIAL_WEIGHTS)}")
    official = OFFICIAL_WEIGHTS[name]
    destination = folder / official.file_name
    if destination.exists():
        return destination
    base_url = (base_url or official.base_url).rstrip("/")
    return download(f"{base_url}/{official.path}", destination, sha256=official.sha256)


def download(
    url: str,
    destination: Path,
    *,
    expected_bytes: int | None = None,
    sha256: str | None = None,
    progress: bool = True,
) -> Path:
    """Fetch a file over HTTP, continuing where an earlier attempt was cut off.

    The bytes gather in `<destination>.part`, which stays for the next attempt when this one is
    interrupted. Of several processes that fetch the same file, one does and the others wait.

    Args:
        url: http or https.
        destination: replaced only by a complete and verified file.
        expected_bytes: size to insist on.
        sha256: hexadecimal digest to insist on, or the first digits of it.
        progress: show a bar on standard error.

    Returns:
        The destination.

    Raises:
        DownloadError: no connection, no such file, too few bytes, or other bytes than expected.
    """
    part = destination.with_name(destination.name + ".part")
    absent = [folder for folder in destination.parents if not folder.exists()]
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _locked(destination.with_name(f".{destination.name}.lock")) as waited:
            if not (waited and destination.exists()):
                _fetch(url, part, expected_bytes, progress)
                _verify(part, expected_bytes, sha256)
                part.replace(destination)
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if type(error) is urllib.error.URLError else error
        reason = " ".join(str(cause).split()) or type(error).__name__
        raise DownloadError(
            f"cannot download {url}: {reason}; "
            f"try again, or fetch it by other means and put it at {destination}"
        ) from error
    finally:
        for folder in absent:  # made in vain
            with suppress(OSError):  # not empty
                folder.rmdir()
    return destination


def _fetch(url: str, part: Path, expected_bytes: int | None, progress: bool) -> None:
    """Complete the partial file, which may be absent."""
    offset = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, offset)
    except urllib.error.HTTPError as error:
        # 416: nothing is left to send, or the partial file is longer than the real one.
        if error.code != 416 or not offset:
            raise
        if _total_bytes(error.headers.get("Content-Range")) == offset:
            return
        part.unlink()
        offset, response = 0, _open(url, 0)
    with response:
        if response.headers.get_content_type() == "text/html":  # a log-in page, not the file
            raise OSError("the server sent a web page instead of the file")
        if response.status != 206:  # the server ignores ranges and sends everything
            offset = 0
        total = _announced_bytes(response, offset)
        if None not in (total, expected_bytes) and total != expected_bytes:
            raise OSError(f"the server offers {total} bytes instead of {expected_bytes}")
        _copy(response, part, offset, total, progress)
    if total is not None and part.stat().st_size != total:
        raise OSError(f"the connection broke after {part.stat().st_size} of {total} bytes")


def _open(url: str, offset: int) -> HTTPResponse:
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an http or https address")
    headers = {"User-Agent": "yolact", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)
    return cast(HTTPResponse, urllib.request.urlopen(request, timeout=TIMEOUT))


def _announced_bytes(response: HTTPResponse, offset: int) -> int | None:
    """Read the size of the whole file from the headers, None where they do not tell."""
    if response.status == 206:
        content_range = response.headers.get("Content-Range", "")
        if not content_range.startswith(f"bytes {offset}-"):
            raise OSError(f"asked for bytes from {offset} on, the server sends {content_range!r}")
        return _total_bytes(content_range)
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _total_bytes(content_range: str | None) -> int | None:
    match = re.search(r"/(\d+)$", content_range or "")
    return int(match[1]) if match else None


def _copy(
    response: HTTPResponse, part: Path, offset: int, total: int | None, progress: bool
) -> None:
    with (
        part.open("ab" if offset else "wb") as file,
        tqdm(
            desc=part.stem,
            initial=offset,
            total=total,
            unit="B",
            unit_scale=True,
            disable=not progress,
        ) as bar,
    ):
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _verify(part: Path, expected_bytes: int | None, sha256: str | None) -> None:
    """Check a complete file, and remove it when it is wrong: there is nothing to continue."""
    problem = None
    if expected_bytes is not None and part.stat().st_size != expected_bytes:
        problem = f"{part.stat().st_size} bytes came instead of {expected_bytes}"
    elif sha256 is not None and not (found := _sha256(part)).startswith(sha256.lower()):
        problem = f"the SHA-256 of what came is {found} instead of {sha256.lower()}"
    if problem:
        part.unlink()
        raise OSError(problem)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a lock file, which the system frees should this process die.

    Yields:
        Whether another process held it before.
    """
    waited = False
    while True:
        with path.open("ab") as file:
            # The holder removes the file, so the one that was locked here may be gone by now.
            if _try_lock(file) and _is_same(file, path):
                try:
                    yield waited
                finally:
                    with suppress(OSError):  # Windows removes no open file
                        path.unlink()
                return
        waited = True
        time.sleep(0.1)


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks: better unguarded than not at all
        return True
    return True


def _is_same(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
