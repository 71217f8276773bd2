"""The choice of device, engine and precision, by measuring what is fast on this machine."""

from __future__ import annotations

import math
import re
import time
from functools import cache
from typing import get_args

import torch

from yolact.errors import OptionError
from yolact.timing import synchronize

from .names import CUDA_PROVIDER, TENSORRT_PROVIDER, Engine, EngineName, Precision
from .pytorch import autocast
from .telemetry import no_telemetry

_WORTHWHILE = (
    1.5  # a half precision pays when its matrix products are this much faster than float32's
)


def choose_engine(
    device: torch.device | str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "auto",
    fixed_shapes: bool = True,
) -> Engine:
    """Choose whatever is given as "auto".

    Args:
        device: see `pick_device`.
        engine: "auto" is OpenVINO on a CPU, where it is installed, else "eager"; "onnxruntime" is
            for exported files.
        precision: see `choose_precision`; "plain" is always float32.
        fixed_shapes: `Segmenter.fixed_shapes` of the model; if False, only "eager" and "plain" run.

    Raises:
        OptionError: a value that is unknown, not installed, or not for this machine or model.
    """
    device = pick_device("cpu" if (device, engine) == ("auto", "openvino") else str(device))
    if engine not in get_args(EngineName):
        raise OptionError("engine", engine, f"expected {', '.join(get_args(EngineName))}")
    if engine == "auto":
        on_cpu = device.type == "cpu" and has_openvino()
        engine = "openvino" if on_cpu and fixed_shapes else "eager"
    if engine in ("openvino", "onnxruntime", "compile") and not fixed_shapes:
        raise OptionError("engine", engine, "not for Mask R-CNN; expected auto, plain, eager")
    if engine == "openvino" and not has_openvino():
        raise OptionError("engine", engine, "not installed, or broken; pip install openvino")
    if engine == "openvino" and device.type != "cpu":
        raise OptionError("engine", engine, f"runs on the CPU, not on {device}; choose device cpu")
    if engine == "onnxruntime":
        precision = _precision_of_onnxruntime(device, precision)
    if engine == "plain":
        if precision not in ("auto", "float32"):
            raise OptionError("precision", precision, "engine 'plain' is float32")
        precision = "float32"
    return Engine(engine, device, choose_precision(device, precision))


def _precision_of_onnxruntime(device: torch.device, precision: Precision) -> Precision:
    """Return ONNX Runtime's precision: float32, or float16 if TensorRT is available.

    Raises:
        OptionError: ONNX Runtime is not installed, or not for this device or precision.
    """
    found = onnxruntime_providers()
    if not found:
        raise OptionError("engine", "onnxruntime", "not installed; pip install onnxruntime")
    on_cuda = device.type == "cuda" and CUDA_PROVIDER in found
    if device.type != "cpu" and not on_cuda:
        reason = f"this build of it has nothing for {device}; pip install onnxruntime-gpu for CUDA"
        raise OptionError("engine", "onnxruntime", f"{reason}, or choose device cpu")
    halves = on_cuda and TENSORRT_PROVIDER in found
    if precision == "auto":
        return "float16" if halves else "float32"
    if precision not in ("float32", *(["float16"] if halves else [])):
        reason = "an exported file is float32 in onnxruntime; float16 needs TensorRT"
        raise OptionError("precision", precision, reason)
    return precision


def onnxruntime_providers() -> tuple[str, ...]:
    """Return ONNX Runtime's execution providers; none if it is not installed."""
    try:
        from .onnxruntime import available
    except Exception:  # a library that does not fit this system may raise anything
        return ()
    return available()


def choose_precision(device: torch.device, precision: Precision = "auto") -> Precision:
    """Return a precision that the device supports.

    Args:
        device: where the network runs.
        precision: "auto" is bfloat16 if its matrix products, timed once, are at least 1.5 times
            faster than float32's; else float16 if the same holds, on CUDA only; else float32.

    Raises:
        OptionError: unknown, or not for this device.
    """
    if precision == "auto":
        halves: tuple[Precision, ...] = ("bfloat16", "float16")
        precision = next((half for half in halves if is_fast(device, half)), "float32")
    autocast(device, precision)  # refuses what the device does not have
    return precision


@cache
def has_openvino() -> bool:
    """Tell whether OpenVINO is installed and can be loaded."""
    try:
        with no_telemetry():
            import openvino  # noqa: F401
    except Exception:  # a library that does not fit this system may raise anything
        return False
    return True


def is_fast(device: torch.device, half: Precision) -> bool:
    """Tell by timing whether a half precision pays on this device."""
    if device.type == "mps":
        return False
    speeds = matmul_speeds(device)
    return speeds.get(half, 0.0) > _WORTHWHILE * speeds["float32"]


@cache
def matmul_speeds(device: torch.device) -> dict[str, float]:
    """Time a large matrix product by precision, in turn, best of many: TFLOP/s."""
    side = 4096 if device.type == "cuda" else 768
    halves = ("bfloat16", "float16") if device.type == "cuda" else ("bfloat16",)
    best = dict.fromkeys(("float32", *halves), math.inf)
    for turn in range(15):
        for precision in best:
            matrix = torch.ones((side, side), dtype=getattr(torch, precision), device=device)
            synchronize(device)
            start = time.perf_counter()
            matrix @ matrix
            synchronize(device)
            best[precision] = min(best[precision], time.perf_counter() - start)
        if turn and best["bfloat16"] > 2 * best["float32"]:  # emulated: too slow to continue
            break
    return {precision: 2 * side**3 / seconds / 1e12 for precision, seconds in best.items()}


def pick_device(name: str = "auto") -> torch.device:
    """Turn a name into a device that exists on this machine.

    Args:
        name: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        OptionError: no such device on this machine.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    match = re.fullmatch(r"(\w+?)(?::([0-9]+))?", name)
    kind, index = (match[1], int(match[2] or 0)) if match else (name, 0)
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not available.get(kind, False) or index >= count:
        choices = ", ".join(kind for kind, there in available.items() if there)
        raise OptionError("device", name, f"not on this machine; there is auto, {choices}")
    return torch.device(name)


def card_of(device: torch.device) -> int | None:
    """Return the number of an NVIDIA card; None for every other device."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index
