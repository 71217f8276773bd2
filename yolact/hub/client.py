"""Downloads with the hub's own client and with torch; errors become one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import NamedTuple

import torch

from .folder import CONFIG_FILE, WEIGHTS_FILE, read_config

PREFIX = "hf:"
"""Prefix of a repository's name, in place of a checkpoint."""

_NAME = re.compile(r"hf:(?://)?([\w.-]+/[\w.-]+)(?:@([^/@]+))?(?:/(.+))?")
_LOG_IN = "log in by `hf auth login` or HF_TOKEN"


class DownloadError(OSError):
    """A file could not be fetched; the message says where to put it by hand."""


class HubName(NamedTuple):
    """The parts of a name such as "hf:owner/name@revision/model.pth".

    Attributes:
        repository: "owner/name".
        revision: a branch, tag or commit; None for the newest.
        file: path in the repository; None for the model in it.
    """

    repository: str
    revision: str | None
    file: str | None

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Parse a name.

        Raises:
            ValueError: the text is not such a name.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise ValueError(f"{text}: expected hf:owner/name or hf:owner/name@revision/file.pth")
        return cls(*match.groups())


def hub() -> ModuleType:
    """Return the hub's client, with telemetry disabled unless the user has set it."""
    import huggingface_hub
    from huggingface_hub import constants

    if "HF_HUB_DISABLE_TELEMETRY" not in os.environ:  # the client read it at import
        constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub


def fetch_model(name: str) -> Path:
    """Download a model to the client's cache, unless its newest version is already there.

    Args:
        name: see `HubName`.

    Returns:
        The file of its weights, beside which are the files needed to read them.

    Raises:
        ValueError: an invalid name.
        DownloadError: the model cannot be fetched, or the name is ambiguous.
    """
    repository, revision, file = HubName.parse(name)
    advice = "try again, or fetch its files by other means and give their path"
    with one_line(f"download {name}", advice):
        file = file or _model_among(_files(repository, revision), name)
        for part in (*_companions(file), file):
            path = hub_file(repository, part, revision)
            revision = path.parents[part.count("/")].name  # the same commit for all files
            if path.name == CONFIG_FILE:  # check before downloading another project's gigabytes
                try:
                    read_config(path)
                except ValueError as error:
                    told = f"cannot download {name}: {error}; name one as {name}/FILE"
                    raise DownloadError(told) from None
    return path


def hub_file(repository: str, file: str, revision: str | None = None) -> Path:
    """Download a file of a repository to the client's cache; for errors see `one_line`."""
    return Path(hub().hf_hub_download(repository, file, revision=revision))


def torch_file(url: str) -> Path:
    """Download a file to torch's cache; for errors see `one_line`.

    Args:
        url: ends in the first digits of the file's digest, which is checked, and a suffix.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(url).name
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), file.stem.split("-")[-1])
    return file


@contextmanager
def one_line(action: str, advice: str) -> Iterator[None]:
    """Turn any error of the clients into a `DownloadError` of one line.

    Args:
        action: the attempted action.
        advice: what to do instead.
    """
    try:
        yield
    except DownloadError:
        raise
    except Exception as error:  # those of HTTP libraries are of many families
        raise DownloadError(f"cannot {action}: {_reason(error)}; {advice}") from error


def _reason(error: BaseException) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__
    no_hub = "the answer is not a hub's (a page to log in before it, or a wrong HF_ENDPOINT)"
    for kind, reason in (
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set, and it was not downloaded before"),
        (errors.GatedRepoError, f"access has to be asked for on the repository's page; {_LOG_IN}"),
        (errors.RepositoryNotFoundError, f"no such repository, or a private one: {_LOG_IN}"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.EntryNotFoundError, "the repository has no such file"),
        (errors.FileMetadataError, no_hub),
        (JSONDecodeError, no_hub),
    ):
        if isinstance(error, kind):
            return reason
    text, _, _ = str(error).partition("\nFor more information")  # an address follows
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def _files(repository: str, revision: str | None) -> Sequence[str]:
    """List the files of a repository, or those in the cache if the hub cannot be reached."""
    try:
        information = hub().HfApi().model_info(repository, revision=revision)
        return [file.rfilename for file in information.siblings or ()]
    except Exception:
        try:
            cached = hub().snapshot_download(repository, revision=revision, local_files_only=True)
        except OSError:
            cached = None
        if cached is None:
            raise
    folder = Path(cached)
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _model_among(files: Sequence[str], name: str) -> str:
    if {CONFIG_FILE, WEIGHTS_FILE} <= set(files):
        return WEIGHTS_FILE
    checkpoints = [file for file in files if file.endswith(".pth")]
    if len(checkpoints) == 1:
        return checkpoints[0]
    shown = ", ".join(sorted(files)[:20]) or "no files"
    raise DownloadError(
        f"{name}: expected {CONFIG_FILE} with {WEIGHTS_FILE}, or one .pth file, in the "
        f"repository; it has {shown}{', ...' if len(files) > 20 else ''}; name one as {name}/FILE"
    )


def _companions(file: str) -> Sequence[str]:
    """Return the further files that are needed to read a file."""
    path = PurePosixPath(file)
    if path.suffix == ".safetensors":
        return (str(path.with_name(CONFIG_FILE)),)
    return (str(path.with_suffix(".bin")),) if path.suffix == ".xml" else ()
