"""How a network is run: the device and the precision."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]


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
    """Return the context in which a network runs.

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
