"""How a network is run: the device, the precision, and by what.

plain     PyTorch, as built, in float32, with masks as large as the image: to compare with
eager     PyTorch, batch norm folded into the convolutions, channels last: the choice on a GPU
compile   the same through `torch.compile`: a slow start, and a C++ compiler or Triton needed
openvino  OpenVINO, converted once and kept in a cache: the choice on a CPU
"""

from __future__ import annotations

import copy
import math
import os
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .config import Architecture

Precision = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["auto", "plain", "eager", "compile", "openvino"]
RunNetwork = Callable[[Any], Any]
"""From what a model's `preprocess` gives to what its `finish` takes: YOLACT's from (B, 3, S, S) to
`Predictions`."""

# A type pays when its matrix products are this much faster than float32's.
_WORTHWHILE = 1.5


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
        from .openvino_engine import OpenVinoNetwork, convert_cached

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
        from .openvino_engine import OpenVinoNetwork

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


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context in which PyTorch runs a network.

    Args:
        device: where it runs.
        precision: "auto" is float32, with TF32 convolutions where an NVIDIA GPU has them (PyTorch's
            default); "float32" switches those off. Losses and boxes are float32 in any case.

    Raises:
        ValueError: unknown precision, or one that the device does not have.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"--precision {precision}: expected {', '.join(get_args(Precision))}")
    if precision == "float32":
        torch.backends.cudnn.allow_tf32 = False  # for the backward pass as well, which runs later
    if precision in ("auto", "float32"):
        return nullcontext()
    if precision == "float16" and device.type == "cpu":
        raise ValueError("--precision float16: not on a CPU; use bfloat16 or float32")
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def cache_folder() -> Path:
    """Return the folder for what can be made again: ~/.cache/yolact, or below XDG_CACHE_HOME."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolact"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / "yolact"


def _frozen(network: nn.Module, precision: Precision) -> nn.Module:
    """Copy a network for inference: batch norm folded, convolutions in their final type."""
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(frozen.modules()):
        _fold_batch_norm(module)
    if precision != "float32":  # saves autocast from converting the weights at every call
        for module in frozen.modules():
            if type(module) is nn.Conv2d:
                module.to(getattr(torch, precision))
    return frozen.to(memory_format=torch.channels_last)


def _fold_batch_norm(parent: nn.Module) -> None:
    """Merge every batch norm that directly follows a convolution among a module's children."""
    children = list(parent.named_children())
    for (name, conv), (norm_name, norm) in zip(children, children[1:], strict=False):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, name, fuse_conv_bn_eval(conv, norm))
            setattr(parent, norm_name, nn.Identity())


def _compiled(network: RunNetwork, device: torch.device) -> RunNetwork:
    if device.type == "cuda":
        return torch.compile(network, mode="reduce-overhead")  # CUDA graphs
    return torch.compile(network, options={"freezing": True})


def _in_one_thread(run: RunNetwork) -> RunNetwork:
    thread = ThreadPoolExecutor(1, "network")
    return lambda x: thread.submit(run, x).result()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
