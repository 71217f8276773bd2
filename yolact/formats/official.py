"""The tensor names of the 2019 release, translated to ours and back by one pure function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from yolact.config import ModelConfig
from yolact.timm_networks import TIMM_PREFIX

from .names import State, Table, translate

# Our names -> the official names. The FPN is stored from C5 down to C3 there, and activations count
# in the numbering of ProtoNet and of the mask rescorer.
_RENAMES: Table = (
    (r"network\.backbone\.layer(\d)\.", lambda m: f"backbone.layers.{int(m[1]) - 1}."),
    (r"network\.backbone\.stages\.", lambda m: "backbone.layers."),
    (r"network\.backbone\.stem\.", lambda m: "backbone._preconv."),
    (r"network\.backbone\.", lambda m: "backbone."),
    (r"network\.fpn\.lateral\.(\d)\.", lambda m: f"fpn.lat_layers.{2 - int(m[1])}."),
    (r"network\.fpn\.output\.(\d)\.", lambda m: f"fpn.pred_layers.{2 - int(m[1])}."),
    (r"network\.fpn\.downsample\.", lambda m: "fpn.downsample_layers."),
    (r"network\.protonet\.convs\.(\d)\.", lambda m: f"proto_net.{2 * int(m[1])}."),
    (r"network\.protonet\.refine\.", lambda m: "proto_net.8."),
    (r"network\.protonet\.project\.", lambda m: "proto_net.10."),
    (r"network\.head\.shared\.", lambda m: "prediction_layers.0.upfeature."),
    (r"network\.head\.boxes\.", lambda m: "prediction_layers.0.bbox_layer."),
    (r"network\.head\.classes\.", lambda m: "prediction_layers.0.conf_layer."),
    (r"network\.head\.coefficients\.", lambda m: "prediction_layers.0.mask_layer."),
    (r"network\.semantic\.", lambda m: "semantic_seg_conv."),
    (r"mask_rescorer\.convs\.(\d)\.", lambda m: f"maskiou_net.maskiou_net.{2 * int(m[1])}."),
    (r"mask_rescorer\.classify\.", lambda m: "maskiou_net.maskiou_net.10."),
)


def official_name(name: str) -> str:
    """Translate one of our tensor names to the official one.

    Raises:
        KeyError: no official model has such a tensor.
    """
    official = translate(name, _RENAMES)
    if official is None:
        raise KeyError(f"no official name for {name!r}")
    return official.replace("offset_mask.", "conv_offset_mask.")


def check_official(model: ModelConfig) -> None:
    """Refuse a network that the code of 2019 would run differently.

    Raises:
        ValueError: a setting that it does not have.
    """
    for name in ("keep_aspect", "fpn_relu_levels", "p6_source", "prototype_align_corners"):
        value = getattr(model, name)
        if value != getattr(ModelConfig(), name):
            raise ValueError(f"model.{name}={value}: the release of 2019 has no such model")
    if model.backbone.startswith((TIMM_PREFIX, "mobilenet")):
        raise ValueError(f"model.backbone={model.backbone}: the release of 2019 has no such model")


def to_official(state: Mapping[str, Tensor]) -> State:
    """Rename a whole state dict to the official names.

    Raises:
        ValueError: the model is none that the 2019 release could hold.
    """
    try:
        return {official_name(name): tensor for name, tensor in state.items()}
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: the release of 2019 has no such model") from None


def from_official(state: Mapping[str, Tensor], names: Iterable[str]) -> State:
    """Rename an official state dict to our names; unknown names stay as they are.

    Args:
        state: tensors by their official names.
        names: ours, of all tensors of the model.
    """
    ours = {official_name(name): name for name in names}
    return {ours.get(name, name): tensor for name, tensor in clean_official(state).items()}


def clean_official(state: Mapping[str, Tensor]) -> State:
    """Drop what old official files carry along: DataParallel prefixes and stale layers."""
    cleaned = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    stale = re.compile(r"backbone\.layer(?!s\.)|fpn\.downsample_layers\.([2-9]|\d\d)")
    return {name: tensor for name, tensor in cleaned.items() if not stale.match(name)}
