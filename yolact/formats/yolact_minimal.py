"""Yolact_minimal checkpoints (since April 2021), brought to the layout of the 2019 release."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .names import State, Table, rename

_RENAMES: Table = (
    (r"fpn\.lat_layers\.([0-2])\.", lambda m: f"fpn.lat_layers.{2 - int(m[1])}."),
    (r"fpn\.pred_layers\.([0-2])\.0\.", lambda m: f"fpn.pred_layers.{2 - int(m[1])}."),
    (r"fpn\.downsample_layers\.([01])\.0\.", lambda m: f"fpn.downsample_layers.{m[1]}."),
    (r"proto_net\.proto1\.", lambda m: "proto_net."),
    (r"proto_net\.proto2\.([02])\.", lambda m: f"proto_net.{8 + int(m[1])}."),
    (r"prediction_layers\.coef_layer\.0\.", lambda m: "prediction_layers.0.mask_layer."),
    (
        r"prediction_layers\.(upfeature|bbox_layer|conf_layer)\.",
        lambda m: f"prediction_layers.0.{m[1]}.",
    ),
    (r"(backbone|semantic_seg_conv)\.", lambda m: m[0]),
)


def from_yolact_minimal(state: Mapping[str, Tensor]) -> State:
    """Rename tensors.

    Raises:
        ValueError: a tensor that a YOLACT does not have.
    """
    return rename(state, _RENAMES)


def is_named_so(stem: str) -> bool:
    """Tell the files of 2020, whose tensors are named as in 2019, by their own names."""
    return re.match(r"(best_[\d.]+|latest)_res(50|101)_", stem) is not None
