"""Errors that speak to whoever asked: in Python's words, or in those of the command line."""

from __future__ import annotations


class OptionError(ValueError):
    """An option has a value that does not exist here, or does not fit the others.

    In Python it reads `device='cuda': reason`; command lines show `on_command_line`.

    Args:
        option: the argument's name, which is the flag's as well.
        value: what was given.
        reason: what is wrong, and the choices.
    """

    def __init__(self, option: str, value: object, reason: str) -> None:
        super().__init__(f"{option}={value!r}: {reason}")
        typed = f"{value:g}" if isinstance(value, float) else value  # 2, where argparse made it 2.0
        self.on_command_line = f"--{option}={typed}: {reason}"


class UsageError(Exception):
    """A command line that asks for what does not exist or does not fit together; exits with 2."""
