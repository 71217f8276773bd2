"""The pipeline of 2019, for comparison (`--engine plain`): whole-frame masks, step by step.

It is slow and used for nothing else: masks are resized as N x H x W floats and blended over the
whole frame, and a video is read, segmented, drawn and written frame after frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data.images import Image, Picture
from data.video.reader import VideoSource
from data.video.source import as_image
from data.video.writer import VideoWriter
from yolact.drawing.detections import ColorBy, Draw, draw_detections, object_colors
from yolact.results.detections import Detections
from yolact.video.pipeline import VideoReport


def draw_plain(
    picture: Picture,
    detections: Detections,
    *,
    masks: bool = True,
    boxes: bool = True,
    text: bool = True,
    scores: bool = True,
    color_by: ColorBy = "instance",
    alpha: float = 0.45,
) -> Image:
    """Draw as `draw_detections` does, with whole-frame masks, on the CPU."""
    image = as_image(picture)
    if masks and len(detections):
        whole = _whole_frames(detections)
        pixels = torch.from_numpy(image).float()
        colors = torch.tensor(object_colors(detections, color_by), dtype=torch.float32)  # (N, 3)
        for index in range(len(detections) - 1, -1, -1):
            color = colors[index]
            opacity = alpha * whole[index].float()[..., None]
            pixels = pixels * (1 - opacity) + color * opacity
        image = pixels.round().byte().numpy()
    return draw_detections(
        image, detections, masks=False, boxes=boxes, text=text, scores=scores, color_by=color_by
    )


def _whole_frames(detections: Detections) -> Tensor:
    """Return (N, H, W) bool masks: YOLACT's resized from its grid, masks in boxes pasted."""
    height, width = detections.image_hw
    frames = detections.mask_frames
    if (frames != frames.new_tensor((0, 0, width, height))).any():
        return detections.masks
    return F.interpolate(detections.soft_masks[None], (height, width), mode="bilinear")[0] > 0.5


def run_video_plain(
    source: VideoSource,
    predict: Callable[[list[Image]], list[Detections]],
    draw: Draw,
    output: Path,
    max_frames: int | None = None,
) -> VideoReport:
    """Segment a video as `run_video` does, but without overlapping the stages."""
    start, frames = time.perf_counter(), 0
    with VideoWriter(output, source.fps, source.image_hw) as writer:
        for frame in islice(source, max_frames):
            writer.write(draw(frame, predict([frame])[0]))
            frames += 1
    seconds = time.perf_counter() - start
    fps, broken = frames / seconds, source.broken_frames
    return VideoReport(frames, seconds, fps, broken, writer.path, source.damage)
