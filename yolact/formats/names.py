"""Tensor names, translated by tables of patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

State = dict[str, Tensor]

Table = Sequence[tuple[str, Callable[[re.Match[str]], str]]]
"""The beginnings of names, as patterns, and what stands in their place; the first match counts."""


def translate(name: str, table: Table) -> str | None:
    """Return a name with another beginning; None for one that the table does not know."""
    for pattern, beginning in table:
        if match := re.match(pattern, name):
            return beginning(match) + name[match.end() :]
    return None


def rename(state: Mapping[str, Tensor], table: Table) -> State:
    """Translate the names of a whole state dict.

    Raises:
        ValueError: the table does not know one of them.
    """
    renamed = {}
    for name, tensor in state.items():
        theirs = translate(name, table)
        if theirs is None:
            raise ValueError(f"{name}: a tensor that no YOLACT of ours has")
        renamed[theirs] = tensor
    return renamed
