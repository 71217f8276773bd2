"""The settings of a YOLACT, told by its tensors in the layout of the 2019 release."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from yolact.config import Config
from yolact.presets import get_config, list_configs

# Of a ResNet: whether its blocks are bottlenecks, and how many are in C4.
_RESNETS = {
    (False, 2): "resnet18",
    (False, 6): "resnet34",
    (True, 6): "resnet50",
    (True, 23): "resnet101",
}


def num_classes_of(state: Mapping[str, Tensor]) -> int:
    """Return the number of foreground classes.

    Raises:
        ValueError: the layers that tell are missing, or do not go together.
    """
    boxes = _rows(state, "prediction_layers.0.bbox_layer.weight")
    classes = _rows(state, "prediction_layers.0.conf_layer.weight")
    anchors = boxes // 4
    if not anchors or classes % anchors or classes // anchors < 2:
        raise ValueError(f"{boxes} rows for boxes and {classes} for classes do not go together")
    return classes // anchors - 1


def settings_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that tensors can tell.

    Raises:
        ValueError: a backbone that we do not have, or a layer that is missing.
    """
    boxes = _rows(state, "prediction_layers.0.bbox_layer.weight")
    coefficients = _rows(state, "prediction_layers.0.mask_layer.weight")
    return {
        "backbone": _backbone_of(state),
        "deformable_interval": _deformable_interval(state),
        "num_classes": num_classes_of(state),
        "fpn_channels": _rows(state, "fpn.lat_layers.0.weight"),
        "prototype_channels": _rows(state, "proto_net.0.weight"),
        "head_channels": _rows(state, "prediction_layers.0.upfeature.0.weight"),
        "num_prototypes": coefficients // max(boxes // 4, 1),
        "mask_rescoring": any(name.startswith("maskiou_net.") for name in state),
    }


def preset_like(settings: Mapping[str, Any]) -> Config:
    """Return the first preset with this backbone and this mask re-scoring, or YOLACT's with it."""
    alike = ("backbone", "deformable_interval", "mask_rescoring")
    for config in map(get_config, list_configs()):
        model = config.model
        if model.architecture == "yolact" and all(getattr(model, k) == settings[k] for k in alike):
            return config
    return replace(get_config("yolact_base"), name=f"yolact_{settings['backbone']}")


def _rows(state: Mapping[str, Tensor], name: str) -> int:
    if name not in state:
        raise ValueError(f"{name}: not in the file")
    if state[name].dim() != 4:
        raise ValueError(f"{name}: {tuple(state[name].shape)} are no weights of a convolution")
    return state[name].shape[0]


def _backbone_of(state: Mapping[str, Tensor]) -> str:
    names = [name for name in state if name.startswith("backbone.")]
    if "backbone._preconv.0.weight" in names:
        return "darknet53"
    if "backbone.features.1.conv.0.0.weight" in names:
        return "mobilenet_v2"
    if "backbone.features.0.0.weight" in names:
        large = any(name.startswith("backbone.features.15.") for name in names)
        return f"mobilenet_v3_{'large' if large else 'small'}"
    bottlenecks = "backbone.layers.0.0.conv3.weight" in names
    resnet = _RESNETS.get((bottlenecks, len(_blocks(state, "conv1."))))
    if resnet is None or "backbone.conv1.weight" not in names:
        first = names[0] if names else "none"
        raise ValueError(f"a backbone that is not among ours; its first tensor is {first}")
    return resnet


def _deformable_interval(state: Mapping[str, Tensor]) -> int:
    deformable = _blocks(state, "conv2.conv_offset_mask.")
    return deformable[1] - deformable[0] if len(deformable) > 1 else 0


def _blocks(state: Mapping[str, Tensor], part: str) -> list[int]:
    """Return the numbers of the blocks of C4 in a ResNet that have a part."""
    pattern = re.compile(rf"backbone\.layers\.2\.(\d+)\.{re.escape(part)}")
    return sorted({int(match[1]) for name in state if (match := pattern.match(name))})
