"""Shared by the command lines: flags, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, get_args

from data.options import BoxesOnly, Crowd, DataOptions
from yolact.checkpoint import Checkpoint, preset_of_name, resolve_weights
from yolact.config import Config
from yolact.engines.memory import out_of_memory_advice
from yolact.engines.names import Precision
from yolact.errors import OptionError, UsageError
from yolact.presets import get_config
from yolact.runs.names import find_checkpoints

from .process import (
    PrintableStream,
    exit_code,
    is_closed_pipe,
    log_to,
    safe_text,
    signals_as_keyboard_interrupt,
)

logger = logging.getLogger(__name__)

DONE, FAILED, WRONG_USAGE = 0, 1, 2
_LONGEST_ERROR = 2000  # letters


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keep the examples as written, and show only informative defaults."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, [], argparse.SUPPRESS) or action.nargs == 0:
            return action.help
        return super()._get_help_string(action)


def str2bool(text: str) -> bool:
    """Parse a yes/no value as the original's flags do.

    Raises:
        argparse.ArgumentTypeError: the text is neither.
    """
    if text.lower() in ("yes", "true", "t", "1", "y", "on"):
        return True
    if text.lower() in ("no", "false", "f", "0", "n", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r}: expected True or False")


Flag = tuple[list[str], dict[str, Any]]


def flag(
    names: str,
    help: str,
    type: Callable[[str], object] = str,
    default: object = None,
    *,
    switch: str | None = None,
    **more: object,
) -> Flag:
    """Describe one flag.

    Args:
        names: names separated by spaces; the first one names the attribute.
        help: help text.
        type: type of its value; bool for a flag without a value that switches something on.
        default: value if the flag is absent.
        switch: for a flag without a value: the attribute, True by default, that it switches off.
        more: passed to argparse.
    """
    if switch is not None:
        return names.split(), {"help": help, "dest": switch, "action": "store_false"}
    if type is bool:
        return names.split(), {"help": help, "action": "store_true"}
    if type is str2bool:  # the value is optional, as in the original
        more = {"nargs": "?", "const": True, "metavar": "BOOL", **more}
    return names.split(), {"help": help, "type": type, "default": default, **more}


SETTING = flag(
    "--set",
    "change one setting, as in --set model.image_size=400; can be repeated",
    str,
    [],
    action="append",
    metavar="PATH=VALUE",
)
MACHINE = (
    flag("--device", "auto, cpu, cuda, cuda:1 or mps", str, "auto"),
    flag("--cuda", "False is the same as --device=cpu", str2bool, True),
    flag(
        "--precision",
        "auto: float32 for training and the AP, otherwise whichever is fast on this machine",
        str,
        "auto",
        choices=get_args(Precision),
    ),
    SETTING,
)


DATA = (
    flag("--val", "validate on another dataset, or on a share of the images such as 0.2"),
    flag(
        "--crowd",
        "annotations marked as a crowd: ignored, as published, or used like all other objects",
        choices=get_args(Crowd),
    ),
    flag(
        "--boxes_only",
        "objects without an outline: used for box and class, ignored, or their images skipped",
        choices=get_args(BoxesOnly),
    ),
)


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, without the list of all flags."""

    def error(self, message: str) -> NoReturn:
        """Exit with a message, which suggests the flag that was probably meant."""
        unknown = message.removeprefix("unrecognized arguments: ").strip()
        if message.startswith("unrecognized") and unknown.startswith("-"):
            name = unknown.split()[0].split("=")[0]
            close = difflib.get_close_matches(name, self._option_string_actions, 1, 0.7)
            hint = f"did you mean {close[0]}? " if close else ""
            message = f"{name}: no such flag; {hint}--help lists them"
        elif message.startswith("unrecognized"):
            message = f"{unknown or repr(unknown)}: expected flags here; " + (
                "an output stands behind a colon, as in photo.jpg:out.png, a pattern in quotes, "
                "as in 'photos/*.jpg'"
                if self.prog in ("yolact predict", "yolact eval", "eval.py")
                else "--help lists them"
            )
        if match := re.fullmatch(r"argument (.+): invalid (float|int) value: '(.*)'", message):
            number = "a number" if match[2] == "float" else "a whole number"
            message = f"{match[1]}={match[3]}: expected {number}"
        self.exit(WRONG_USAGE, f"error: {safe_text(message)}\n")


def make_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser without flags; it does not accept abbreviations."""
    if sys.argv[0].startswith("yolact "):  # run as one of its commands
        program = sys.argv[0]
    return Parser(
        prog=program, description=description, formatter_class=HelpFormatter, allow_abbrev=False
    )


def add_flags(parser: argparse.ArgumentParser, title: str, flags: Sequence[Flag]) -> None:
    """Add a group of flags."""
    group = parser.add_argument_group(title)
    for names, settings in flags:
        group.add_argument(*names, **settings)


def at_least(args: argparse.Namespace, **least: int) -> None:
    """Refuse numbers that are too small; ignore None, for a flag that is not given.

    Args:
        args: arguments of the command line.
        least: flag -> its minimum.

    Raises:
        UsageError: a value is below its minimum; the message has the first.
    """
    for name, bound in least.items():
        value = getattr(args, name)
        if value is not None and value < bound:
            raise UsageError(f"--{name}={value}: expected at least {bound}")


def writable_file(flag: str, path: Path | None) -> None:
    """Refuse an output file that is a folder, or lies below a file; None is accepted.

    Raises:
        UsageError: it is a folder, or lies below a file.
    """
    if path is not None and path.is_dir():
        raise UsageError(f"{flag}={path}: expected a file, this is a folder")
    if path is not None:
        writable_folder(flag, path.parent)


def writable_folder(flag: str, path: Path) -> None:
    """Refuse an output folder that is a file, or lies below one.

    Raises:
        UsageError: it is a file, or lies below one.
    """
    there = next((each for each in (path, *path.parents) if os.path.lexists(each)), Path())
    if not there.is_dir():
        raise UsageError(f"{flag}={path}: expected a folder, and {there} is a file")


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags about the device, the precision, and single settings."""
    add_flags(parser, "machine and settings", MACHINE)


