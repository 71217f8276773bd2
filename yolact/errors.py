"""Errors with messages for Python or for the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from data.problems import UnknownDataset


class OptionError(ValueError):
    """An option has a value that is not available here, or does not fit the others.

    In Python the message is `device='cuda': reason`; command lines show `on_command_line`.

    Args:
        option: name of the argument and of the flag.
        value: the value given.
        reason: what is wrong, and the choices.
    """

    def __init__(self, option: str, value: object, reason: str) -> None:
        super().__init__(f"{option}={value!r}: {reason}")
        typed = f"{value:g}" if isinstance(value, float) else value  # 2, if argparse made it 2.0
        self.on_command_line = f"--{option}={typed}: {reason}"


class UsageError(Exception):
    """A command line with missing, unknown or conflicting values; the exit code is 2."""


@contextmanager
def naming_checkpoint(stored: Collection[str]) -> Iterator[None]:
    """Say of a dataset that is not here that nobody typed its name, but a checkpoint holds it.

    Args:
        stored: the names of datasets that the checkpoint holds.

    Raises:
        FileNotFoundError: one of them is not here.
    """
    try:
        yield
    except UnknownDataset as error:
        if error.name not in stored:
            raise
        text = f"{error} (of the checkpoint, relative to where it was trained: --dataset=path)"
        raise FileNotFoundError(text) from None
