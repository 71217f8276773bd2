"""Checkpoints: our own, and the official files of 2019, renamed by one pure function."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.files import check_archive, open_file
from data.problems import first_line, reason_of
from yolact.formats.names import State
from yolact.formats.recognise import OFFICIAL, Published, recognise
from yolact.hub.client import PREFIX, fetch_model
from yolact.hub.folder import WEIGHTS_FILE, loaded_state, read_folder, stored_state
from yolact.hub.released import OFFICIAL_WEIGHTS, fetch_weights
from yolact.models.segmenter import AnySegmenter
from yolact.runs.provenance import Provenance, provenance, read_provenance

from .build import build_model
from .config import Config
from .files import whole_file
from .presets import get_config, list_configs, stored_config

_IN_WHEEL = Path(__file__).parent / "weights"
_IN_CHECKOUT = Path(__file__).parent.parent / "weights"
BUNDLED_FOLDER = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT
"""The folder of the bundled models."""

WEIGHTS_FOLDER = Path("weights") if _IN_WHEEL.is_dir() else _IN_CHECKOUT
"""Folder for manually downloaded files: in a checkout of this repository, else `weights` here."""

BUNDLED = "yolact_lite2_person"
"""The default model, used if no checkpoint is named."""

IN_REPOSITORY = (BUNDLED, "yolact_resnet18_shapes")
FORMAT = "yolact-checkpoint-1"
EXPORTED_SUFFIXES = (".xml", ".onnx")
_LONGEST_NAME = 500  # letters of a tensor's name
_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: the file.
        model: weights under our names; for a published file (`official`) under those of the 2019
            release, or of torchvision.
        official: whether it is a published file.
        config: the preset and its changes; None for published files.
        training: optimiser, random numbers, iteration and best scores, if the file has them.
        published: the project that a published file comes from.
        made_by: the versions, revision and seed that made it; empty if unknown.
    """

    path: Path
    model: State
    official: bool
    config: Config | None = None
    training: dict[str, Any] = field(default_factory=dict)
    published: Published | None = None
    made_by: Provenance = field(default_factory=dict)

    def preset(self, named: Config | None = None) -> Config:
        """Return the stored configuration, or for a published file the preset that fits it.

        Args:
            named: a preset to use instead of the one determined by the file's name or tensors, or
                instead of a stored configuration with another name.

        Raises:
            ValueError: the preset cannot be determined, or cannot be made to fit.
        """
        if self.config and (named is None or named.name == self.config.name):
            return self.config
        if self.published is None:
            return named or config_from_name(self.path)
        if named is None and self.published.format is OFFICIAL:
            named = preset_of_name(self.path)
        try:
            return self.published.config(named)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None


def load_model(
    path_or_name: str | Path, config: Config | str | None = None, device: str = "cpu"
) -> AnySegmenter:
    """Load a trained model, ready for inference.

    Args:
        path_or_name: a checkpoint file, ours or of another project; a folder that `save_pretrained`
            wrote; the name of a released model ("yolact_base"), which is downloaded once; or a
            repository on the Hugging Face hub ("hf:owner/name", "hf:owner/name@revision",
            "hf:owner/name/file.pth").
        config: the name of a preset, fitted to the file, if neither the file nor its name
            determines it; or a whole configuration, used as it is.
        device: device for the model.

    Returns:
        The model in evaluation mode.

    Raises:
        FileNotFoundError: no such file, nor a model of that name.
        OSError: the download failed; the message says where to put the file by hand.
        ValueError: not a checkpoint, or one for another model.
    """
    checkpoint = read_checkpoint(resolve_weights(path_or_name))
    if not isinstance(config, Config):
        config = checkpoint.preset(get_config(config) if config else None)
    return trained_model(checkpoint, config).to(device)


def trained_model(checkpoint: Checkpoint, config: Config) -> AnySegmenter:
    """Build a model, in evaluation mode on the CPU, with the weights of a checkpoint.

    Raises:
        ValueError: the checkpoint does not fit the configuration.
    """
    with torch.random.fork_rng(devices=()):  # of random weights that are replaced
        model = build_model(config).eval()
    load_weights(model, checkpoint)
    return model


