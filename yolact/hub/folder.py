"""A model as a folder, in the hub's format: model.safetensors, config.json, README.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from data.files import open_file, read_json
from data.problems import first_line
from yolact.config import Config
from yolact.files import whole_file, write_json
from yolact.formats.names import State
from yolact.presets import stored_config

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

_FORMAT = "yolact-folder-1"


def stored_state(state: State, half: bool) -> State:
    """Return tensors for a file: on the CPU, with `half` in float16 if their values fit."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if not half:
        return state
    largest = torch.finfo(torch.float16).max
    return {
        name: t.half() if t.is_floating_point() and not (t.abs() > largest).any() else t
        for name, t in state.items()
    }


def loaded_state(state: State) -> State:
    """Return tensors for a model: float16 is only for files."""
    return {name: t.float() if t.dtype == torch.float16 else t for name, t in state.items()}


def write_folder(
    folder: Path, state: State, config: Config, made_by: Mapping[str, str | int]
) -> None:
    """Write weights and configuration, each file atomically.

    Args:
        folder: created if absent.
        state: from `stored_state`.
        config: configuration, including class names.
        made_by: provenance of the files, from `provenance`.

    Raises:
        OSError: a file cannot be written.
        ValueError: the folder has a configuration that is not one of ours.
    """
    if (folder / CONFIG_FILE).exists():
        _read_own(folder / CONFIG_FILE)  # refuse to overwrite another project's file
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with whole_file(folder / WEIGHTS_FILE) as part:
            save_file(state, part, metadata={"format": "pt"})
    except SafetensorError as error:  # its writer's: disk full
        raise OSError(f"cannot write {folder / WEIGHTS_FILE}: {error}") from None
    content = {"format": _FORMAT, "made_by": dict(made_by), "config": config.to_dict()}
    write_json(folder / CONFIG_FILE, content, indent=2)


def read_config(file: Path) -> Config:
    """Read the configuration of a folder.

    Raises:
        ValueError: it is missing, damaged, or not one of ours.
    """
    content = _read_own(file)
    try:
        return stored_config(content.get("config", {}))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _read_own(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{file}: not written by save_pretrained of yolact")
    return content


def read_folder(weights: Path) -> tuple[Config, State]:
    """Read weights and the configuration beside them, neither of which can run code.

    Args:
        weights: a file of `write_folder`, under any name.

    Raises:
        ValueError: one of the two is missing, damaged, or not one of ours.
    """
    from safetensors.torch import load_file

    config = read_config(weights.with_name(CONFIG_FILE))
    try:
        with open_file(weights):  # no pipe, and not too large
            return config, loaded_state(load_file(weights))
    except Exception as error:  # broken files make the reader raise almost anything
        reason = f"not a readable safetensors file ({first_line(error)})"
        raise ValueError(f"{weights}: {reason}") from None
