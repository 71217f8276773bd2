"""Run a predictor on many images: in batches, in order, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace

from data.images import Image
from yolact.results.detections import Detections
from yolact.sources.many import Many, batches, read_each
from yolact.sources.one import SourceImage

from .threads import DeferredError, map_ahead

logger = logging.getLogger(__name__)

Segment = Callable[[list[Image]], list[Detections]]


def segment_batch(
    items: Sequence[SourceImage], segment: Segment, keep: bool = False
) -> list[Detections]:
    """Segment a batch; drop the pictures of files, which can be read again, unless `keep`."""
    found = segment([item.image for item in items])
    return [
        replace(
            each,
            source=item.source,
            picture=item.image if keep or not item.is_file else None,
            seconds=item.seconds,
        )
        for each, item in zip(found, items, strict=True)
    ]


def segment_many(
    many: Many,
    segment: Segment,
    batch: int,
    workers: int = 1,
    *,
    skip: bool = False,
    max_pixels: int | None = None,
) -> Generator[Detections, None, None]:
    """Segment image after image.

    Args:
        many: from `open_many`; always closed at the end.
        segment: segments a list of images.
        batch: images for each call of `segment`.
        workers: threads that read and call `segment`, for stored images; other images are requested
            only when the results of those before them have been taken.
        skip: log and count images that cannot be read, instead of raising the error, which comes
            after the results of the images before it.
        max_pixels: limit for an encoded image, see `data.images.read_image`.
    """

    def look(
        given: Sequence[tuple[int, object]],
    ) -> tuple[int, list[Detections], Exception | None]:
        items = DeferredError(read_each(given, skip, max_pixels))
        return len(given), segment_batch(list(items), segment, keep=True), items.failure

    ahead = workers if many.is_stored else 0
    results = map_ahead(look, batches(enumerate(many.images), batch), workers, ahead)
    seen = kept = 0
    with closing(many.images), closing(results):
        for given, found, failure in results:
            seen, kept = seen + given, kept + len(found)
            yield from found
            if failure is not None:
                raise failure
    if kept < seen:
        logger.warning("%d of %d images could not be read", seen - kept, seen)
