"""Frames and sound into a file, by PyAV."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream
from PIL import Image as PilImage

from data.images import Image

from .container import SoundOfFile, open_container
from .formats import H264, Format, format_of, silence
from .gpu_codec import encoder_on, encoder_options
from .pixels import ToYuv
from .sound import Sound, Track

logger = logging.getLogger(__name__)

_THREADS = 2  # few, because the network needs the processor
_FINEST = 10_000  # ticks/s at least, so that every frame is shown when it should
# AVI has one frame rate, and an empty frame for each tick without one. A low one is a mean.
_LOW_RATE, _AVI_TICKS = 20, 100
# So many of them in a file, and more for each frame, as in 100 ticks/s of a frame per second.
_EMPTY, _EMPTY_PER_FRAME = 2**18, 100
_GIF_TICKS = 100
_LONGEST = {"avi": 2**15, "gif": 2**15}  # ticks between two frames, most that a file can hold
_LONGEST_ELSEWHERE = 2**31 - 1


class Encoder:
    """A video file being written.

    Args:
        path: file to make; its suffix chooses the format.
        rate: frames per second.
        image_hw: height and width of the frames in pixels, both even.
        sound: what is heard, for as long as the frames last.
        card: number of an NVIDIA card, which encodes H.264 where it can.

    Raises:
        OSError: the file or the encoder cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        rate: Fraction,
        image_hw: tuple[int, int],
        sound: Sound | None = None,
        card: int | None = None,
    ):
        self._path, format = path, format_of(path)
        self._ticks = _ticks_per_second(format, rate)
        self._step = max(1, round(self._ticks / rate))
        self._longest = _LONGEST.get(format.muxer, _LONGEST_ELSEWHERE)
        self._last, self._cut = -self._step, 0
        self._frames = self._empty = 0
        with _plain_errors(), ExitStack() as undo:
            silence()
            self._container = av.open(f"file:{path}", "w", format.muxer, format.options)
            undo.callback(self._container.close)
            self._to_frame = self._add_frames(format, rate, image_hw, card)
            self._track = _track(self._container, format, sound)
            self._container.start_encoding()
            undo.pop_all()

    def write(self, image: Image, seconds: float | None) -> None:
        """Append an (H, W, 3) uint8 RGB frame, shown from `seconds` on; None: one frame later."""
        frame = self._to_frame(image)
        frame.pts, frame.time_base = self._tick(seconds), 1 / self._ticks
        with _plain_errors():
            # What is heard before the first frame comes first, for muxers that begin at 0.
            self._container.mux(self._audio_packets(lambda track: track.until(self._now())))
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoders still hold, and the index."""
        with _plain_errors():
            if self._cut:
                logger.warning("%.0f s of gaps are left out in all", float(self._cut / self._ticks))
            try:
                self._container.mux(self._stream.encode(None))
                self._container.mux(self._audio_packets(lambda track: track.rest(self._now(1))))
            finally:
                self._container.close()

    def _add_frames(
        self, format: Format, rate: Fraction, image_hw: tuple[int, int], card: int | None
    ) -> Callable[[Image], av.VideoFrame]:
        """Add the stream of the frames, and return what makes frames for its encoder."""
        on_card = encoder_on(card) if H264 in format.encoders else None
        names = (name for name in format.encoders if name in av.codecs_available)
        name = on_card or next(names, None)
        if name is None:
            raise OSError(f"this PyAV has none of {', '.join(format.encoders)}")
        # What AVI calls its rate is that of the ticks.
        shown_rate = self._ticks if format.muxer == "avi" else rate
        stream = self._container.add_stream(name, shown_rate, encoder_options(name, card))
        self._stream = cast("VideoStream", stream)
        context = self._stream.codec_context
        context.height, context.width = image_hw
        context.time_base = 1 / self._ticks
        context.thread_count = _THREADS
        if name == "gif":
            context.pix_fmt = "pal8"
            return _with_palette
        to_yuv = ToYuv(image_hw, is_jpeg=name == "mjpeg")
        context.pix_fmt = to_yuv.format
        context.colorspace, context.color_range = to_yuv.colours, to_yuv.range
        return to_yuv

    def _audio_packets(self, take: Callable[[Track], list[Packet[Any]]]) -> list[Packet[Any]]:
        """Return sound to write; where it cannot be read any more, the frames go on without."""
        if self._track is None:
            return []
        try:
            return take(self._track)
        except Exception as error:  # decoders of damaged sound raise nearly every type there is
            logger.warning("the sound ends after %.1f s: %s", self._now(), error)
            self._track.end()
            self._track = None
            return []

    def _now(self, frames: int = 0) -> float:
        """Return the time of the latest frame, or of one that many later."""
        return float((self._last + self._cut + frames * self._step) / self._ticks)

    def _tick(self, seconds: float | None) -> int:
        """Return when a frame is shown: after the one before, and not later than a file can say."""
        tick = self._last + self._step
        if seconds is not None and self._last >= 0:  # the first one is shown from the start
            tick = max(self._last + 1, round(seconds * self._ticks) - self._cut)
        late = tick - self._last - self._longest_gap()
        if late > 0:
            if not self._cut:
                logger.warning("a gap of %.0f s is shortened", float(late / self._ticks))
            self._cut, tick = self._cut + late, tick - late
        self._empty += tick - self._last - 1
        self._frames += 1
        self._last = tick
        return tick

    def _longest_gap(self) -> int:
        """Return how many ticks the next frame may be late, so that no file grows by gaps alone."""
        if self._container.format.name != "avi":
            return self._longest
        room = _EMPTY + _EMPTY_PER_FRAME * self._frames - self._empty
        return max(1, min(self._longest, room))


def join(parts: Sequence[tuple[Path, float]], path: Path, source: Path | None) -> None:
    """Put videos one after the other, as they are, with the sound of a source.

    Args:
        parts: of one kind, size and rate, each with the seconds at which its first frame is shown.
        path: file to make; its suffix is that of the parts.
        source: a video whose first frame is that of the first part; None for no sound.

    Raises:
        OSError: a file cannot be read or written.
    """
    format = format_of(path)
    with _plain_errors(), ExitStack() as stack:
        output = stack.enter_context(av.open(f"file:{path}", "w", format.muxer, format.options))
        with open_container(parts[0][0]) as first:
            video = output.add_stream_from_template(first.streams.video[0])
        heard = None if source is None else SoundOfFile.open(stack, source)
        track = None if heard is None else _track(output, format, heard.sound)
        now, step, last = 0.0, 0.0, -(2**62)
        for file, seconds in parts:
            for packet in _moved(file, seconds - parts[0][1]):
                last = _after(packet, last)
                now = float((packet.pts or 0) * packet.time_base)
                step = float((packet.duration or 0) * packet.time_base)
                if heard is not None and track is not None:
                    heard.read_until(now)
                    output.mux(track.until(now))
                packet.stream = video
                output.mux(packet)
        if heard is not None and track is not None:
            heard.read_until(now + step)
            output.mux(track.rest(now + step))


def _moved(file: Path, seconds: float) -> Iterator[Packet[Any]]:
    """Yield the packets of a video, so much later."""
    with open_container(file) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                shift = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                yield packet


def _after(packet: Packet[Any], last: int) -> int:
    """Move a packet behind the one before, whose tick is `last`, if need be; return its tick.

    Where a format counts few ticks, frames in quick succession end a part later than they say.
    """
    late = max(last + 1 - (packet.dts or 0), 0)
    packet.pts, packet.dts = (packet.pts or 0) + late, (packet.dts or 0) + late
    return packet.dts


def _track(output: OutputContainer, format: Format, sound: Sound | None) -> Track | None:
    if sound is None:
        return None
    try:
        return Track(output, format, sound)
    except (ValueError, FFmpegError) as error:
        logger.warning("no sound is written: %s", error)
        return None


def _ticks_per_second(format: Format, rate: Fraction) -> Fraction:
    """Return a clock on which frames at a constant rate fall exactly."""
    if format.muxer == "gif":
        return Fraction(_GIF_TICKS)
    if format.muxer == "avi":
        return rate if rate >= _LOW_RATE else rate * -(-_AVI_TICKS // rate)
    return Fraction(rate.numerator * -(-_FINEST // rate.numerator))


def _with_palette(image: Image) -> av.VideoFrame:
    """Return a frame with 256 colours of its own."""
    # The median cut comes closer by a tenth, and takes forty times as long.
    indexed = PilImage.fromarray(image).quantize(256, PilImage.Quantize.FASTOCTREE)
    palette = np.zeros((256, 4), np.uint8)  # ARGB
    colours = np.array(indexed.getpalette() or (), np.uint8).reshape(-1, 3)[:256]
    palette[: len(colours), 1:], palette[:, 0] = colours, 255
    pixels: Any = np.asarray(indexed), palette  # more than PyAV's types tell of
    return av.VideoFrame.from_ndarray(pixels, format="pal8")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn PyAV's own errors, which have many types, into OSErrors."""
    try:
        yield
    except FFmpegError as error:
        raise OSError(error.strerror or str(error)) from error
