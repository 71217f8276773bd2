"""A textured square that moves over a textured background, and a network that knows where it is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache

import cv2
import numpy as np
import torch

from data.video.reader import VideoSource
from yolact.results.detections import Detections

HW = (96, 160)
SIDE = 40


@cache
def texture(seed: int, hw: tuple[int, int] = HW) -> np.ndarray:
    """Noise of all scales, as pictures have it."""
    rng, noise = np.random.default_rng(seed), np.zeros((*hw, 3), np.float32)
    for level in range(1, 6):
        shape = max(1, hw[0] >> level), max(1, hw[1] >> level), 3
        coarse = rng.random(shape, dtype=np.float32) * 2**level
        noise += cv2.resize(coarse, hw[::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)


def left_of(number: int, speed: int = 2) -> int:
    """Where the square's left side is: it moves to and fro."""
    way = HW[1] - SIDE - 20
    place = number * speed % (2 * way)
    return 10 + min(place, 2 * way - place)


def picture(number: int, shot: int = 0, speed: int = 2) -> np.ndarray:
    """A frame; its corner tells its number and shot, which no encoding may blur."""
    frame = texture(2 * shot).copy()
    left = left_of(number, speed)
    frame[30 : 30 + SIDE, left : left + SIDE] = texture(2 * shot + 1, (SIDE, SIDE))
    frame[0, 0] = number // 256, number % 256, shot
    return frame


def number_of(frame: np.ndarray) -> int:
    return int(frame[0, 0, 0]) * 256 + int(frame[0, 0, 1])


def square(left: float, label: int = 0, score: float = 0.9) -> Detections:
    """The square as an object, on a grid of one cell for two pixels."""
    box = torch.tensor([[left, 30, left + SIDE, 30 + SIDE]])
    masks = torch.zeros(1, HW[0] // 2, HW[1] // 2)
    masks[0, 15 : 15 + SIDE // 2, round(left / 2) : round((left + SIDE) / 2)] = 1
    return Detections(
        boxes=box.float(),
        scores=torch.tensor([score]),
        labels=torch.tensor([label]),
        soft_masks=masks,
        mask_frames=torch.tensor([[0.0, 0, HW[1], HW[0]]]),
        box_scores=torch.tensor([score]),
        image_hw=HW,
        class_names=("square", "other", "third"),
    )


class Network:
    """Stands for `predict`: finds the square, and keeps the numbers of the frames it was shown.

    Args:
        speed: of the square.
        blind: numbers of frames in which it finds nothing.
        seconds: that a call takes.
    """

    def __init__(self, speed: int = 2, blind: Sequence[int] = (), seconds: float = 0.0):
        self.speed, self.blind, self.seconds = speed, blind, seconds
        self.seen: list[int] = []

    def __call__(self, images: list[np.ndarray]) -> list[Detections]:
        time.sleep(self.seconds)
        return [self._find(image) for image in images]

    def _find(self, image: np.ndarray) -> Detections:
        number = number_of(image)
        self.seen.append(number)
        found = square(left_of(number, self.speed), label=int(image[0, 0, 2]) % 3)
        return found[:0] if number in self.blind else found


class Moving(VideoSource):
    """A video of the square, whose frames are made as they are read.

    Args:
        frames: number of them.
        live: it is a camera.
        speed: of the square, in pixels a frame.
        cuts: numbers of frames that begin a new shot.
        fail_at: the number of a frame that cannot be read.
    """

    def __init__(
        self,
        frames: int,
        *,
        live: bool = False,
        fps: float = 30,
        speed: int = 2,
        cuts: Sequence[int] = (),
        fail_at: int | None = None,
    ):
        self.frames, self.is_live, self.fps, self.speed = frames, live, fps, speed
        self.cuts, self.fail_at = cuts, fail_at
        self.image_hw, self.broken_frames, self.path, self.seconds = HW, 0, None, 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        start = time.perf_counter()
        for number in range(self.frames):
            if number == self.fail_at:
                raise OSError("camera unplugged")
            self.seconds = number / self.fps
            if self.is_live:
                time.sleep(max(0.0, start + self.seconds - time.perf_counter()))
            shot = sum(number >= cut for cut in self.cuts)
            yield picture(number, shot, self.speed)


def overlap(found: Detections, number: int, speed: int = 2) -> float:
    """Intersection over union of the first mask and the square; 0 where nothing is found."""
    if not len(found):
        return 0.0
    truth = np.zeros(HW, bool)
    left = left_of(number, speed)
    truth[30 : 30 + SIDE, left : left + SIDE] = True
    mask = found.masks[0].numpy()
    return float((mask & truth).sum() / (mask | truth).sum())
