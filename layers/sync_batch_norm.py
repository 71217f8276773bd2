"""Batch norm over the batches of several processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

_WITH_ACTIVATION = "timm.layers.norm_act.BatchNormAct2d"  # by name, for timm is slow to load


def synchronise_batch_norm(model: nn.Module) -> None:
    """Make every batch norm of a model use the statistics of all processes' batches, in place.

    Weights keep their names. On GPUs this is torch's SyncBatchNorm, which does not run on CPUs.
    Subclasses of BatchNorm2d may do more than normalise and stay unchanged, except timm's with an
    activation.
    """
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            kind = type(child)
            acts = f"{kind.__module__}.{kind.__qualname__}" == _WITH_ACTIVATION
            if not acts and kind is not nn.BatchNorm2d:
                continue
            if child.running_mean is not None and child.running_mean.is_cuda:
                child = convert(child)
                setattr(parent, name, child)
                if acts:
                    child.__class__ = _GpuSyncBatchNormAct
            else:
                child.__class__ = _CpuSyncBatchNormAct if acts else _CpuSyncBatchNorm


class _CpuSyncBatchNorm(nn.BatchNorm2d):
    """`nn.SyncBatchNorm` for any device.

    Every process must hold the same number of pixels, as it does with equal batches.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, h, w) by the mean and variance of all processes."""
        if not self.training:
            return super().forward(x)
        full = x.float()
        mean = _AllReduceMean.apply(full.mean(dim=(0, 2, 3)))  # (C,)
        centred = full - mean[:, None, None]
        variance = _AllReduceMean.apply(centred.square().mean(dim=(0, 2, 3)))  # (C,)
        self._update_statistics(mean.detach(), variance.detach(), x.numel() // x.shape[1])
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = self.weight * scale
        normalised: Tensor = centred * scale[:, None, None]
        if self.affine:
            normalised = normalised + self.bias[:, None, None]
        return normalised.to(x.dtype)

    def _update_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics with a batch of `count` pixels per process."""
        if self.running_mean is None or self.running_var is None:
            return
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if momentum is None:  # the plain average of all batches
            momentum = 1 / int(self.num_batches_tracked or 1)
        count *= dist.get_world_size()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)


class _WithActivation(nn.Module):
    """Timm's dropout and activation after a batch norm."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, h, w), then apply dropout and activation."""
        activated: Tensor = self.act(self.drop(super().forward(x)))
        return activated


class _CpuSyncBatchNormAct(_WithActivation, _CpuSyncBatchNorm):
    """`_CpuSyncBatchNorm`, and an activation."""


class _GpuSyncBatchNormAct(_WithActivation, nn.SyncBatchNorm):
    """`nn.SyncBatchNorm`, and an activation."""


class _AllReduceMean(torch.autograd.Function):
    """The mean over processes, in the forward and the backward pass."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        return mean_of_processes(values)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        return mean_of_processes(gradients[0])


def mean_of_processes(values: Tensor) -> Tensor:
    """Average a tensor over the processes."""
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
