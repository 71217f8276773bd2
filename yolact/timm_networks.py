"""What timm knows about its networks before one is built."""

from __future__ import annotations

import difflib
from typing import Any

TIMM_PREFIX = "timm/"
"""Stands before the name of a network of timm's where it is a backbone."""


def settings_of(backbone: str) -> Any:
    """Return timm's settings of a network: of its input, and of its pretrained weights.

    Args:
        backbone: "timm/" and a name of timm's.

    Raises:
        ValueError: timm has no such network, or no such weights of it.
    """
    import timm  # slow to load

    name = backbone.removeprefix(TIMM_PREFIX)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
        hint = f"; near it are {', '.join(TIMM_PREFIX + other for other in close)}" if close else ""
        raise ValueError(f"model.backbone={backbone!r:.200}: timm has no such network{hint}")
    try:
        return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError:  # of the part behind the dot
        raise ValueError(f"model.backbone={backbone!r:.200}: timm has no such weights") from None


def pixel_statistics(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation of RGB pixels in 0..255 that a network was trained with."""
    settings = settings_of(backbone)
    mean, std = (tuple(255 * v for v in values) for values in (settings.mean, settings.std))
    return mean, std
