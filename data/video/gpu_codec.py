"""Decoding and encoding on an NVIDIA card, where a trial with a small clip shows that it works."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import cast

import av
import numpy as np
import torch
from av.codec.hwaccel import HWAccel
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data.images import Image
from data.problems import first_line

from .formats import ENCODER_OPTIONS, FORMATS
from .pixels import ToRgb, ToYuv
from .source import as_image

logger = logging.getLogger(__name__)

ENCODER = "h264_nvenc"
"""Takes the place of the other encoders for H.264."""

_FRAMES, _HW, _FPS = 8, (192, 256), 25  # of the clip; NVENC takes no smaller pictures
_LOSS = 12.0  # most mean difference of an encoded picture, of 255
_ROUNDING = 2  # most difference of a colour that the card has computed


def decoder_on(card: int | None, stays: bool = False) -> HWAccel | None:
    """Return what decodes on a card; None without one, and where that does not work.

    Args:
        card: its number.
        stays: frames stay there; see `keeps_frames`. To be opened in `context_of` the card.
    """
    if card is None or not _decodes(card):
        return None
    return _keeper(card, True) if stays else HWAccel("cuda", card, allow_software_fallback=True)


def keeps_frames(card: int | None) -> bool:
    """Tell whether decoded frames can stay on a card, as tensors; False without one."""
    return card is not None and _decodes(card) and _keeps(card)


@contextmanager
def context_of(card: int | None) -> Iterator[None]:
    """Let a decoder that this thread opens share PyTorch's memory of a card.

    Args:
        card: its number; None for nothing.
    """
    if card is None:
        yield
        return
    with torch.cuda.device(card):
        torch.cuda.synchronize()  # CUDA binds it at the first call of a thread
        yield


def encoder_on(card: int | None) -> str | None:
    """Return the encoder of a card; None without one, and where that does not work."""
    return ENCODER if card is not None and _encodes(card) else None


def encoder_options(encoder: str, card: int | None) -> dict[str, str]:
    """Return what an encoder is told."""
    options = dict(ENCODER_OPTIONS.get(encoder, {}))
    return {**options, "gpu": str(card)} if encoder == ENCODER else options


@cache
def _decodes(card: int) -> bool:
    return _works("videos are decoded on", lambda: _try_decoder(card))


@cache
def _keeps(card: int) -> bool:
    return _works("decoded frames stay on", lambda: _try_keeper(card))


@cache
def _encodes(card: int) -> bool:
    return _works("videos are encoded on", lambda: _try_encoder(card))


def _works(done: str, trial: Callable[[], None]) -> bool:
    """Tell whether a trial succeeds, and say so."""
    try:
        trial()
    except Exception as error:  # of PyAV, libav or the driver, or a package that is too old
        logger.info("%s the CPU (the card: %s)", done, first_line(error))
        return False
    logger.info("%s the card", done)
    return True


def _try_decoder(card: int) -> None:
    """Decode a clip of the CPU's on the card.

    Raises:
        ValueError: other pictures come out than by the CPU.
    """
    clip = _encoded(_usual_encoder(), None)
    found = _decoded(clip, HWAccel("cuda", card, allow_software_fallback=False))
    if not np.array_equal(found, _decoded(clip, None)):
        raise ValueError("its pictures are others")


def _try_keeper(card: int) -> None:
    """Decode a clip of the CPU's on the card, and compute its colours there.

    Raises:
        ValueError: other pictures come out than by the CPU.
    """
    clip = _encoded(_usual_encoder(), None)
    with context_of(card):
        found = _decoded(clip, _keeper(card, False))
    shown = _decoded(clip, None)
    if found.shape != shown.shape or np.abs(found - shown.astype(int)).max() > _ROUNDING:
        raise ValueError("its pictures are others")


def _keeper(card: int, fallback: bool) -> HWAccel:
    """Return what decodes into PyTorch's memory; an error from a PyAV that cannot."""
    # Not "primary_ctx", which libav refuses where PyTorch has been there before it.
    where: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
    return HWAccel("cuda", card, fallback, options=where, is_hw_owned=True)


def _usual_encoder() -> str:
    return next(name for name in FORMATS[".mp4"].encoders if name in av.codecs_available)


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
    to_rgb = ToRgb(None)
    with av.open(io.BytesIO(clip), "r", hwaccel=hwaccel) as container:
        frames = container.decode(video=0)
        return np.stack([as_image(to_rgb.picture(frame)) for frame in frames])
