"""What every video that can be read has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from data.images import MAX_PIXELS, Image, Picture, as_uint8
from layers.structures import fetch

if TYPE_CHECKING:
    from .sound import Sound

_DEFAULT_FPS = 30.0
_LONGEST_SIDE = 16384  # of H.264 as of the other encoders


class VideoSource(AbstractContextManager["VideoSource"]):
    """An opened video whose frames can be iterated once, as (H, W, 3) uint8 RGB.

    Attributes:
        name: source as the user gave it, for messages, without a password.
        fps: frames per second on average; 30 where a camera or container does not know.
        image_hw: height and width of the first frame in pixels, upright and with square pixels.
        is_live: frames are lost unless they are read in time.
        broken_frames: frames skipped so far because they could not be decoded.
        damage: what was broken or missing, once all frames have been read; "" if nothing was, and
            for what is live.
        seconds: time stamp of the latest frame, from the first one on, as the container tells it;
            of a camera by the clock.
        path: the file; None for cameras, pipes and network streams.
        sound: what is heard; None without any.
        card: number of the NVIDIA card on which its frames are looked at; None for the CPU.
    """

    broken_frames = 0
    damage = ""
    seconds = 0.0
    sound: Sound | None = None
    card: int | None = None

    def __init__(
        self,
        name: str,
        fps: float,
        image_hw: tuple[int, int],
        *,
        is_live: bool = False,
        path: Path | None = None,
    ):
        self.name, self.fps, self.image_hw = name, plausible_fps(fps), image_hw
        self.is_live, self.path = is_live, path

    @abstractmethod
    def __iter__(self) -> Iterator[Image]:
        """Yield the remaining frames; broken ones are skipped.

        Raises:
            OSError: a camera or stream gives no frames any more, which is not its end.
        """

    def pictures(self) -> Iterator[Picture]:
        """Yield the same frames, as tensors those that stay on a card, see `open_video`."""
        return iter(self)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027
        """Release the file or camera, if it is held; the iteration ends."""


def as_image(picture: Picture) -> Image:
    """Return a frame as an array, from a card by a copy."""
    return as_uint8(fetch(picture)[0].numpy()) if isinstance(picture, Tensor) else picture


def plausible_fps(fps: float) -> float:
    """Return 30 for the 0, NaN, or clock rate that some cameras and containers report."""
    return fps if 0 < fps < 1000 else _DEFAULT_FPS


def check_frame_size(name: str, width: int, height: int) -> None:
    """Refuse frames that would fill the memory, whatever a file claims.

    Raises:
        ValueError: so it is.
    """
    if max(width, height) > _LONGEST_SIDE or width * height > MAX_PIXELS:
        raise ValueError(f"{name}: frames of {width} x {height} are more than can be read")
