"""YolactEdge checkpoints (Liu et al. 2021), brought to the layout of the 2019 release.

A video model is what it is for key frames: a YOLACT. What carries features from a key frame to the
frames after it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .names import State, Table, rename

# Beside the parts for other frames, the two layers of MobileNetV2 after C5.
_UNUSED = re.compile(
    r"(flow_net|flow_net_pre_convs|spa|partial_backbone)\.|backbone\.layers\.[78]\."
)

# The first block of each layer of MobileNetV2, as torchvision counts them.
_BLOCKS = (0, 1, 2, 4, 7, 11, 14)

_RENAMES: Table = (
    (r"fpn_phase_[12]\.", lambda m: "fpn."),
    (
        r"backbone\.layers\.([1-6])\.(\d+)\.conv\.",
        lambda m: f"backbone.features.{_BLOCKS[int(m[1])] + int(m[2])}.conv.",
    ),
    (r"backbone\.layers\.0\.([01]\.\w+)$", lambda m: f"backbone.features.0.{m[1]}"),
    (r"(backbone|proto_net|prediction_layers\.0|semantic_seg_conv)\.", lambda m: m[0]),
)


def from_yolact_edge(state: Mapping[str, Tensor]) -> State:
    """Rename tensors, and leave out those that key frames do not need.

    Raises:
        ValueError: a tensor that a YOLACT does not have.
    """
    used = {name: tensor for name, tensor in state.items() if not _UNUSED.match(name)}
    return rename(used, _RENAMES)
