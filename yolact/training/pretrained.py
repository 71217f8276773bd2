"""Initial weights for training: from a checkpoint, or of a backbone trained on ImageNet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from data.classes import Categories
from data.problems import some_of
from yolact.checkpoint import (
    WEIGHTS_FOLDER,
    Checkpoint,
    load_matching_weights,
    load_weights,
    read_checkpoint,
    state_for,
)
from yolact.config import Config, ModelConfig
from yolact.errors import UsageError
from yolact.formats.official import clean_official
from yolact.hub.client import hub, one_line
from yolact.hub.released import fetch_weights
from yolact.models.backbones import Darknet53, MobileNet
from yolact.models.segmenter import AnySegmenter
from yolact.timm_networks import TIMM_PREFIX

from .options import TrainOptions

logger = logging.getLogger(__name__)

_MASK_QUALITY = "mask_rescorer.classify"
_CLASS_LAYERS = {
    "network.head.classes": (1, 1),
    "network.semantic": (0, 1),
    _MASK_QUALITY: (0, 1),
    "network.roi_heads.box_predictor.cls_score": (1, 1),
    "network.roi_heads.box_predictor.bbox_pred": (1, 4),
    "network.roi_heads.mask_predictor.mask_fcn_logits": (1, 1),
}
"""Layers with channels for each class, in the first layer for each anchor: the number of classes
before them, which is the background; the number of channels per class."""


def load_start_weights(
    model: AnySegmenter, config: Config, checkpoint: Checkpoint | None, options: TrainOptions
) -> None:
    """Load the initial weights of training, if any.

    Args:
        model: with random weights.
        config: configuration of the model.
        checkpoint: from --resume or --weights.
        options: determine whether every tensor of the checkpoint must fit (else those that do not
            are listed), and where a backbone's weights are.

    Raises:
        ValueError: the checkpoint does not fit.
        UsageError: no tensor of it fits.
    """
    if checkpoint is None:
        if config.train.pretrained_backbone:
            load_backbone(model, config.model, file=options.backbone_weights)
    elif options.resume:
        load_weights(model, checkpoint)
    else:
        skipped = load_matching_weights(model, checkpoint)
        kept = keep_known_classes(model, config.model.names, checkpoint)
        for line in skipped:
            if not line.startswith(kept):
                logger.info("not loaded: %s", line)
        if len(skipped) == len(model.state_dict()):
            raise UsageError(f"--weights={checkpoint.path}: nothing in it fits {config.name}")


def keep_known_classes(
    model: AnySegmenter, names: Sequence[str], checkpoint: Checkpoint
) -> tuple[str, ...]:
    """Start known classes and the background from the weights of a checkpoint with other classes.

    New classes start at 0, below the background almost everywhere, as random weights would score
    above known classes. Their mask quality could not leave 0, so it starts as it is. If no class is
    known, layers that fit are left as they are.

    Args:
        model: its other weights are already loaded.
        names: names of its classes.
        checkpoint: with other classes, or with the same ones.

    Returns:
        The names of the tensors that are loaded in part.
    """
    learned = _learned_classes(checkpoint)
    before, now = _keys(learned, names)
    shared = [name for name in now if name in before] if now != before else []
    own, state = model.state_dict(), state_for(model, checkpoint)
    kept = []
    for layer, (others, channels) in _CLASS_LAYERS.items():
        rows, their_rows = (
            [*range(others), *(others + classes.index(name) for name in shared)]
            for classes in (now, before)
        )
        for name in (f"{layer}.weight", f"{layer}.bias"):
            theirs = state.get(name)
            if not shared or name not in own or theirs is None:
                continue
            shape = channels, *theirs.shape[1:]
            start = own[name] if layer == _MASK_QUALITY else own[name].zero_()
            parts = start.view(-1, others + len(now), *shape)
            parts[:, rows] = theirs.view(-1, others + len(before), *shape)[:, their_rows]
            kept.append(name)
    if kept:
        new = some_of([name for name in now if name not in shared], 8)
        rest = f", and anew for {new}" if new else ""
        known = f"those of {checkpoint.path} for {some_of(shared, 8)}"
        logger.info("class layers start from %s%s", known, rest)
    return tuple(kept)


def categories_to_train(
    own: Categories, dataset: str, checkpoint: Checkpoint, resume: bool
) -> Categories:
    """Return the classes of a run that starts from a checkpoint.

    They are those of the dataset. If the checkpoint has the same classes in another order, its
    order is kept, and `open_dataset` matches the labels by name.

    Args:
        own: classes of the dataset.
        dataset: name of the dataset, for messages.
        checkpoint: from --resume or --weights.
        resume: whether a run is continued.

    Raises:
        UsageError: the run to continue has other classes.
    """
    learned = _learned_classes(checkpoint)
    difference = class_difference(learned, own.names) if learned else ""
    if not difference:
        return own
    if _are_same(learned, own.names):
        order = f"the order of {checkpoint.path} is kept"
        logger.warning("dataset %r, %s; %s", dataset, difference, order)
        return Categories.from_names(learned)
    if resume:
        raise UsageError(
            f"{checkpoint.path}: cannot go on with dataset {dataset!r}, {difference}; "
            f"--weights={checkpoint.path} starts a new run from it"
        )
    before, now = _keys(learned, own.names)
    if len(before) == len(now):
        by = "place, for no name is known" if set(before).isdisjoint(now) else "name"
        start = f"class layers start from those of {checkpoint.path} by {by}"
        logger.warning("dataset %r, %s; %s", dataset, difference, start)
    return own


def class_difference(before: Sequence[str], now: Sequence[str]) -> str:
    """Describe how two lists of classes differ; empty if only in upper and lower case.

    Case counts if two names of one list differ only in it, such as A and a.
    """
    keys = _keys(before, now)
    if keys[0] == keys[1]:
        return ""
    if len(before) != len(now):
        return f"which has {len(now)} classes, not {len(before)}"
    label = next(i for i, (a, b) in enumerate(zip(*keys, strict=True)) if a != b)
    what = "the same classes in another order" if _are_same(before, now) else "other classes"
    return f"which has {what}: class {label} is {now[label]!r}, not {before[label]!r}"


def _are_same(before: Sequence[str], now: Sequence[str]) -> bool:
    first, second = _keys(before, now)
    return sorted(first) == sorted(second)


def _keys(*lists: Sequence[str]) -> list[list[str]]:
    """Return the names in lower case, unless two of one list become the same."""
    lower = [[name.lower() for name in names] for names in lists]
    if all(len(set(names)) == len(names) for names in lower):
        return lower
    return [list(names) for names in lists]


def _learned_classes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the class names of a checkpoint; empty if unknown."""
    try:
        return checkpoint.preset().model.class_names
    except ValueError:  # a published file under a name of its own
        return ()


