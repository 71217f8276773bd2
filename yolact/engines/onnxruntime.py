"""Exported .onnx files through ONNX Runtime: on an NVIDIA card by CUDA or TensorRT, or on a CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from layers.structures import Predictions
from yolact.errors import OptionError
from yolact.files import cache_folder

from .names import CUDA_PROVIDER, TENSORRT_PROVIDER, Engine, Port, Precision

_ERRORS_ONLY = 3


class OnnxRuntimeNetwork:
    """An exported network, called like the PyTorch one, from any thread.

    When unpickled, it reads its file again.

    Args:
        path: .onnx.
        engine: "onnxruntime", on a CPU or CUDA.

    Raises:
        OptionError: the provider for the device cannot be loaded.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self._made_of = (path, engine)
        self._device, chosen = engine.device, providers(path, engine.device, engine.precision)
        self._session = open_session(path, chosen)
        if self._session.get_providers()[0] != chosen[0][0]:  # ONNX Runtime only warns of this
            reason = f"{chosen[0][0]} does not load; are CUDA and cuDNN those that it needs?"
            raise OptionError("engine", engine.name, reason)

    def __call__(self, x: Tensor) -> Predictions:
        """Predict for a (B, 3, S, S) normalised RGB batch on the engine's device."""
        x = x.contiguous()
        ports = self._session.get_outputs()
        is_open = any(not isinstance(size, int) for port in ports for size in port.shape[1:])
        shapes = [[size if isinstance(size, int) else len(x) for size in p.shape] for p in ports]
        outputs = [torch.empty(shape, device=x.device) for shape in shapes]
        binding = self._session.io_binding()
        binding.bind_input(self._session.get_inputs()[0].name, *_memory(x))
        for port, output in zip(ports, outputs, strict=True):
            if is_open:  # for inputs of any size: its size is known only after the run
                binding.bind_output(port.name)
            else:
                binding.bind_output(port.name, *_memory(output))
        if x.device.type == "cuda":  # its own stream does not wait for PyTorch's
            torch.cuda.current_stream(x.device).synchronize()  # sync: for the input
        self._session.run_with_iobinding(binding)
        if is_open:
            outputs = [torch.from_numpy(o).to(x.device) for o in binding.copy_outputs_to_cpu()]
        return Predictions(*outputs)

    def __reduce__(self) -> tuple[type[OnnxRuntimeNetwork], tuple[Path, Engine]]:
        return OnnxRuntimeNetwork, self._made_of

    @property
    def ports(self) -> list[Port]:
        """The input, then the outputs."""
        ports = [*self._session.get_inputs(), *self._session.get_outputs()]
        return [
            ([n if isinstance(n, int) else None for n in port.shape], port.type == "tensor(float)")
            for port in ports
        ]


def providers(
    path: Path, device: torch.device, precision: Precision
) -> list[tuple[str, dict[str, str]]]:
    """Return the providers for a file, best first, with options; they may not be installed.

    Args:
        path: path of the file.
        device: a CPU or CUDA.
        precision: "float32", or "float16" with TensorRT.
    """
    if device.type != "cuda":
        return [("CPUExecutionProvider", {})]
    card = str(torch.cuda.current_device() if device.index is None else device.index)
    cuda = (CUDA_PROVIDER, {"device_id": card, "use_tf32": "0"})
    if precision == "float32":
        return [cuda]
    # TensorRT names its cached engines by the graph only, not by the weights.
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    folder = str(cache_folder() / "trt" / digest)
    kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
    return [(TENSORRT_PROVIDER, {"device_id": card, "trt_fp16_enable": "1", **kept}), cuda]


def open_session(
    path: Path, chosen: Sequence[tuple[str, dict[str, str]]] = (("CPUExecutionProvider", {}),)
) -> Any:
    """Return an `onnxruntime.InferenceSession`, without printing its warnings."""
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    return ort.InferenceSession(path, options, providers=list(chosen))


@cache
def available() -> tuple[str, ...]:
    """Return the names of the providers that the installed package knows."""
    return tuple(ort.get_available_providers())


def _memory(tensor: Tensor) -> tuple[str, int, type[np.float32], tuple[int, ...], int]:
    """Return a float32 tensor's memory as arguments for `bind_input` and `bind_output`."""
    device = tensor.device
    return device.type, device.index or 0, np.float32, tuple(tensor.shape), tensor.data_ptr()
