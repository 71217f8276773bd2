"""Backbones: (B, 3, S, S) images in, C3, C4 and C5 (strides 8, 16, 32) out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yolact.timm_networks import TIMM_PREFIX

from .darknet import Darknet53
from .light import MobileNet
from .resnet import ResNet

if TYPE_CHECKING:
    from .from_timm import TimmBackbone

__all__ = ["Darknet53", "MobileNet", "ResNet", "build_backbone"]


def build_backbone(
    name: str, deformable_interval: int = 0
) -> Darknet53 | MobileNet | ResNet | TimmBackbone:
    """Build a backbone with random weights; its `channels` are those of C3, C4 and C5.

    Args:
        name: one of `yolact.config.BACKBONES`, or "timm/<name>" for a network of timm.
        deformable_interval: see `ResNet`; the others have no deformable blocks.

    Raises:
        ValueError: deformable blocks in a backbone without bottlenecks; a timm network that cannot
            be a backbone, see `TimmBackbone`.
    """
    if name.startswith("resnet"):
        return ResNet(name, deformable_interval)
    if deformable_interval:
        raise ValueError(f"deformable blocks need a backbone with bottlenecks, not {name}")
    if name.startswith(TIMM_PREFIX):
        from .from_timm import TimmBackbone  # timm is slow to load

        return TimmBackbone(name)
    return Darknet53() if name == "darknet53" else MobileNet(name)