def with_data(config: Config, args: argparse.Namespace) -> Config:
    """Set the dataset that the flags name, and how its annotations are used.

    Raises:
        UsageError: an impossible value.
    """
    given = {name: getattr(args, name) for name in ("val", "crowd", "boxes_only")}
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        options = replace(options_for(args.dataset, config), **chosen)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    return replace(config, dataset=args.dataset or config.dataset, data=options)


def options_for(dataset: str | None, config: Config) -> DataOptions:
    """Return how a dataset's annotations are used: as configured, if it is the same dataset."""
    if dataset is None or Path(dataset).resolve() == Path(config.dataset).resolve():
        return config.data
    return DataOptions()


def device_name(args: argparse.Namespace) -> str:
    """Return the device that the flags choose."""
    return str(args.device) if args.cuda else "cpu"


def named_config(name: str) -> Config:
    """Return a preset by its name on the command line.

    Raises:
        UsageError: unknown name.
    """
    if "(" in name:
        raise UsageError(
            f"--config {name!r}: give a preset's name, and changes as --set model.image_size=400"
        )
    try:
        return get_config(name)
    except KeyError as error:
        raise UsageError(f"--config: {error.args[0]}") from None


def checkpoint_config(checkpoint: Checkpoint, name: str | None) -> Config:
    """Return a checkpoint's own configuration, or the preset that the user names."""
    config = checkpoint.preset(named_config(name) if name else None)
    source = checkpoint.published
    if source and not name and preset_of_name(checkpoint.path) is None:
        logger.info(
            "%s: a checkpoint of %s, run as %s with %d classes at %d px",
            checkpoint.path,
            source.format.project,
            config.name,
            config.num_classes,
            config.model.image_size,
        )
    return config


def chosen_weights(flag: str, text: str, name: str | None = None) -> Path:
    """Find a checkpoint by its path or name; 'latest' is the newest one in `weights`.

    Args:
        flag: the flag with this value, for messages.
        text: the value.
        name: name of the run for 'latest'; None for any run.
    """
    if not text:
        raise UsageError(f"{flag}: expected a file or the name of a model, got an empty text")
    return newest_checkpoint(flag, text, Path("weights"), name) or resolve_weights(text)


def newest_checkpoint(flag: str, text: str, folder: Path, name: str | None) -> Path | None:
    """Find the checkpoint that 'latest' or 'interrupt' stands for.

    Args:
        flag: the flag with this value, for messages.
        text: the value; any other value gives None.
        folder: folder of checkpoints.
        name: name of the run, by default that of its preset; None for any run.

    Raises:
        UsageError: there is no such checkpoint.
    """
    if text not in ("latest", "interrupt"):
        return None
    found = find_checkpoints(folder, name, True if text == "interrupt" else None)
    if not found:
        raise UsageError(f"{flag}={text}: no checkpoint of {name or 'any run'} in {folder}")
    return found[-1]


def with_settings(config: Config, assignments: Sequence[str]) -> Config:
    """Apply the `--set` flags.

    Raises:
        UsageError: an unknown setting or an impossible value.
    """
    try:
        return config.override(*assignments)
    except (KeyError, ValueError) as error:
        raise UsageError(f"--set: {error.args[0]}") from None


def run_command(
    main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None
) -> int:
    """Run a command; turn errors into one line on standard error and an exit code.

    Args:
        main: takes the arguments, by default those of the process.
        argv: arguments without the program's name.

    Returns:
        0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C, 128 + the number of another signal.
    """
    log_to(sys.stderr)
    try:
        with (
            signals_as_keyboard_interrupt(),
            redirect_stdout(PrintableStream(sys.stdout)),
            out_of_memory_advice("try a smaller --batch_size or image"),
        ):
            main(argv)
    except UsageError as error:
        return _complain(error, WRONG_USAGE)
    except KeyboardInterrupt as stopped:
        print("stopped", file=sys.stderr)
        return exit_code(stopped)
    except MemoryError as error:
        return _complain(str(error) or "out of memory", FAILED)
    except OptionError as error:
        return _complain(error.on_command_line, FAILED)
    except (OSError, ValueError, FloatingPointError) as error:
        if is_closed_pipe(error):
            sys.stderr.close()
            return DONE
        return _complain(error, FAILED)
    return DONE


def _complain(error: object, code: int) -> int:
    text = " ".join((str(error) or type(error).__name__).split())
    if len(text) > _LONGEST_ERROR:  # of what a file holds; the mend is at the end
        text = f"{text[: _LONGEST_ERROR // 2]} ... {text[-_LONGEST_ERROR // 2 :]}"
    print("error: " + safe_text(text), file=sys.stderr)
    return code
