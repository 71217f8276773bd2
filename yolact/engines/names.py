"""The names of engines and precisions, and the decision for one of each.

plain     PyTorch, as built, in float32, with masks as large as the image: to compare with
eager     PyTorch, batch norm folded into the convolutions, channels last; on an NVIDIA GPU recorded
          as CUDA graphs: the choice on a GPU
compile   the same through `torch.compile`: a slow start, and a C++ compiler or Triton needed
openvino  OpenVINO, converted once and kept in a cache: the choice on a CPU
onnxruntime  an exported .onnx file, on an NVIDIA card by CUDA or TensorRT, or on a CPU
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["auto", "plain", "eager", "compile", "openvino", "onnxruntime"]

CUDA_PROVIDER, TENSORRT_PROVIDER = "CUDAExecutionProvider", "TensorrtExecutionProvider"
"""What ONNX Runtime calls them."""

Port = tuple[list[int | None], bool]
"""An input or output of an exported network: sizes, None where open, and whether in float32."""

RunNetwork = Callable[[Any], Any]
"""A network as the predictor calls it: YOLACT's from (B, 3, S, S) to `Predictions`, Mask R-CNN's
from `RoiInputs` to a list of `RoiDetections`."""


@dataclass(frozen=True)
class Engine:
    """A decision: what runs the network, where, in which precision.

    Attributes:
        name: never "auto".
        device: that is there.
        precision: never "auto".
    """

    name: EngineName
    device: torch.device
    precision: Precision

    def __str__(self) -> str:
        threads = f" ({torch.get_num_threads()} threads)" if self.device.type == "cpu" else ""
        return f"{self.name}, {self.precision}, {self.device}{threads}"
