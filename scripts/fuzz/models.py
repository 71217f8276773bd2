"""Readers of what a model is made of, and of what is kept of its runs."""

from __future__ import annotations

import html
import io
import json
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from mutations import (
    damaged,
    damaged_json,
    damaged_safetensors,
    damaged_text,
    damaged_value,
    damaged_xml,
    damaged_zip,
)
from parser import Parser
from torch import Tensor, nn

from data.annotations.run_lengths import encode
from yolact.checkpoint import load_matching_weights, read_checkpoint
from yolact.config import Config
from yolact.engines.exported import read_trained
from yolact.evaluation.result_files import CocoResults, Result, load_results, save_results
from yolact.evaluation.result_origin import Origin, settings_of
from yolact.hub.folder import CONFIG_FILE, WEIGHTS_FILE, write_folder
from yolact.presets import get_config, stored_config
from yolact.training.log import TrainingLog, read_log
from yolact.training.saver import restore
from yolact.training.state import Learner

_CONFIG = "yolact_resnet18"


# --- checkpoints ----------------------------------------------------------------------------------


def checkpoint(folder: Path) -> Parser:
    """Read a .pth, tell its preset, and go on with the training in it."""
    file = folder / "yolact_base_1_2.pth"
    config = get_config(_CONFIG)
    linear = nn.Linear(3, 2)
    learner = Learner(config, linear, torch.optim.SGD(linear.parameters(), 0.1, momentum=0.9), 10)  # type: ignore[arg-type]
    linear(torch.ones(3)).sum().backward()
    learner.optimizer.step()

    def read(content: bytes) -> None:
        file.write_bytes(content)
        found = read_checkpoint(file)
        found.preset()
        if not found.official:
            load_matching_weights(linear, found)  # type: ignore[arg-type]
            restore(found, learner)

    own = {
        "format": "yolact-checkpoint-1",
        "config": config.to_dict(),
        "model": linear.state_dict(),
        "training": {
            **vars(learner.progress),
            "optimizer": learner.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": [],
        },
    }
    states = [own, _official(), *_foreign()]
    return Parser([_saved(state) for state in states], read, damaged_checkpoint)


def _official() -> dict[str, Tensor]:
    """Return the tensors that tell the settings of a model of 2019."""
    rows = {
        "backbone.conv1.weight": 64,
        "backbone.layers.2.0.conv1.weight": 8,
        "backbone.layers.2.1.conv1.weight": 8,
        "fpn.lat_layers.0.weight": 16,
        "proto_net.0.weight": 16,
        "prediction_layers.0.upfeature.0.weight": 16,
        "prediction_layers.0.bbox_layer.weight": 12,
        "prediction_layers.0.conf_layer.weight": 12,
        "prediction_layers.0.mask_layer.weight": 24,
    }
    return {name: torch.zeros(count, 1, 1, 1) for name, count in rows.items()}


_NAMES = {
    "Yolact_minimal": (
        ("fpn.lat_layers.0", "fpn.lat_layers.2"),
        ("proto_net.", "proto_net.proto1."),
        ("prediction_layers.0.mask_layer", "prediction_layers.coef_layer.0"),
        ("prediction_layers.0.", "prediction_layers."),
    ),
    "YolactEdge": (("fpn.", "fpn_phase_1."),),
    "mmdetection": (
        ("backbone.layers.2", "backbone.layer3"),
        ("fpn.lat_layers.0", "neck.lateral_convs.2.conv"),
        ("proto_net", "mask_head.protonet"),
        ("prediction_layers.0.upfeature.0", "bbox_head.head_convs.0.conv"),
        ("prediction_layers.0.bbox_layer", "bbox_head.conv_reg"),
        ("prediction_layers.0.conf_layer", "bbox_head.conv_cls"),
        ("prediction_layers.0.mask_layer", "bbox_head.conv_coeff"),
    ),
}
"""What each project calls the parts that 2019 called otherwise."""


def _foreign() -> list[dict[str, Any]]:
    """Return the same tensors as other projects name them."""
    states = []
    for pairs in _NAMES.values():
        state = _official()
        for official, theirs in pairs:
            state = {name.replace(official, theirs): tensor for name, tensor in state.items()}
        states.append({"meta": {"CLASSES": ("a", "b", "c")}, "state_dict": state})
    return states


def _saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def damaged_checkpoint(content: bytes, random: Random) -> bytes:
    """Damage the values in a file, or the pickle and the storages, or bytes anywhere."""
    if random.random() < 0.5:
        return damaged_zip(content, random)
    try:
        value = torch.load(io.BytesIO(content), weights_only=True)
        for _ in range(random.randrange(1, 5)):
            value = damaged_value(value, random, partial(_damaged_tensor, random))
        return _saved(value)[: 1 << 20]
    except Exception:  # what is damaged already, and values that torch does not write
        return damaged_zip(content, random)


def _damaged_tensor(random: Random, tensor: Any) -> Any:
    tensor = tensor if isinstance(tensor, Tensor) else torch.zeros(2, 3)
    changes: tuple[Any, ...] = (
        lambda: torch.zeros(1).expand(random.choice((3, 10**4)), random.choice((5, 10**6))),
        lambda: tensor.to_sparse(),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8),
        lambda: tensor.to(random.choice((torch.complex64, torch.float16, torch.int64, torch.bool))),
        lambda: tensor.reshape(-1)[: random.randrange(4)],
        lambda: tensor.float() * float("nan"),
        lambda: nn.Parameter(tensor.float()),
        lambda: torch.zeros(random.choice(((), (0,), (1, 1, 1, 1), (12, 0, 1, 1), (2**16,)))),
        lambda: torch.zeros(3, device="meta"),
        lambda: tensor.t() if tensor.dim() == 2 else tensor[None],
    )
    return random.choice(changes)()


