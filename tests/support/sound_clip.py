"""Clips that flash and beep together, and the times at which they do. They need PyAV."""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

HW = (48, 64)
FPS, RATE = 25, 48000
PERIOD = 1.0  # seconds from flash to flash
_LIGHT, _DARK = 220, 20


def write_sound_clip(
    path: Path,
    sound: str = "aac",
    *,
    video: str = "libx264",
    seconds: float = 2.0,
    video_start: float = 0.0,
    sound_late: float = 0.0,
    layout: str = "stereo",
    key_every: int = 250,
) -> Path:
    """Make a clip whose first frame of every second is light while a short tone is heard.

    Args:
        path: file to make; its suffix chooses the format.
        sound: encoder of the sound.
        video: encoder of the frames.
        seconds: length.
        video_start: time stamp of the first frame, by which all is moved.
        sound_late: time from a flash to its tone.
        layout: of the sound, stereo or mono.
        key_every: frames from one key frame to the next.
    """
    av = pytest.importorskip("av")
    with av.open(path, "w") as container:
        fast = {"preset": "ultrafast", "g": str(key_every)} if video == "libx264" else {}
        pictures = container.add_stream(video, FPS, fast)
        pictures.height, pictures.width = HW
        pictures.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
        track = container.add_stream(sound, RATE)
        track.layout = layout
        packets = []
        for number in range(round(seconds * FPS)):
            grey = _LIGHT if number % (PERIOD * FPS) == 0 else _DARK
            frame = av.VideoFrame.from_ndarray(np.full((*HW, 3), grey, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + round(video_start * FPS), Fraction(1, FPS)
            packets += pictures.encode(frame)
        times = np.arange(round(seconds * RATE)) / RATE
        tone = 20000 * np.sin(2 * np.pi * 1000 * times) * (times % PERIOD < 0.05)
        for first in range(0, len(tone), 1024):
            samples = np.repeat(tone[first : first + 1024].astype(np.int16), track.channels)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
            frame.pts = first + round((video_start + sound_late) * RATE)
            frame.rate, frame.time_base = RATE, Fraction(1, RATE)
            packets += track.encode(frame)
        packets += pictures.encode() + track.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


class Heard(NamedTuple):
    """What a clip is like: seconds, from its first frame on.

    Attributes:
        flashes: when the frames become light.
        tones: when the sound becomes loud.
        codec: of the sound; None without any.
        length: time of the last frame's beginning.
        sound_length: time of the sound's end.
    """

    flashes: list[float]
    tones: list[float]
    codec: str | None
    length: float
    sound_length: float


def listen(path: Path) -> Heard:
    av = pytest.importorskip("av")
    with av.open(path) as container:
        frames = [(f.time, f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]
    start, length = frames[0][0], frames[-1][0] - frames[0][0]
    flashes = _rises([time - start for time, grey in frames if grey > (_LIGHT + _DARK) / 2])
    with av.open(path) as container:
        if not container.streams.audio:
            return Heard(flashes, [], None, length, 0)
        codec = container.streams.audio[0].codec.canonical_name
        loud, end = [], 0.0
        resampler = av.AudioResampler("s16", "mono")
        for packet in container.demux(audio=0):
            with suppress(av.error.InvalidDataError):  # of a damaged clip
                for frame in packet.decode():
                    for part in resampler.resample(frame):
                        samples = np.abs(part.to_ndarray()[0].astype(int))
                        begin = float(part.pts * part.time_base) - start
                        loud += (begin + np.flatnonzero(samples > 5000) / part.rate).tolist()
                        end = begin + len(samples) / part.rate
    return Heard(flashes, _rises(loud), codec, length, end)


def _rises(times: list[float]) -> list[float]:
    """Return the times before which nothing happened for a while."""
    return [
        time
        for before, time in zip([-1, *times], times, strict=False)
        if time - before > PERIOD / 2
    ]
