"""The names of engines and precisions, and the decision for one of each.

plain     PyTorch, unmodified, in float32, with masks as large as the image: for comparison
eager     PyTorch, batch norm folded into the convolutions, channels last; on an NVIDIA GPU recorded
          as CUDA graphs: the choice on a GPU
compile   the same with `torch.compile`: starts slowly, and needs a C++ compiler or Triton
openvino  OpenVINO, converted once and cached: the choice on a CPU
onnxruntime  an exported .onnx file, on an NVIDIA card by CUDA or TensorRT, or on a CPU
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from data.problems import counted

Precision = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["auto", "plain", "eager", "compile", "openvino", "onnxruntime"]

CUDA_PROVIDER, TENSORRT_PROVIDER = "CUDAExecutionProvider", "TensorrtExecutionProvider"
"""ONNX Runtime's names of the CUDA and TensorRT providers."""

Port = tuple[list[int | None], bool]
"""An input or output of an exported network: its sizes, None if variable; whether it is float32."""

RunNetwork = Callable[[Any], Any]
"""A network as the predictor calls it: YOLACT's from (B, 3, S, S) to `Predictions`, Mask R-CNN's
from `RoiInputs` to a list of `RoiDetections`."""


@dataclass(frozen=True)
class Engine:
    """The chosen engine, device and precision for running a network.

    Attributes:
        name: never "auto".
        device: an existing device.
        precision: never "auto".
    """

    name: EngineName
    device: torch.device
    precision: Precision

    def __str__(self) -> str:
        threads = (
            f" ({counted(torch.get_num_threads(), 'thread')})" if self.device.type == "cpu" else ""
        )
        return f"{self.name}, {self.precision}, {self.device}{threads}"
