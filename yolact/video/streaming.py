"""Segment the frames of a video or camera with key frames, for `Predictor.stream`."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain

from yolact.errors import OptionError
from yolact.results.detections import Detections
from yolact.sources.many import Many, batches
from yolact.sources.one import SourceImage, read
from yolact.threads import map_ahead

from .keyframes import FrameGroup, KeyFrames
from .live import LatestFrame, follow, network_stage
from .stages import FpsCounter, Predict, Select


def segment_frames(
    many: Many, segment: Predict, batch: int, workers: int, keyframes: int | str, select: Select
) -> Generator[Detections, None, None]:
    """Segment the frames of a video or camera, as `Predictor.stream` does.

    Args:
        many: from `open_many`; always closed at the end.
        segment: segments a list of images.
        batch: key frames for each call of `segment`.
        workers: threads that call `segment`.
        keyframes: "auto", or the distance between two key frames.
        select: keeps the carried detections that count.

    Raises:
        OptionError: the source is neither a video nor a camera.
    """
    if many.fps is None:
        raise OptionError("keyframes", keyframes, "expected off, for this is no video")
    keys = KeyFrames(keyframes if isinstance(keyframes, int) else None, many.fps, select)
    if many.is_stored:
        return segment_key_frames(many, segment, batch, workers, keys)
    return segment_live(many, segment, keys)


def segment_key_frames(
    many: Many, segment: Predict, batch: int, workers: int, keys: KeyFrames
) -> Generator[Detections, None, None]:
    """Segment the key frames of a video, and carry their detections to the other frames."""

    def look(
        groups: Sequence[FrameGroup[SourceImage]],
    ) -> list[tuple[FrameGroup[SourceImage], Detections]]:
        found = segment([group[0].item.image for group in groups])
        return list(zip(groups, found, strict=True))

    groups = keys.groups(map(read, many.images))
    results = map_ahead(look, batches(groups, batch), workers, workers)
    with closing(many.images), closing(results):
        for item, found in keys.interpolate(chain.from_iterable(results), segment):
            yield replace(found, source=item.source, picture=item.image, seconds=item.seconds)


def segment_live(
    many: Many, segment: Predict, keys: KeyFrames
) -> Generator[Detections, None, None]:
    """Yield every frame of a camera with the last result, while the network works on the newest."""
    slot = LatestFrame()
    network = threading.Thread(
        target=network_stage, args=(slot, segment, FpsCounter()), daemon=True
    )
    with closing(many.images):
        network.start()
        try:
            for item, found in follow(map(read, many.images), slot, segment, keys.select):
                yield replace(found, source=item.source, picture=item.image, seconds=item.seconds)
        finally:
            slot.finish()
            network.join()
