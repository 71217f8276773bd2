"""Decoding and encoding on an NVIDIA card, where a trial with a small clip shows that it works."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import cast

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data.images import Image

from .formats import ENCODER_OPTIONS, FORMATS
from .pixels import ToYuv, Upright

logger = logging.getLogger(__name__)

ENCODER = "h264_nvenc"
"""Takes the place of the other encoders for H.264."""

_FRAMES, _HW, _FPS = 8, (192, 256), 25  # of the clip; NVENC takes no smaller pictures
_LOSS = 12.0  # most mean difference of an encoded picture, of 255


def decoder_on(card: int | None) -> HWAccel | None:
    """Return what decodes on a card; None without one, and where that does not work."""
    if card is None or not _decodes(card):
        return None
    return HWAccel("cuda", card, allow_software_fallback=True)


def encoder_on(card: int | None) -> str | None:
    """Return the encoder of a card; None without one, and where that does not work."""
    return ENCODER if card is not None and _encodes(card) else None


def encoder_options(encoder: str, card: int | None) -> dict[str, str]:
    """Return what an encoder is told."""
    options = dict(ENCODER_OPTIONS.get(encoder, {}))
    return {**options, "gpu": str(card)} if encoder == ENCODER else options


@cache
def _decodes(card: int) -> bool:
    return _works("decoded", lambda: _try_decoder(card))


@cache
def _encodes(card: int) -> bool:
    return _works("encoded", lambda: _try_encoder(card))


def _works(done: str, trial: Callable[[], None]) -> bool:
    """Tell whether a trial succeeds, and say so."""
    try:
        trial()
    except Exception as error:  # of PyAV, libav or the driver, or a package that is too old
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.info("videos are %s on the CPU (the card: %s)", done, reason)
        return False
    logger.info("videos are %s on the card", done)
    return True


def _try_decoder(card: int) -> None:
    """Decode a clip of the CPU's on the card.

    Raises:
        ValueError: other pictures come out than by the CPU.
    """
    encoder = next(name for name in FORMATS[".mp4"].encoders if name in av.codecs_available)
    clip = _encoded(encoder, None)
    found = _decoded(clip, HWAccel("cuda", card, allow_software_fallback=False))
    if not np.array_equal(found, _decoded(clip, None)):
        raise ValueError("its pictures are others")


def _try_encoder(card: int) -> None:
    """Encode a clip on the card, and decode it on the CPU.

    Raises:
        ValueError: other pictures come out than went in.
    """
    found, shown = _decoded(_encoded(ENCODER, card), None), np.stack(_pictures())
    if found.shape != shown.shape or np.abs(found - shown.astype(float)).mean() > _LOSS:
        raise ValueError("its pictures are others")


def _pictures() -> list[Image]:
    """Return frames of a smooth pattern that moves."""
    rows, columns = np.mgrid[: _HW[0], : _HW[1]]
    waves = [np.sin((rows + 2 * columns + 8 * number) / 40) for number in range(_FRAMES)]
    return [np.stack([(128 + 100 * wave).astype(np.uint8)] * 3, axis=-1) for wave in waves]


def _encoded(encoder: str, card: int | None) -> bytes:
    """Return the clip as an MP4."""
    file, to_yuv = io.BytesIO(), ToYuv(_HW)
    with av.open(file, "w", "mp4") as container:
        added = container.add_stream(encoder, _FPS, encoder_options(encoder, card))
        stream = cast("VideoStream", added)
        stream.height, stream.width = _HW
        stream.pix_fmt = to_yuv.format
        for number, picture in enumerate(_pictures()):
            frame = to_yuv(picture)
            frame.pts, frame.time_base = number, Fraction(1, _FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _decoded(clip: bytes, hwaccel: HWAccel | None) -> NDArray[np.uint8]:
    """Return (frames, H, W, 3) RGB."""
    upright = Upright(None)
    with av.open(io.BytesIO(clip), "r", hwaccel=hwaccel) as container:
        return np.stack([upright(frame) for frame in container.decode(video=0)])
