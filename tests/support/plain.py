"""Network inputs without augmentation."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from data.augment.transform import TrainTransform
from data.options import Switches
from data.sample import Sample
from layers.structures import Target

STILL = Switches(photometric=False, expand=False, crop=False, mirror=False)
"""No augmentation of single images."""


def plain_target(
    sample: Sample, image_size: int, min_object_size: float = 0.0
) -> tuple[Tensor, Target]:
    """Resize an image and its objects to S x S, with every augmentation off."""
    transform = TrainTransform(image_size, STILL, min_object_size=min_object_size)
    return transform(sample, np.random.default_rng(0))