def safetensors(folder: Path) -> Parser:
    """Read the weights of a model's folder."""
    state = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2).half()}
    write_folder(folder, state, get_config(_CONFIG), {})
    file = folder / WEIGHTS_FILE

    def read(content: bytes) -> None:
        file.write_bytes(content)
        sum(tensor.float().sum() for tensor in read_checkpoint(file).model.values())

    return Parser([file.read_bytes()], read, damaged_safetensors)


# --- settings -------------------------------------------------------------------------------------


def config(folder: Path) -> Parser:
    """Read the configuration of a model's folder, and write it again."""
    file = folder / CONFIG_FILE
    write_folder(folder, {"a": torch.ones(1)}, get_config(_CONFIG), {})
    written = json.loads(file.read_bytes())
    other = written | {"config": get_config("maskrcnn_resnet50_fpn").to_dict()}

    def read(content: bytes) -> None:
        file.write_bytes(content)
        found = read_checkpoint(folder / WEIGHTS_FILE).config
        if found is None or Config.from_dict(json.loads(json.dumps(found.to_dict()))) != found:
            raise AssertionError("written and read again, it is another one")

    return Parser([file.read_bytes(), json.dumps(other).encode()], read, damaged_json)


def settings(folder: Path) -> Parser:
    """Read values of `--set`, one a line."""
    base = get_config(_CONFIG)
    lines = (
        "model.image_size=400\nmodel.class_names=cat,dog\ntrain.learning_rate=5e-4",
        "train.learning_rate_steps=(100, 200)\nmodel.anchor_scales=[[1],[2],[3],[4],[5]]",
        "detect.nms=cross_class\naugment.scale_jitter=0.5,2\ndata.crowd=ignore\ndataset=x",
        "model.backbone=resnet50\nmodel.backbone=timm/resnet10t\nname=my.run-1\nmodel.keep_aspect=true",
    )

    def read(content: bytes) -> None:
        found = base.override(*content.decode("utf-8", "surrogateescape").splitlines())
        if stored_config(json.loads(json.dumps(found.to_dict()))) != found:
            raise AssertionError("written and read again, it is another one")

    return Parser([text.encode() for text in lines], read, damaged_text, (ValueError, KeyError))


# --- exported models ------------------------------------------------------------------------------


def exported(folder: Path) -> Parser:
    """Read the metadata of an OpenVINO file, and compare it with the network."""
    import openvino as ov
    from openvino import opset13 as ops

    from yolact.engines import exported as module
    from yolact.engines.openvino import ports_of, read_network

    config = get_config(_CONFIG).override("model.image_size=64").with_classes(("a", "b"))
    shapes = ((1, 6, 3), (1, 6, 4), (1, 6, 32), (1, 32, 16, 16), (6, 4))
    images = ops.parameter([1, 3, 64, 64], np.float32, "images")
    outputs = [ops.constant(np.zeros(shape, np.float32)) for shape in shapes]
    network = ov.Model([ops.result(output) for output in outputs], [images], "yolact")
    file = folder / "model.xml"
    module.write_openvino(network, module.metadata(nn.Identity(), config), file)  # type: ignore[arg-type]

    def read(content: bytes) -> None:
        file.write_bytes(content)
        found = read_trained(file)
        # Not by `open_trained`, which builds the whole model.
        module._check_interface(file, ports_of(read_network(file)), found.preset())

    return Parser([file.read_bytes()], read, _damaged_export)


def _damaged_export(content: bytes, random: Random) -> bytes:
    """Damage the network, or the metadata in it, which is JSON as an attribute."""
    start = content.find(b"{&quot;")
    end = content.find(b'"', start)
    if start < 0 or end < 0 or random.random() < 0.4:
        return damaged_xml(content, random)
    text = damaged_json(
        html.unescape(content[start:end].decode("utf-8", "replace")).encode(), random
    )
    return content[:start] + html.escape(text.decode("utf-8", "replace")).encode() + content[end:]


# --- what is kept of runs -------------------------------------------------------------------------


def results(folder: Path) -> Parser:
    """Read detections that were kept."""
    file = folder / "results.json"
    config = get_config(_CONFIG)
    origin = Origin(
        "a.pth", "0" * 64, "shapes", "cropped", 0.05, "auto", "auto", settings_of(config)
    )
    counts = encode(np.eye(5, 7, dtype=np.bool_))["counts"]
    found = [Result(3, 1, (0.0, 1.0, 2.0, 3.5), 0.9, 0.8, counts)]
    save_results(file, CocoResults({3: (5, 7)}, found), origin)

    def read(content: bytes) -> None:
        file.write_bytes(content)
        load_results(file, origin)

    return Parser([file.read_bytes()], read, damaged_json)


def log(folder: Path) -> Parser:
    """Read the log of a training run, and go on with it."""
    file = folder / "log"
    run = TrainingLog(file, {"box": "B"})
    run.start({"a": 1}, ["cpu"])
    run.train({"box": 1.0}, epoch=0, iteration=1, learning_rate=0.1, elapsed=0.2)
    run.validation({"all": 1.0}, {"all": 2.0}, epoch=0, iteration=1, elapsed=0.2)

    def read(content: bytes) -> None:
        file.write_bytes(content)
        before = read_log(file)
        TrainingLog(file, {}).start({}, [])
        if len(read_log(file)) != len(before) + 1:
            raise AssertionError("another line was lost")

    return Parser([file.read_bytes()], read, _damaged_lines)


def _damaged_lines(content: bytes, random: Random) -> bytes:
    lines = content.splitlines()
    if not lines or random.random() < 0.3:
        return damaged(content, random)
    place = random.randrange(len(lines))
    lines[place] = damaged_json(lines[place], random)
    return b"\n".join(lines)
