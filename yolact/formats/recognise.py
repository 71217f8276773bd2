"""Recognise the project that a checkpoint comes from, by the names of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from data.classes import YOUTUBE_VIS_CLASSES
from yolact.config import Config

from .mmdetection import from_mmdetection
from .names import State
from .official import clean_official
from .settings import num_classes_of, preset_like, settings_of
from .yolact_edge import from_yolact_edge
from .yolact_minimal import from_yolact_minimal, is_named_so


@dataclass(frozen=True)
class Format:
    """The checkpoints of one project.

    Attributes:
        project: name of the project.
        mark: a tensor that only this project's checkpoints have.
        convert: converts their tensors to the names and the layout of 2019.
        network: settings of `ModelConfig` that their weights are trained with.
        sizes: further settings, which the user's preset overrides.
        class_names: class names of published models on other data than COCO.
    """

    project: str
    mark: str
    convert: Callable[[Mapping[str, Tensor]], State]
    network: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


OFFICIAL = Format("YOLACT of 2019", "prediction_layers.0.conf_layer.weight", clean_official)
MINIMAL_2020 = Format(
    "Yolact_minimal",
    OFFICIAL.mark,
    clean_official,
    network={"keep_aspect": True, "square_anchors": False},
    sizes={
        "image_size": 544,
        "anchor_scales": ((23.0,), (47.0,), (94.0,), (189.0,), (379.0,)),
    },
)
FORMATS = (
    Format(
        "mmdetection",
        "bbox_head.conv_coeff.weight",
        from_mmdetection,
        network={"fpn_relu_levels": 0, "p6_source": "c5", "square_anchors": False},
    ),
    Format(
        "YolactEdge",
        "fpn_phase_1.lat_layers.0.weight",
        from_yolact_edge,
        class_names=YOUTUBE_VIS_CLASSES.names,
    ),
    Format(
        "Yolact_minimal",
        "proto_net.proto1.0.weight",
        from_yolact_minimal,
        network={
            "fpn_relu_levels": 5,
            "prototype_align_corners": True,
            "keep_aspect": True,
            "square_anchors": False,
        },
        sizes={"image_size": 544},
    ),
    OFFICIAL,
)


@dataclass(frozen=True)
class Published:
    """A YOLACT of another project, or of 2019.

    Attributes:
        format: format of its project.
        state: its tensors by the names of 2019.
        class_names: class names in the file, which are often absent.
    """

    format: Format
    state: State
    class_names: tuple[str, ...] = ()

    def config(self, preset: Config | None = None) -> Config:
        """Fit a preset to the tensors.

        Args:
            preset: settings that tensors do not determine, such as sizes; by default the project's.

        Raises:
            ValueError: without a preset, a model that has no equivalent here.
        """
        network = {**self.format.network, "num_classes": num_classes_of(self.state)}
        if preset is None:
            told = settings_of(self.state)
            preset = preset_like(told)
            network = {**told, **self.format.sizes, **network}
        names = (self.class_names, self.format.class_names, preset.model.class_names)
        fitting = (each for each in names if len(each) == network["num_classes"])
        model = replace(preset.model, **network, class_names=next(fitting, ()))
        return replace(preset, model=model)


def recognise(content: object, state: Mapping[str, Tensor], stem: str) -> Published | None:
    """Recognise the project of a YOLACT checkpoint, and convert its tensors.

    Args:
        content: content of the file.
        state: the tensors in it.
        stem: the file's name without suffix.

    Returns:
        The model; None for tensors of something else.

    Raises:
        ValueError: the tensors are not those of the project's models.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    source = next((each for each in FORMATS if each.mark in state), None)
    if source is None:
        return None
    if source is OFFICIAL and is_named_so(stem):
        source = MINIMAL_2020
    try:
        return Published(source, source.convert(state), _class_names(content))
    except ValueError as error:
        raise ValueError(f"a checkpoint of {source.project}, but {error}") from None


def _class_names(content: object) -> tuple[str, ...]:
    """Return the class names that mmdetection stores beside the weights, if any."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    dataset = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    for place in (meta, dataset):
        if isinstance(place, Mapping):
            names = place.get("classes", place.get("CLASSES"))
            if isinstance(names, (list, tuple)) and all(isinstance(each, str) for each in names):
                return tuple(names)
    return ()
