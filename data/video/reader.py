"""Frames from files, image sequences, pipes, cameras and streams."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from data.files import is_numbered, is_url, without_password
from data.problems import reason_of

from .formats import RawFormat
from .images import ImageSequence
from .source import VideoSource

__all__ = ["TIMEOUT", "VideoSource", "open_video"]

TIMEOUT = 10.0
"""Seconds without a frame after which a stream counts as lost."""


def open_video(
    source: str | int | Path,
    timeout: float = TIMEOUT,
    raw: str | None = None,
    card: int | None = None,
    stays: bool = False,
) -> VideoSource:
    """Open a video and read its first frame.

    Args:
        source: path of a file or a FIFO; folder of images, or their names as in
            `frames/%06d.png`; `-` for standard input; camera (number, or path as `/dev/video0`);
            address of a stream, file or image (`rtsp://`, `http://`).
        timeout: seconds without data after which a stream or pipe counts as lost.
        raw: of a file or pipe without a header: size, rate and format of its pixels, as in
            "640x480@30:bgr24"; see `RawFormat`.
        card: number of an NVIDIA card, which decodes files where it can, to the same pictures but
            for the rounding of old codecs.
        stays: frames that it decodes stay on the card where they can, as `VideoSource.pictures`
            yields them, with colours rounded otherwise by up to 2 of 255.

    Raises:
        ValueError: there is no such source, or no frame comes out of it.
    """
    opened = _open(str(source), timeout, raw, card, stays)
    opened.card = card
    return opened


def _open(text: str, timeout: float, raw: str | None, card: int | None, stays: bool) -> VideoSource:
    path = _local_path(text)
    camera = _camera_index(text, path)
    if camera is not None:
        from .camera import CameraSource

        return CameraSource(camera, text)
    if path is not None and (path.is_dir() or (is_numbered(text) and not path.exists())):
        return ImageSequence(text)
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ValueError(f"videos need PyAV: pip install av ({error})") from error
    if path is None:
        return _open_stream(text, timeout)
    return _open_file(text, path, timeout, raw, card, stays)


def _local_path(text: str) -> Path | None:
    """Return the path that is meant; None for an address."""
    if text.lower().startswith("file://"):
        return Path(url2pathname(urlsplit(text).path))
    return None if is_url(text) else Path(text).expanduser()


def _camera_index(text: str, path: Path | None) -> int | None:
    """Return the number of the camera that is meant, if one is."""
    if text.isdecimal():
        return int(text)
    device = re.fullmatch(r"/dev/video(\d+)", str(path.resolve())) if path else None
    return int(device[1]) if device else None


def _open_stream(address: str, timeout: float) -> VideoSource:
    from av.error import FFmpegError

    from .stream import StreamSource

    try:
        return StreamSource(address, timeout)
    except (FFmpegError, OSError, ValueError) as error:
        reason = without_password(reason_of(error))
        raise ValueError(
            f"cannot read the stream {without_password(address)}: {reason}; is the address right "
            "and the server up?"
        ) from None  # the cause would show the password


def _open_file(
    text: str, path: Path, timeout: float, raw: str | None, card: int | None, stays: bool
) -> VideoSource:
    from av.error import FFmpegError

    from .container import ContainerSource, open_container
    from .gpu_codec import context_of, decoder_on, keeps_frames
    from .pipe import PipeSource

    format = RawFormat.parse(raw) if raw is not None else None
    try:
        if text == "-" or path.is_fifo():
            return PipeSource(text, None if text == "-" else path, timeout, format)
        if not path.is_file():
            raise ValueError(f"no such video file: {text}")
        card = None if raw else card
        stays = stays and keeps_frames(card)
        decoder = decoder_on(card, stays)
        with context_of(card if stays else None):
            container = open_container(path, format, timeout, decoder)
        anew = partial(open_container, path, None, timeout) if decoder else None
        return ContainerSource(text, container, path=path, without_card=anew)
    except (FFmpegError, OSError, UnicodeDecodeError) as error:  # of a name in a playlist
        raise ValueError(f"not a video, or one without frames: {text}") from error
