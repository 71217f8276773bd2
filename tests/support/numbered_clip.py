"""Clips whose frames show their numbers."""

from pathlib import Path

import numpy as np

from data.video.reader import open_video
from data.video.writer import VideoWriter

HW = (48, 64)


def picture(number: int, hw: tuple[int, int] = HW) -> np.ndarray:
    """A plain frame whose grey value tells its number, even when darkened by two encodings."""
    return np.full((*hw, 3), 10 * number + 8, np.uint8)


def number_of(frame: np.ndarray) -> int:
    return int(frame.mean() // 10)


def write_clip(path: Path, frames: int, fps: float = 25) -> Path:
    with VideoWriter(path, fps, HW) as writer:
        for number in range(frames):
            writer.write(picture(number))
    return path


def read_numbers(path: Path) -> list[int]:
    with open_video(path) as source:
        return [number_of(frame) for frame in source]
