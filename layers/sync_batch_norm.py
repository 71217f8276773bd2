"""Batch norm over the batches of several processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def synchronise_batch_norm(model: nn.Module) -> None:
    """Make every batch norm of a model use the statistics of all processes' batches, in place.

    Weights keep their names. On GPUs this is torch's SyncBatchNorm, which does not run on CPUs.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is not nn.BatchNorm2d:
                continue
            if child.running_mean is not None and child.running_mean.is_cuda:
                convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
                setattr(parent, name, convert(child))
            else:
                child.__class__ = _CpuSyncBatchNorm


class _CpuSyncBatchNorm(nn.BatchNorm2d):
    """`nn.SyncBatchNorm`, written for any device.

    Every process has to hold as many pixels as the others, as with equal batches it does.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, h, w) by the mean and variance of all processes."""
        if not self.training:
            return super().forward(x)
        full = x.float()
        mean = _Mean.apply(full.mean(dim=(0, 2, 3)))
        centred = full - mean[:, None, None]
        variance = _Mean.apply(centred.square().mean(dim=(0, 2, 3)))
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1])
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        count *= dist.get_world_size()
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _Mean(torch.autograd.Function):
    """The mean over processes; gradients take the same way back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _reduced(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _reduced(gradients[0])


def _reduced(values: Tensor) -> Tensor:
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
