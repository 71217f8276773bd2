"""What a user decides about a dataset, where it can be taken in more than one way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Crowd = Literal["ignore", "objects"]
BoxesOnly = Literal["use", "ignore", "skip"]


@dataclass(frozen=True)
class DataOptions:
    """How to take a dataset.

    Attributes:
        val: the validation images: the name of another dataset, or a share of the training images
            such as "0.2"; empty for the dataset's own.
        crowd: objects marked as crowds are ignored, so neither learned nor taken for background; or
            they are "objects" like all others, for tools that mark what is none.
        boxes_only: objects with a box but no outline are of use for boxes and classes; or
            "ignore" takes them for crowds, and "skip" leaves out the images that have any.

    Raises:
        ValueError: a value that is none of these.
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
