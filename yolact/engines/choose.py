"""How a network is run: the device, the precision, and by what.

plain     PyTorch, as built, in float32, with masks as large as the image: to compare with
eager     PyTorch, batch norm folded into the convolutions, channels last: the choice on a GPU
compile   the same through `torch.compile`: a slow start, and a C++ compiler or Triton needed
openvino  OpenVINO, converted once and kept in a cache: the choice on a CPU
"""

from __future__ import annotations

import math
import re
import time
from functools import cache
from typing import Any, get_args

import torch
from torch import Tensor, nn

from yolact.config import Architecture

from .names import Engine, EngineName, Precision, RunNetwork
from .pytorch import _compiled, _frozen, _in_one_thread, autocast

# A type pays when its matrix products are this much faster than float32's.
_WORTHWHILE = 1.5


def choose_engine(
    device: torch.device | str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "auto",
    architecture: Architecture = "yolact",
) -> Engine:
    """Decide what was left open, by what this machine is really fast at.

    Args:
        device: see `pick_device`.
        engine: "auto" is OpenVINO on a CPU, where it is installed, else "eager".
            Mask R-CNN, whose shapes depend on what it finds, is run by "eager" or "plain" alone.
        precision: "auto" is bfloat16 where its matrix products, timed once, are at least 1.5 times
            faster than float32's; else float32.
        architecture: of the model that will run.

    Raises:
        ValueError: something that is unknown, not installed, or not for this machine or model.
    """
    device = pick_device("cpu" if (device, engine) == ("auto", "openvino") else str(device))
    if engine not in get_args(EngineName):
        raise ValueError(f"--engine {engine}: expected {', '.join(get_args(EngineName))}")
    fixed_shapes = architecture == "yolact"
    if engine == "auto":
        on_cpu = device.type == "cpu" and has_openvino()
        engine = "openvino" if on_cpu and fixed_shapes else "eager"
    if engine in ("openvino", "compile") and not fixed_shapes:
        raise ValueError(f"--engine {engine}: not for Mask R-CNN; expected auto, plain, eager")
    if engine == "openvino" and not has_openvino():
        raise ValueError("--engine openvino: not installed, or broken; pip install openvino")
    if engine == "openvino" and device.type != "cpu":
        raise ValueError(f"--engine openvino: runs on the CPU, not on {device}; add --device cpu")
    if engine == "plain":
        if precision not in ("auto", "float32"):
            raise ValueError(f"--engine plain is float32, not {precision}")
        precision = "float32"
    if precision == "auto":
        precision = "bfloat16" if bfloat16_is_fast(device) else "float32"
    autocast(device, precision)  # refuses what the device does not have
    return Engine(engine, device, precision)


def prepare(network: nn.Module, engine: Engine, image_size: int) -> RunNetwork:
    """Return a function that runs a network as decided.

    The weights are taken as they are now: later changes of the network do not count (but for
    "plain", which runs the network itself).

    Args:
        network: of a model in evaluation mode, on the engine's device.
        engine: from `choose_engine`.
        image_size: S.
    """
    if engine.name == "openvino":
        from .openvino import OpenVinoNetwork, convert_cached

        return OpenVinoNetwork(convert_cached(network, image_size), engine.precision)
    if engine.name == "plain":
        return network
    frozen: RunNetwork = _frozen(network, engine.precision)
    if engine.name == "compile":
        frozen = _compiled(frozen, engine.device)

    def run(x: Any) -> Any:
        if isinstance(x, Tensor):
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(engine.device, engine.precision):
            return frozen(x)

    if engine.name != "compile":
        return run
    # CUDA graphs belong to the thread that recorded them.
    compiled = _in_one_thread(run) if engine.device.type == "cuda" else run
    try:
        compiled(torch.zeros((1, 3, image_size, image_size), device=engine.device))
    except Exception as error:  # compilers fail in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"--engine compile: {reason}; it needs a C++ compiler, or Triton on a GPU"
        ) from None
    return compiled


def for_throughput(network: RunNetwork) -> tuple[RunNetwork, int]:
    """Prepare a network for many images, when the time of a single one does not matter.

    Processors that work on an image each need not wait for one another at every layer.

    Args:
        network: from `prepare`, or an exported file's.

    Returns:
        A function that predicts the same, and how many threads should call it at a time.
    """
    if has_openvino():
        from .openvino import OpenVinoNetwork

        if isinstance(network, OpenVinoNetwork):
            return network.streamed, network.streamed.workers
    return network, 1


@cache
def has_openvino() -> bool:
    """Tell whether OpenVINO is installed and can be loaded."""
    try:
        import openvino  # noqa: F401
    except Exception:  # a library that does not fit this system may raise anything
        return False
    return True


def bfloat16_is_fast(device: torch.device) -> bool:
    """Tell by timing whether bfloat16 pays on this device."""
    if device.type == "mps":
        return False
    speeds = matmul_speeds(device)
    return speeds["bfloat16"] > _WORTHWHILE * speeds["float32"]


@cache
def matmul_speeds(device: torch.device) -> dict[str, float]:
    """Time a large matrix product by precision, in turn, best of many: TFLOP/s."""
    side = 4096 if device.type == "cuda" else 768
    best = {"float32": math.inf, "bfloat16": math.inf}
    for turn in range(15):
        for precision in best:
            matrix = torch.ones((side, side), dtype=getattr(torch, precision), device=device)
            _synchronize(device)
            start = time.perf_counter()
            matrix @ matrix
            _synchronize(device)
            best[precision] = min(best[precision], time.perf_counter() - start)
        if turn and best["bfloat16"] > 2 * best["float32"]:  # emulated: too slow to go on
            break
    return {precision: 2 * side**3 / seconds / 1e12 for precision, seconds in best.items()}


def pick_device(name: str = "auto") -> torch.device:
    """Turn a name into a device that is really there.

    Args:
        name: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        ValueError: no such device on this machine.
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
        raise ValueError(f"--device {name}: not on this machine; there is auto, {choices}")
    return torch.device(name)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
