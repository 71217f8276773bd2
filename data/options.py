"""What a user decides about a dataset: how it is taken, and which augmentations it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Crowd = Literal["ignore", "objects"]
BoxesOnly = Literal["use", "ignore", "skip"]


@dataclass(frozen=True)
class DataOptions:
    """How to use the annotations of a dataset.

    Attributes:
        val: the validation images: the name of another dataset, or a share of the training images
            such as "0.2"; empty for the dataset's own.
        crowd: "ignore" objects marked as crowds, so that they are neither learned nor taken for
            background; or use them as "objects" like all others, if a tool marks them wrongly.
        boxes_only: "use" objects with a box but no outline for boxes and classes; "ignore" them
            like crowds; or "skip" the images that have any.

    Raises:
        ValueError: another value.
    """

    val: str = ""
    crowd: Crowd = "ignore"
    boxes_only: BoxesOnly = "use"

    def __post_init__(self) -> None:
        for name, choices in (("crowd", get_args(Crowd)), ("boxes_only", get_args(BoxesOnly))):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name}={value!r}: expected {' or '.join(choices)}")
        share = _number(self.val)
        if share is not None and not 0 < share < 1:
            raise ValueError(f"val={self.val}: expected a share above 0 and below 1, or a dataset")

    @property
    def val_share(self) -> float | None:
        """The share of the training images to validate on; None if it is not given so."""
        return _number(self.val)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


DEFAULT_OPTIONS = DataOptions()
"""Nothing decided."""


@dataclass(frozen=True)
class Switches:
    """Augmentations of single images, on or off.

    Attributes:
        photometric: vary brightness, contrast, saturation and hue, each half the time.
        expand: shrink the image into a canvas up to 4 times as wide and high, half the time.
        crop: cut a rectangle of 0.3 to 1 of each side that keeps the centre of at least one object,
            five times of six.
        mirror: swap left and right, half the time.
        flip: swap top and bottom, half the time.
        rotate: turn by 0, 90, 180 or 270 degrees.
        scale_jitter: smallest and largest size of the image on the canvas, as (0.5, 2.0), in place
            of `expand` and `crop` (Ghiasi et al. 2021, large-scale jitter); empty has none.
    """

    photometric: bool = True
    expand: bool = True
    crop: bool = True
    mirror: bool = True
    flip: bool = False
    rotate: bool = False
    scale_jitter: tuple[float, ...] = ()
