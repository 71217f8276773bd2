"""The provenance of a file: versions, revision of the source, and seed.

It does not reveal the machine, its user, or any path.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

Provenance = Mapping[str, str | int]
"""As `provenance` returns it: name -> version and so on."""

_CHECKOUT = Path(__file__).resolve().parents[2]
_PACKAGES = ("yolact", "torch", "torchvision", "numpy")
_MOST = 16  # entries of a stamp
_LONGEST = 100  # characters


def provenance(seed: int | None = None) -> dict[str, str | int]:
    """Return the provenance of a file that is written now.

    Args:
        seed: seed of all random choices in its content; None if there are none.

    Returns:
        Plain values: the versions of `python`, `yolact`, `torch`, `torchvision` and `numpy`, if
        installed as packages, the `revision` of a checkout, which is its last commit, and the
        `seed`.
    """
    stamp: dict[str, str | int] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            stamp[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # installed without its description
            continue
    if revision := revision_of(_CHECKOUT):
        stamp["revision"] = revision
    if seed is not None:
        stamp["seed"] = seed
    return stamp


def as_text(stamp: Provenance) -> str:
    """Return a stamp in one line: "python 3.12.1, yolact 0.1.0, ..."."""
    return ", ".join(f"{name} {value}" for name, value in stamp.items())


def read_provenance(content: object) -> dict[str, str | int]:
    """Return the valid entries of a stamp in an untrusted file; drop the rest."""
    if not isinstance(content, Mapping):
        return {}
    sound = {
        name: value
        for name, value in content.items()
        if type(name) is str and type(value) in (str, int) and len(f"{name}{value}") <= _LONGEST
    }
    return sound if len(sound) <= _MOST else {}


def revision_of(checkout: Path) -> str | None:
    """Return the commit that is checked out in a git folder; None if unknown.

    It is read from git's files, as git may not be installed.
    """
    try:
        git = checkout / ".git"
        if git.is_file():  # a further work tree
            git = checkout / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if head.startswith("ref: "):
            head = _commit_of(head.removeprefix("ref: "), git)
    except (OSError, ValueError):
        return None
    return head if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", head) else None


def _commit_of(branch: str, git: Path) -> str:
    """Return the commit of a branch, from a file of its own or from the list of all."""
    shared = git / "commondir"
    common = git / shared.read_text(encoding="utf-8").strip() if shared.is_file() else git
    if (common / branch).is_file():
        return (common / branch).read_text(encoding="utf-8").strip()
    for line in (common / "packed-refs").read_text(encoding="utf-8").splitlines():
        commit, _, name = line.partition(" ")
        if name == branch:
            return commit
    return ""
