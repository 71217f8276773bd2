"""Videos without a header."""

from __future__ import annotations

import re
from typing import NamedTuple


class RawFormat(NamedTuple):
    """The pixels of a stream that has no header.

    Attributes:
        size: "640x480".
        fps: frames per second.
        pixels: libav's name of their format.
    """

    size: str
    fps: float
    pixels: str

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read "640x480@30" or "640x480@30:yuv420p".

        Raises:
            ValueError: it is something else.
        """
        match = re.fullmatch(r"([1-9]\d*x[1-9]\d*)@(\d+(?:\.\d+)?)(?::(\w+))?", text)
        if match is None or not float(match[2]):
            raise ValueError(f"{text!r}: expected WxH@FPS[:PIXELS], as in 640x480@30:bgr24")
        return cls(match[1], float(match[2]), match[3] or "rgb24")

    @property
    def options(self) -> dict[str, str]:
        """What libav's reader of raw video is told."""
        return {"video_size": self.size, "framerate": f"{self.fps:g}", "pixel_format": self.pixels}
