"""Backbones trained on ImageNet, to start training from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from yolact.checkpoint import WEIGHTS_FOLDER, read_checkpoint
from yolact.config import ModelConfig
from yolact.download import DownloadError, fetch_weights
from yolact.models.backbones import Darknet53, MobileNetV3
from yolact.models.official import clean_official
from yolact.models.segmenter import Segmenter


def load_backbone(
    model: Segmenter[Any, Any], config: ModelConfig, folder: Path = WEIGHTS_FOLDER
) -> None:
    """Load ImageNet weights into a model's backbone, downloading them once.

    Args:
        model: its deformable convolutions take the weights of the plain ones.
        config: names the backbone.
        folder: where darknet53.pth is kept; torchvision keeps its files in torch's own cache.

    Raises:
        OSError: the weights can be neither found nor downloaded; the message says what to do.
        ValueError: a file that does not fit.
    """
    backbone = model.network.get_submodule("backbone")
    if isinstance(backbone, Darknet53):
        path = fetch_weights("darknet53", folder)
        state = {
            name.replace("layers.", "stages.", 1).replace("_preconv.", "stem.", 1): tensor
            for name, tensor in clean_official(read_checkpoint(path).model).items()
        }
    else:
        state = _torchvision_weights(config.backbone)
    _load(backbone, state)


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    # The first generation of torchvision's weights is what the original started from.
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise DownloadError(
            f"cannot download {weights.url} ({error}); put the file at {cache} by hand, or train "
            "from scratch with --set train.pretrained_backbone=False"
        ) from None
    return state


def _load(backbone: nn.Module, state: dict[str, Tensor]) -> None:
    result = backbone.load_state_dict(
        {name: t for name, t in state.items() if not _only_classifies(name, backbone)}, strict=False
    )
    # Only what a classifier does not have may be missing: deformable offsets and biases.
    missing = [
        name
        for name in result.missing_keys
        if "offset_mask" not in name and not name.endswith("conv2.bias")
    ]
    if missing or result.unexpected_keys:
        first = (missing + list(result.unexpected_keys))[0]
        raise ValueError(f"the backbone weights do not fit this backbone, first at {first}")


def _only_classifies(name: str, backbone: nn.Module) -> bool:
    """Tell the tensors that a classifier has on top of a backbone."""
    if isinstance(backbone, MobileNetV3):
        return not name.startswith(tuple(f"features.{i}." for i in range(len(backbone.features))))
    return name.startswith("fc.")
