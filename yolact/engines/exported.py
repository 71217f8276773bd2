"""Exported models: OpenVINO (.xml) and ONNX (.onnx) files that eval.py and Predictor run.

An exported file contains the network, from normalised images to raw predictions, for batches of any
size. Its metadata, one JSON text under the key "yolact", contains the rest: the configuration with
class names and input statistics, and for YOLACT++ the weights of the mask rescorer, which runs
after suppression, outside of the network.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.files import check_archive, open_file
from yolact.build import build_model, model_class
from yolact.checkpoint import (
    Checkpoint,
    is_exported,
    load_matching_weights,
    read_checkpoint,
    trained_model,
)
from yolact.config import Config
from yolact.errors import OptionError
from yolact.formats.names import State
from yolact.models.segmenter import AnySegmenter
from yolact.presets import stored_config

from .choose import choose_engine, has_openvino, onnxruntime_providers, pick_device
from .names import CUDA_PROVIDER, Engine, EngineName, Port, Precision, RunNetwork
from .prepare import prepare

KEY = "yolact"
"""Key of the metadata in a file."""

_FORMAT = "yolact-export-1"
_FOREIGN = "no metadata of ours in it"
_RESCORER = "mask_rescorer."
# Images in; OUTPUTS out. B images, side S, P anchors, C classes and background, K prototypes.
_INTERFACE: tuple[tuple[int | str, ...], ...] = (
    ("B", 3, "S", "S"),
    *(("B", "P", "C"), ("B", "P", 4), ("B", "P", "K"), ("B", "K", "h", "w"), ("P", 4)),
)


def read_trained(path: Path) -> Checkpoint:
    """Read a checkpoint or an exported file, without running code from it.

    For an exported file, the checkpoint has the configuration and the weights outside the network.

    Raises:
        ValueError: the file is neither.
    """
    if not is_exported(path):
        return read_checkpoint(path)
    try:
        content = json.loads(_read_metadata(path))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r}")
        state = _decode_state(content["rescorer"])
        return Checkpoint(path, state, False, stored_config(content["config"]))
    except Exception as error:  # broken files make the parsers raise almost anything
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ValueError(f"{path}: not a model exported by yolact export ({reason[0]})") from None


def engine_for_file(
    path: Path, config: Config, device: str, engine: EngineName, precision: Precision
) -> Engine:
    """Choose an engine for a file, as `choose_engine` does.

    For an exported file, "auto" is OpenVINO, but ONNX Runtime if it is for a GPU that is available,
    or if OpenVINO is not installed.

    Raises:
        OptionError: see `choose_engine`; or the engine is not for this kind of file.
    """
    is_onnx = path.suffix.lower() == ".onnx"
    if engine == "auto" and is_exported(path):
        on_card = pick_device(device).type == "cuda"
        on_card &= device != "auto" or CUDA_PROVIDER in onnxruntime_providers()
        engine = "onnxruntime" if is_onnx and (on_card or not has_openvino()) else "openvino"
        if device == "auto" and not on_card:
            device = "cpu"
    if engine == "onnxruntime" and not is_onnx:
        raise OptionError("engine", engine, "runs .onnx files, which `yolact export` writes")
    return choose_engine(device, engine, precision, model_class(config.model).fixed_shapes)


def open_trained(
    checkpoint: Checkpoint, config: Config, engine: Engine
) -> tuple[AnySegmenter, RunNetwork]:
    """Build the model of a file, and make its network ready to run.

    Args:
        checkpoint: from `read_trained`.
        config: the checkpoint's configuration, perhaps changed.
        engine: from `engine_for_file`.

    Returns:
        The model in evaluation mode on the engine's device, and a function to run instead of
        `model.network`, which has no weights for an exported file.

    Raises:
        ValueError: the file does not fit the configuration or the engine.
    """
    if not is_exported(checkpoint.path):
        model = trained_model(checkpoint, config).to(engine.device)
        return model, prepare(model.network, engine, model.image_size)
    runs_files = engine.name in ("openvino", "onnxruntime")
    if config.model != checkpoint.preset().model or not runs_files:
        raise ValueError(
            f"{checkpoint.path}: an exported model runs as it is, through openvino on the CPU or "
            "onnxruntime; leave out engine, device and changes of the model, or export it anew"
        )
    with torch.random.fork_rng(devices=()):  # of random weights that are left out
        model = build_model(config).eval().to(engine.device)
    model.network.to("meta")  # without weights, so that it cannot run by mistake
    skipped = load_matching_weights(model, checkpoint)
    if any(line.startswith(_RESCORER) for line in skipped):
        raise ValueError(f"{checkpoint.path}: lacks the weights of the mask rescorer")
    return model, _open_network(checkpoint.path, config, engine)


def _open_network(path: Path, config: Config, engine: Engine) -> RunNetwork:
    """Open an exported network, and check its inputs and outputs against its metadata."""
    if engine.name == "onnxruntime":
        from .onnxruntime import OnnxRuntimeNetwork

        session = OnnxRuntimeNetwork(path, engine)
        _check_interface(path, session.ports, config)
        return session
    from .openvino import OpenVinoNetwork, ports_of, read_network

    network = read_network(path)
    _check_interface(path, ports_of(network), config)
    return OpenVinoNetwork(network, engine.precision)


def metadata(model: AnySegmenter, config: Config) -> str:
    """Describe a model in the JSON text of its exported file's metadata."""
    state = {k: v for k, v in model.state_dict().items() if k.startswith(_RESCORER)}
    content = {"format": _FORMAT, "config": config.to_dict(), "rescorer": _encode_state(state)}
    return json.dumps(content)


