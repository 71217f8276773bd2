"""The network by PyTorch: batch norm folded, cast, compiled."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import get_args

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .names import Precision, RunNetwork


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
