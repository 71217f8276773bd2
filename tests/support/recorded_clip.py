"""Videos as recorders write them, which tell little or odd things about them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def make(
    path: Path,
    frames: list[np.ndarray],
    times: list[float] | None = None,
    codec: str = "libx264",
    *,
    aspect: Fraction | None = None,
    rotation: tuple[int, bool] | None = None,
    pixels: str = "yuv420p",
    live: bool = False,
) -> Path:
    """Write frames as a recorder does, which tells little or odd things about them."""
    options = {"live": "1"} if live else {}
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream(codec, 25, {"preset": "ultrafast"} if "264" in codec else {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            seconds = number / 25 if times is None else times[number]
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noisy(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