def load_backbone(
    model: AnySegmenter,
    config: ModelConfig,
    folder: Path = WEIGHTS_FOLDER,
    file: Path | None = None,
) -> None:
    """Load ImageNet weights into a model's backbone, downloading them once.

    Args:
        model: its deformable convolutions take the weights of the plain ones.
        config: names the backbone.
        folder: folder for a manually downloaded darknet53.pth; downloads go to the caches of torch
            and of the hub.
        file: file with the weights of a timm network.

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
    elif config.backbone.startswith(TIMM_PREFIX):
        from yolact.models.backbones.from_timm import pretrained_state  # timm is slow to load

        hub()  # timm uses it; this makes it send no data about this machine
        state = pretrained_state(config.backbone, file)
    else:
        state = _torchvision_weights(config.backbone)
    _load(backbone, state)


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    # The first generation of torchvision's weights is what the original started from.
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    scratch = "train from scratch with --set train.pretrained_backbone=False"
    with one_line(f"download {weights.url}", f"put the file at {cache} by hand, or {scratch}"):
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
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
    """Tell whether a tensor belongs to a classifier on top of the backbone."""
    if isinstance(backbone, MobileNet):
        return not name.startswith(tuple(f"features.{i}." for i in range(len(backbone.features))))
    return name.startswith("fc.")