def write_openvino(network: Any, text: str, path: Path, half: bool = False) -> None:
    """Write an `openvino.Model` as PATH.xml and PATH.bin.

    Args:
        network: from `openvino.convert`, perhaps quantised.
        text: from `metadata`.
        path: ends in .xml.
        half: store float32 weights as float16.
    """
    from .openvino import write_network

    network.set_rt_info(text, [KEY])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_network(network, path, half)


def _check_interface(path: Path, ports: Sequence[Port], config: Config) -> None:
    """Refuse a network with other input or output shapes than its metadata says.

    Args:
        path: for messages.
        ports: the input, then the outputs.
        config: configuration in the metadata.

    Raises:
        ValueError: a size that is fixed in the file differs.
    """
    sizes = {"S": config.model.image_size, "C": config.num_classes + 1}
    fits = len(ports) == len(_INTERFACE)
    for (found, is_float), wanted in zip(ports, _INTERFACE, strict=False):
        fits &= len(found) == len(wanted) and is_float
        for size, name in zip(found, wanted, strict=False):
            known = name if isinstance(name, int) else sizes.setdefault(name, size or 0)
            fits &= size in (None, known) or known == 0
    if not fits:
        raise ValueError(f"{path}: its network does not fit its metadata; export the model anew")


def _read_metadata(path: Path) -> str:
    if path.suffix.lower() == ".onnx" and not has_openvino() and onnxruntime_providers():
        from .onnxruntime import open_session

        metadata = open_session(path).get_modelmeta().custom_metadata_map
        if KEY not in metadata:
            raise ValueError(_FOREIGN)
        return str(metadata[KEY])
    if not has_openvino():
        raise ValueError("it runs through OpenVINO; pip install openvino")
    from .openvino import read_network

    with open_file(path) as file:
        head = file.read(1000)
    if path.suffix.lower() == ".xml" and b"<net" not in head:
        raise ValueError("no OpenVINO network in it")  # other readers would try it, noisily
    model = read_network(path)
    keys = [KEY] if path.suffix.lower() == ".xml" else ["framework", KEY]
    if not model.has_rt_info(keys):
        raise ValueError(_FOREIGN)
    return str(model.get_rt_info(keys).value)


def _encode_state(state: State) -> str:
    """Store tensors in text."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in state.items()}
    np.savez(buffer, **arrays)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _decode_state(text: str) -> dict[str, Tensor]:
    content = io.BytesIO(base64.b64decode(text, validate=True))
    check_archive(content)
    with np.load(content, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}
