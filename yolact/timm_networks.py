"""What timm knows about its networks before one is built."""

from __future__ import annotations

import difflib
from typing import Any

TIMM_PREFIX = "timm/"
"""Prefix of a timm network's name, as a backbone."""


def settings_of(backbone: str) -> Any:
    """Return timm's settings of a network: for its input and for its pretrained weights.

    Args:
        backbone: "timm/<name>".

    Raises:
        ValueError: timm has no such network, or no such weights for it.
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
    """Return the mean and standard deviation of RGB pixels in 0..255 in a network's training."""
    settings = settings_of(backbone)
    mean, std = (tuple(255 * v for v in values) for values in (settings.mean, settings.std))
    return mean, std
