"""Backbones: (B, 3, S, S) images in, C3, C4 and C5 (strides 8, 16, 32) out."""

from .darknet import Darknet53
from .light import MobileNet
from .resnet import ResNet

__all__ = ["Darknet53", "MobileNet", "ResNet", "build_backbone"]


def build_backbone(name: str, deformable_interval: int = 0) -> Darknet53 | MobileNet | ResNet:
    """Build a backbone with random weights; its `channels` are those of C3, C4 and C5.

    Args:
        name: one of `yolact.config.BackboneName`.
        deformable_interval: see `ResNet`; the others have no deformable blocks.

    Raises:
        ValueError: deformable blocks in a backbone without bottlenecks.
    """
    if name.startswith("resnet"):
        return ResNet(name, deformable_interval)
    if deformable_interval:
        raise ValueError(f"deformable blocks need a backbone with bottlenecks, not {name}")
    return Darknet53() if name == "darknet53" else MobileNet(name)
