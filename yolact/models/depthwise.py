"""Faster gradients on a CPU for depthwise convolutions, the main layers of light networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from layers.native import Kernels, load_kernels

_LARGE = 5  # side of a kernel whose gradient PyTorch computes slowly


class DepthwiseGradients(TorchFunctionMode):
    """A context in which depthwise convolutions on a CPU use faster gradients.

    PyTorch's gradients take many times as long as the convolution itself for kernels of 5x5 or
    more, and in bfloat16 for strided convolutions. Values are the same, up to rounding.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, or its replacement."""
        if func is F.conv2d and len(args) == 7 and torch.is_grad_enabled():
            x, weight, bias, stride, padding, dilation, groups = args
            dtype = x.dtype
            if torch.is_autocast_enabled("cpu"):
                dtype = torch.get_autocast_dtype("cpu")
            if groups > 1 and _is_slow(x, weight, dtype, stride, padding, dilation):
                out: Tensor = DepthwiseConvolution.apply(
                    x.to(dtype), weight.to(dtype), stride[0], padding[0]
                )
                return out if bias is None else out + bias.to(dtype)[:, None, None]
        return func(*args, **(kwargs or {}))


def _is_slow(
    x: Tensor, weight: Tensor, dtype: torch.dtype, stride: Any, padding: Any, dilation: Any
) -> bool:
    """Tell whether a convolution is depthwise, on the CPU, and has slow gradients in PyTorch.

    Modules pass pairs of numbers; PyTorch handles all other arguments.
    """
    if not all(isinstance(given, tuple) for given in (stride, padding, dilation)):
        return False
    size = weight.shape[-1]
    return (
        (weight.requires_grad and x.device.type == "cpu")
        and dtype in (torch.float32, torch.bfloat16)
        and (size >= _LARGE or (stride[0] > 1 and dtype == torch.bfloat16))
        and (weight.shape[1:] == (1, size, size) and x.shape[1:2] == weight.shape[:1])
        and (stride[0] == stride[-1] and dilation == (1, 1))
        and padding[0] == padding[-1] < size
        and load_kernels() is not None
    )


class DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution on the CPU with its own gradients; needs the compiled kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        """Convolve.

        Args:
            ctx: stores the tensors that the gradients need.
            x: (B, C, H, W) float32 or bfloat16.
            weight: (C, 1, k, k), of the type of x.
            stride: stride in both directions.
            padding: zero padding on all sides, less than k.

        Returns:
            (B, C, h, w).
        """
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and the weight, and None for the rest."""
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _input_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def _input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """Return the gradient (B, C, H, W) of x.

    In bfloat16, where forward convolutions are fast, it is one: of the gradient, spread out by the
    stride, with the mirrored weight.
    """
    if x.dtype == torch.float32:
        return _by_pytorch(gradient, x, weight, stride, padding, (True, False))
    reach = weight.shape[-1] - 1
    if stride > 1:
        batch, channels, height, width = x.shape
        size = (batch, channels, height + 2 * padding - reach, width + 2 * padding - reach)
        apart = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last).zero_()
        apart[:, :, ::stride, ::stride] = gradient
        gradient = apart
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, reach - padding, groups=len(weight))


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """Return the gradient (C, 1, k, k) of the weight; in float32 for a large kernel."""
    size = weight.shape[-1]
    if size < _LARGE:
        return _by_pytorch(gradient, x, weight, stride, padding, (False, True))
    kernels: Kernels = load_kernels()  # type: ignore[assignment]
    inputs, outputs = _channels_last(x), _channels_last(gradient)
    parts = max(min(torch.get_num_threads(), len(x)), 1)
    sums = np.zeros((parts, size, size, len(weight)), np.float32)

    def add(part: int) -> None:
        images = slice(len(x) * part // parts, len(x) * (part + 1) // parts)
        kernels.depthwise_weight_gradient(
            inputs[images], outputs[images], stride, padding, sums[part]
        )

    with ThreadPoolExecutor(parts) as threads:
        list(threads.map(add, range(parts)))
    return torch.from_numpy(sums.sum(0)).permute(2, 0, 1)[:, None]


def _by_pytorch(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    which: tuple[bool, bool],
) -> Tensor:
    """Return PyTorch's gradient of x, or of the weight; torch.nn.grad loses the memory format."""
    both = torch.ops.aten.convolution_backward(
        *(gradient, x, weight, None, (stride, stride), (padding, padding), (1, 1), False, (0, 0)),
        *(len(weight), (*which, False)),
    )
    of_x, of_weight, _ = both
    wanted: Tensor = of_x if which[0] else of_weight
    return wanted


def _channels_last(x: Tensor) -> NDArray[Any]:
    """View (B, C, H, W) as an array (B, H, W, C) of float32, or of the bits of bfloat16."""
    x = x.detach().permute(0, 2, 3, 1).contiguous()
    array: NDArray[Any] = (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()
    return array.view(np.uint16) if x.dtype == torch.bfloat16 else array
