"""H.264 files with sound, by PyAV.

PyAV is optional, so `writer` imports this module only when it opens a file.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import av
import cv2
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Stream
from av.video.reformatter import ColorRange, Colorspace

from data.images import Image, as_uint8

Packets: TypeAlias = "Iterator[Packet[Any]]"  # a generic type for mypy alone
Timed = TypeVar("Timed", "Packet[Any]", AudioFrame)

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffix -> libav's name of the format."""

# This preset costs no more time than OpenCV's MPEG-4, for a smaller and better file. Few threads,
# because the network needs the processor.
_X264 = {"preset": "ultrafast", "crf": "23"}
_THREADS = 2
# Times are kept to an eighth of a frame: exact at a constant rate, close at a variable one.
_TICKS = 8
# Codecs of sound that players expect in an MPEG-4 file; Matroska takes all that its muxer knows.
_MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "alac"}
# Codecs put priming samples before time 0; older packets are left out.
_PRIMING_SECONDS = 0.1


class H264File:
    """A file of H.264 frames without sound, being written.

    Args:
        path: file to make; its suffix is one of `CONTAINERS`.
        rate: frames per second.
        image_hw: height and width of the frames in pixels, both even.

    Raises:
        ImportError: this PyAV was built without the encoder.
        OSError: the file or the encoder cannot be opened.
    """

    def __init__(self, path: Path, rate: Fraction, image_hw: tuple[int, int]):
        if "libx264" not in av.codecs_available:
            raise ImportError("this PyAV has no libx264")
        self._path = path
        self._ticks_per_second = rate * _TICKS
        self._last = -_TICKS
        with _plain_errors(), ExitStack() as undo:
            self._container = _create(path)
            undo.callback(self._container.close)
            self._stream = self._container.add_stream("libx264", rate, _X264)
            context = self._stream.codec_context
            context.height, context.width = image_hw
            context.pix_fmt = "yuv420p"
            context.time_base = 1 / self._ticks_per_second
            context.thread_count = _THREADS
            # OpenCV converts to BT.601; without a label, players take large frames for BT.709.
            context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
            self._container.start_encoding()
            undo.pop_all()

    def write(self, frame: Image, seconds: float | None) -> None:
        """Append an (H, W, 3) uint8 RGB frame, shown from `seconds` on; None: one frame later."""
        tick = self._last + _TICKS
        if seconds is not None and self._last >= 0:  # the first one is shown from the start
            tick = max(self._last + 1, round(seconds * self._ticks_per_second))
        # Three to nine times as fast as libswscale, for slightly coarser colours.
        yuv = as_uint8(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420))  # (H * 3 / 2, W)
        picture = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
        picture.pts, picture.time_base = tick, 1 / self._ticks_per_second
        self._last = tick
        with _plain_errors():
            self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Write the frames that the encoder still holds, and the index."""
        with _plain_errors():
            try:
                self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()

    def add_sound(self, source: Path, target: Path) -> bool:
        """Copy the closed file with the sound of its source, for as long as the frames last.

        Sound whose codec the format takes is copied; other sound is encoded as AAC, mono or stereo.
        Of several tracks libav's preferred one is taken.

        Args:
            source: file that the frames were read from, from its first frame on.
            target: file to make.

        Returns:
            Whether the source has sound; if not, no file is made.
        """
        with av.open(source) as original, av.open(self._path) as silent:
            sound, pictures = original.streams.best("audio"), original.streams.best("video")
            if not isinstance(sound, AudioStream) or pictures is None:
                return False
            start = (pictures.start_time or 0) * (pictures.time_base or Fraction(0))
            end = Fraction(silent.duration or 0, av.time_base)
            with _create(target) as output:
                seen = silent.streams.video[0]
                seen_track = output.add_stream_from_template(seen, opaque=True)
                if sound.codec.canonical_name in _sound_codecs(output):
                    track = output.add_stream_from_template(sound)
                    heard = _copy(_between(original.demux(sound), start, end), track)
                else:
                    track = _add_aac(output, sound)
                    heard = _encode(_between(_decode(original.demux(sound)), start, end), track)
                shown = _copy(silent.demux(seen), seen_track)
                for packet in heapq.merge(shown, heard, key=lambda p: (p.dts or 0) * p.time_base):
                    output.mux(packet)
        return True


def _create(path: Path) -> OutputContainer:
    """Open a file for writing; the index of an MPEG-4 file comes first, for streaming."""
    container = CONTAINERS[path.suffix.lower()]
    options = {} if container == "matroska" else {"movflags": "+faststart"}
    opened: OutputContainer = av.open(path, "w", format=container, options=options)
    return opened


def _sound_codecs(output: OutputContainer) -> set[str]:
    return output.supported_codecs if output.format.name == "matroska" else _MP4_SOUND


def _add_aac(output: OutputContainer, sound: AudioStream) -> AudioStream:
    rates = av.Codec("aac", "w").audio_rates or []
    track = output.add_stream("aac", sound.rate if sound.rate in rates else 48000)
    track.layout = "mono" if sound.channels == 1 else "stereo"
    return track


def _between(items: Iterable[Timed], start: Fraction, end: Fraction) -> Iterator[Timed]:
    """Yield what begins from `start` to `start + end` seconds, with `start` as the new time 0."""
    for item in items:
        if item.pts is None or item.time_base is None:
            continue
        seconds = item.pts * item.time_base - start
        if seconds >= end:
            return
        if seconds >= -_PRIMING_SECONDS:
            shift = round(start / item.time_base)
            item.pts -= shift
            item.dts = None if item.dts is None else item.dts - shift
            yield item


def _copy(packets: Packets, track: Stream) -> Packets:
    for packet in packets:
        if packet.dts is not None:  # None: the empty packet that ends a file
            packet.stream = track
            yield packet


def _decode(packets: Iterable[Packet[AudioStream]]) -> Iterator[AudioFrame]:
    for packet in packets:
        with suppress(InvalidDataError):  # damaged pieces are left out
            yield from packet.decode()


def _encode(frames: Iterable[AudioFrame], track: AudioStream) -> Packets:
    for frame in frames:
        yield from track.encode(frame)
    yield from track.encode(None)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn PyAV's own errors, which have many types, into OSErrors."""
    try:
        yield
    except FFmpegError as error:
        raise OSError(error.strerror or str(error)) from error
