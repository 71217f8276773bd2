"""YOLACT checkpoints of mmdetection (2.x and 3.x), brought to the layout of the 2019 release."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .names import State, Table, rename

_RENAMES: Table = (
    (r"backbone\.layer(\d)\.", lambda m: f"backbone.layers.{int(m[1]) - 1}."),
    (r"backbone\.", lambda m: m[0]),
    (r"neck\.lateral_convs\.([0-2])\.conv\.", lambda m: f"fpn.lat_layers.{2 - int(m[1])}."),
    (r"neck\.fpn_convs\.([0-2])\.conv\.", lambda m: f"fpn.pred_layers.{2 - int(m[1])}."),
    (r"neck\.fpn_convs\.([34])\.conv\.", lambda m: f"fpn.downsample_layers.{int(m[1]) - 3}."),
    (r"bbox_head\.head_convs\.0\.conv\.", lambda m: "prediction_layers.0.upfeature.0."),
    (r"bbox_head\.conv_reg\.", lambda m: "prediction_layers.0.bbox_layer."),
    (r"bbox_head\.conv_cls\.", lambda m: "prediction_layers.0.conf_layer."),
    (r"bbox_head\.conv_coeff\.", lambda m: "prediction_layers.0.mask_layer."),
    (r"mask_head\.protonet\.", lambda m: "proto_net."),
    (r"(segm_head|mask_head\.segm_branch)\.segm_conv\.", lambda m: "semantic_seg_conv."),
)
# Its anchors are wide, square, tall; those of 2019 square, tall, wide.
_ANCHORS = (1, 2, 0)


def from_mmdetection(state: Mapping[str, Tensor]) -> State:
    """Rename tensors, and put anchors and classes in the order of 2019.

    Raises:
        ValueError: a tensor that a YOLACT does not have, or another number of anchors.
    """
    boxes = state.get("bbox_head.conv_reg.bias")
    if boxes is not None and boxes.shape != (4 * len(_ANCHORS),):
        raise ValueError(
            f"bbox_head.conv_reg.bias: {tuple(boxes.shape)}, expected ({4 * len(_ANCHORS)},): "
            "three anchors a cell"
        )
    return {name: _reordered(name, tensor) for name, tensor in rename(state, _RENAMES).items()}


def _reordered(name: str, tensor: Tensor) -> Tensor:
    if name.startswith("semantic_seg_conv."):
        # It is trained to find class i in channel i - 1, and class 0 in the last one.
        return tensor.roll(1, 0) if tensor.dim() else tensor
    if not name.startswith("prediction_layers.0.") or ".upfeature." in name:
        return tensor
    if not tensor.dim() or tensor.shape[0] % len(_ANCHORS):
        raise ValueError(f"{name}: {tuple(tensor.shape)}, expected the same for each of 3 anchors")
    by_anchor = tensor.reshape(len(_ANCHORS), tensor.shape[0] // len(_ANCHORS), *tensor.shape[1:])
    if ".conf_layer." in name:
        by_anchor = by_anchor.roll(1, 1)  # background comes last there, here first
    return by_anchor[list(_ANCHORS)].flatten(0, 1)
