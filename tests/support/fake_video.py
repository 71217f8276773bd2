"""Numbered frames without a file, and stages that check the numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from data.video.reader import VideoSource
from yolact.results.detections import Detections

from .numbered_clip import HW, number_of, picture


class FakeSource(VideoSource):
    """Makes its frames itself; a live one takes its time."""

    def __init__(
        self, frames: int, *, live: bool = False, fps: float = 100, fail_at: int | None = None
    ):
        self.frames, self.is_live, self.fps, self.fail_at = frames, live, fps, fail_at
        self.image_hw, self.broken_frames, self.path, self.seconds = HW, 0, None, 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self.frames):
            self.seconds = number / self.fps
            if number == self.fail_at:
                raise OSError("camera unplugged")
            if self.is_live:
                time.sleep(1 / self.fps)
            yield picture(number % 25)


class Counted(FakeSource):
    """Counts the frames that the camera has taken so far, from 0 on."""

    newest = -1

    def __iter__(self) -> Iterator[np.ndarray]:
        for frame in super().__iter__():
            self.newest += 1
            yield frame

    def wait(self, frames: int) -> None:
        """Wait until so many more frames are taken, or all are."""
        until = min(self.newest + frames, self.frames - 1)
        while self.newest < until:
            time.sleep(0.001)


def nothing_found(number: int = 0) -> Detections:
    none = torch.zeros(0)
    return Detections(
        boxes=torch.zeros(0, 4),
        scores=none,
        labels=none.long(),
        soft_masks=torch.zeros(0, 4, 4),
        mask_frames=torch.zeros(0, 4),
        box_scores=none,
        image_hw=HW,
        class_names=(str(number),),  # lets a test see which frame these belong to
    )


def predict(images: list[np.ndarray]) -> list[Detections]:
    return [nothing_found(number_of(image)) for image in images]


def draw(image: np.ndarray, detections: Detections) -> np.ndarray:
    assert detections.class_names == (str(number_of(image)),)
    return image.copy()
