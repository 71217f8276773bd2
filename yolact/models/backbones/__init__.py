"""Backbones: (B, 3, S, S) images in, C3, C4 and C5 (strides 8, 16, 32) out."""

from .darknet import Darknet53
from .light import MobileNetV3
from .resnet import ResNet

__all__ = ["Darknet53", "MobileNetV3", "ResNet"]