def resolve_weights(path_or_name: str | Path) -> Path:
    """Find a checkpoint by path or name, downloading it if needed; see `load_model`."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    if str(path_or_name).startswith(PREFIX):
        return fetch_model(str(path_or_name))
    name = str(path_or_name).removesuffix("_config")
    bundled = _bundled()
    if name in bundled:
        return bundled[name]
    if name in OFFICIAL_WEIGHTS and name in list_configs():
        return fetch_weights(name, WEIGHTS_FOLDER)
    choices = ", ".join([*bundled, *(n for n in OFFICIAL_WEIGHTS if n in list_configs())])
    if name in IN_REPOSITORY:
        raise FileNotFoundError(f"{name}: in the repository, not in the wheel; here are {choices}")
    if name in list_configs():
        raise FileNotFoundError(f"{name}: a preset without trained weights; there are {choices}")
    close = difflib.get_close_matches(name, choices.split(", "), 1)
    what = f"a folder without {WEIGHTS_FILE}" if path.is_dir() else "no such checkpoint file"
    hint = f", did you mean {close[0]}" if close else ""
    raise FileNotFoundError(f"{path_or_name}: {what}{hint}; models by name are {choices}")


def _bundled() -> dict[str, Path]:
    """Return the bundled models that exist here; a wheel contains only the first."""
    files = {name: BUNDLED_FOLDER / f"{name}.pth" for name in IN_REPOSITORY}
    return {name: file for name, file in files.items() if file.is_file()}


def config_from_name(path: Path) -> Config:
    """Determine the preset from a file name such as yolact_base_54_800000.pth.

    Raises:
        ValueError: the name does not begin with a preset.
    """
    config = preset_of_name(path)
    if config is None:
        raise ValueError(
            f"{path.name}: cannot tell the preset from the file name; name it: config= in "
            "load_model, --config on a command line"
        )
    return config


def preset_of_name(path: Path) -> Config | None:
    """Return the preset that a file name begins with, if it does."""
    for name in sorted(list_configs(), key=len, reverse=True):
        if re.fullmatch(rf"{name}(_\d+_\d+)?(_[\w-]+)?", path.stem):
            return get_config(name)
    return None


def is_exported(path: Path) -> bool:
    """Tell exported files from checkpoints, by their suffix."""
    return path.suffix.lower() in EXPORTED_SUFFIXES


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running code from it.

    Args:
        path: the weights of a folder (.safetensors), or any other file.

    Raises:
        ValueError: the file is not a checkpoint.
    """
    if is_exported(path):
        raise ValueError(
            f"{path}: an exported model, which runs but cannot be trained, converted or exported "
            "again; name the checkpoint that it was made from"
        )
    if path.suffix == ".safetensors":
        config, state = read_folder(path)
        return Checkpoint(path, state, False, config)
    try:
        with open_file(path) as file:
            check_archive(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
            check_storages(content, path.stat().st_size)
    except Exception as error:  # broken files make torch.load raise almost anything
        reason = first_line(error)
        if "mmengine." in str(error):
            reason = (
                "it holds mmengine's logs beside the weights; leave them out with mmdetection's "
                "tools/model_converters/publish_model.py"
            )
        elif "weights_only" in reason:  # PyTorch advises to run the file's code
            reason = "damaged, no PyTorch file, or one that holds more than plain weights"
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from None
    if isinstance(content, dict) and content.get("format") == FORMAT:
        state = _tensors(content.get("model"), path)
        training = content.get("training")
        try:
            config = stored_config(content.get("config", {}))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        training = training if type(training) is dict else {}
        made_by = read_provenance(content.get("made_by"))
        return Checkpoint(path, loaded_state(state), False, config, training, None, made_by)
    return _published_checkpoint(path, content)


def _published_checkpoint(path: Path, content: object) -> Checkpoint:
    state = _tensors(content, path)
    try:
        published = recognise(content, state, path.stem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    model = state if published is None else published.state
    return Checkpoint(path, model, official=True, published=published)


def _tensors(content: object, path: Path) -> State:
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: holds no weights by name")
    for name, value in content.items():
        if not _is_name(name) or not _is_plain(value):
            raise ValueError(f"{path}: holds no weights by name: {name!a:.80} is none")
    return dict(content)


def _is_name(name: object) -> bool:
    """Tell whether a key is the name of a tensor, which messages may show."""
    return isinstance(name, str) and name.isprintable() and len(name) <= _LONGEST_NAME


def check_storages(content: object, size: int) -> None:
    """Refuse tensors with attributes, and tensors of more bytes than the file, as in old files.

    Args:
        content: the loaded content, of which no value has been accessed yet.
        size: size of the file in bytes.

    Raises:
        ValueError: there is such a tensor.
    """
    sizes: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, Tensor):
            if vars(value):  # they may replace methods
                raise ValueError("a tensor in it has attributes of its own")
            if value.layout == torch.strided:
                storage = value.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
    if sum(sizes.values()) > size:
        raise ValueError("its tensors are larger than the file")


def _is_plain(value: object) -> bool:
    """Tell whether a tensor is plain: all numbers in the file; not sparse, quantised, expanded."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in _DTYPES
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def load_weights(model: AnySegmenter, checkpoint: Checkpoint) -> None:
    """Load every tensor of a model from a checkpoint.

    Raises:
        ValueError: a tensor is missing or has another shape, or another project's model has one
            more; the message names the first ones.
    """
    skipped = load_matching_weights(model, checkpoint)
    if checkpoint.published and checkpoint.published.format is not OFFICIAL:
        unused = state_for(model, checkpoint).keys() - model.state_dict().keys()
        skipped += [f"{name}: not in this model" for name in sorted(unused)]
    if skipped:
        shown = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
        raise ValueError(
            f"{checkpoint.path}: does not fit this model in {len(skipped)} tensors: {shown}"
        )


def load_matching_weights(model: AnySegmenter, checkpoint: Checkpoint) -> list[str]:
    """Load the weights that fit, for fine-tuning on other classes.

    Returns:
        One line for each tensor of the model that keeps its initial value, with the reason.
    """
    own = model.state_dict()
    state = state_for(model, checkpoint)
    skipped = []
    for name, tensor in own.items():
        if name not in state:
            skipped.append(f"{name}: not in the checkpoint")
        elif state[name].shape != tensor.shape:
            theirs = tuple(state[name].shape)
            skipped.append(f"{name}: {theirs} in the checkpoint, {tuple(tensor.shape)} here")
        else:
            own[name] = state[name]
    model.load_state_dict(own)
    return skipped


def state_for(model: AnySegmenter, checkpoint: Checkpoint) -> State:
    """Return the weights of a checkpoint under the names of a model."""
    return model.from_published(checkpoint.model) if checkpoint.official else checkpoint.model


def save_checkpoint(
    path: Path,
    model: nn.Module,
    config: Config,
    training: Mapping[str, Any] | None = None,
    half: bool = False,
    made_by: Provenance | None = None,
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file to write.
        model: its weights are written.
        config: stored in the file, including class names.
        training: optimiser, iteration and so on, for `--resume`.
        half: store weights as float16, for distribution.
        made_by: provenance of the weights; None for this program, now.
    """
    content = {
        "format": FORMAT,
        "config": config.to_dict(),
        "made_by": dict(provenance(config.train.seed) if made_by is None else made_by),
        "model": stored_state(model.state_dict(), half),
        "training": dict(training or {}),
    }
    write_atomically(path, content)


def write_atomically(path: Path, content: object) -> None:
    """Write with `torch.save` to a neighbouring file, then rename it.

    Raises:
        OSError: the file cannot be written, with the reason; an existing file is kept.
    """
    try:
        with whole_file(path) as part, part.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # If a write fails, torch raises its own error, about a wrong position, on top of it.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        raise OSError(f"cannot write {path}: {reason_of(cause or error)}") from None
