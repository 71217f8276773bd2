"""Many images, one after another: lists, folders, patterns, videos, cameras, iterators."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from io import IOBase
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from PIL import Image as PilImage
from torch import Tensor

from yolact.threads import DeferredError

from .kinds import kind_of
from .listing import expand_images
from .one import SourceImage, is_one, read, refusal

if TYPE_CHECKING:
    from data.video.reader import VideoSource

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Many(NamedTuple):
    """Images to come.

    Attributes:
        images: each as for `read`; closing this closes a video.
        is_stored: the images are stored, so that some can be read ahead; others may arrive slowly,
            or depend on the results of the previous one.
        fps: frames per second of a video or camera, whose images are `SourceImage`; else None.
    """

    images: Generator[object, None, None]
    is_stored: bool
    fps: float | None = None


def open_many(source: object, card: int | None = None) -> Many:
    """Open a source of any number of images.

    Args:
        source: a list or other iterable of images as for `read`, a folder, a pattern, a video, the
            number of a camera, the address of a stream; or one image.
        card: see `open_video`.

    Raises:
        OSError: no such file or folder.
        ValueError: there are no images, or a video, camera or stream cannot be opened.
    """
    if isinstance(source, (str, os.PathLike)):
        kind = kind_of(source, otherwise="video")
        if kind == "video":
            return _open_video(os.fspath(source), card)
        named = expand_images(source) if kind == "images" else [source]
        return Many(_each(named), is_stored=True)
    if isinstance(source, int) and not isinstance(source, bool) and source >= 0:
        return _open_video(str(source), card)
    if is_one(source):
        return Many(_each([source]), is_stored=True)
    if isinstance(source, (list, tuple)):
        return Many(_each(source), is_stored=True)
    if isinstance(source, Iterable) and not isinstance(source, (Mapping, IOBase)):
        return Many(_copies(source), is_stored=False)
    raise ValueError(refusal(source))


def read_each(
    given: Iterable[tuple[int, object]], skip: bool = False, max_pixels: int | None = None
) -> Iterator[SourceImage]:
    """Read images.

    Args:
        given: images, each with its number, for messages about images without a name.
        skip: log and skip images that cannot be read.
        max_pixels: see `read`.

    Raises:
        OSError: an image does not exist, or cannot be fetched.
        ValueError: an item is not an image.
    """
    for number, each in given:
        try:
            yield _read_numbered(number, each, max_pixels)
        except (OSError, ValueError) as error:
            if not skip:
                raise
            logger.warning("skipped: %s", error)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield as many items at a time, the last time perhaps fewer, also before an error."""
    readable = DeferredError(items)
    unread = iter(readable)
    yield from iter(lambda: list(islice(unread, size)), [])
    readable.reraise()


def _read_numbered(number: int, given: object, max_pixels: int | None) -> SourceImage:
    try:
        return read(given, max_pixels)
    except ValueError as error:
        if isinstance(given, (str, os.PathLike)):  # named already
            raise
        raise ValueError(f"image {number}: {error}") from error


def _each(given: Iterable[object]) -> Generator[object, None, None]:
    yield from given


def _copies(given: Iterable[object]) -> Generator[object, None, None]:
    """Yield copies of an iterator's images, as it may reuse one array for every image."""
    for each in given:
        if isinstance(each, Tensor):
            yield each.detach().clone()
        elif isinstance(each, (np.ndarray, bytearray)):
            yield each.copy()
        elif isinstance(each, PilImage.Image):
            with suppress(OSError):  # a damaged file is reported when it is read
                each = each.copy()
            yield each
        else:
            yield each


def _open_video(name: str, card: int | None) -> Many:
    from data.video.reader import open_video

    video = open_video(name, card=card)
    return Many(_frames(video), not video.is_live, video.fps)


def _frames(video: VideoSource) -> Generator[SourceImage, None, None]:
    with video:
        for number, frame in enumerate(video):
            yield SourceImage(frame, f"{video.name}#{number}", seconds=video.seconds)
