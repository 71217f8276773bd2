"""Engines and precisions, and the decision for one of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["auto", "plain", "eager", "compile", "openvino"]
RunNetwork = Callable[[Any], Any]
"""From what a model's `preprocess` gives to what its `finish` takes: YOLACT's from (B, 3, S, S) to
`Predictions`."""


@dataclass(frozen=True)
class Engine:
    """A decision on how to run a network.

    Attributes:
        name: never "auto".
        device: that is there.
        precision: never "auto".
    """

    name: EngineName
    device: torch.device
    precision: Precision

    def __str__(self) -> str:
        """Say it in a few words."""
        threads = f" ({torch.get_num_threads()} threads)" if self.device.type == "cpu" else ""
        return f"{self.name}, {self.precision}, {self.device}{threads}"
