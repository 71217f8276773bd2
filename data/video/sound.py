"""The sound of a video, from who reads to who writes, and into a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import InvalidDataError
from av.packet import Packet

from .formats import Format

# Codecs put priming samples before time 0; older packets are left out.
_PRIMING_SECONDS = 0.1


class Sound:
    """Encoded sound, which comes between the frames; one thread puts and another one takes.

    Attributes:
        stream: what the newest packets are of; another one after a stream was reconnected.
        is_wanted: whoever writes has asked for it.
        frames_end: seconds at which the last frame ends, once it has been read; 0 if nobody knows.
    """

    stream: AudioStream
    frames_end = 0.0

    def __init__(self) -> None:
        self.is_wanted, self._is_over = False, False
        self._packets: deque[tuple[float, Packet[Any]]] = deque()

    def put(self, packet: Packet[Any], start: float) -> None:
        """Add a packet.

        Args:
            packet: as read.
            start: seconds on its clock at which the frames begin.
        """
        if self._is_over or packet.pts is None or packet.dts is None or not packet.time_base:
            return
        shift = round(start / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        begin = float(packet.pts * packet.time_base)
        if begin >= -_PRIMING_SECONDS:
            self._packets.append((begin, packet))

    def end(self) -> None:
        """Keep no more packets: nobody takes them."""
        self._is_over = True
        self._packets.clear()

    def until(self, seconds: float) -> Iterator[Packet[Any]]:
        """Take the packets that begin before a time, on the clock of the frames."""
        while self._packets and self._packets[0][0] < seconds:
            yield self._packets.popleft()[1]


class Track:
    """The sound of a source in a file: copied where the format takes it, else encoded anew.

    Args:
        output: the file, of which nothing is written yet.
        format: what it takes.
        sound: from a source that nobody has read on from.

    Raises:
        ValueError: there is no encoder for it.
    """

    def __init__(self, output: OutputContainer, format: Format, sound: Sound):
        # AVI begins at 0, and its first frame would be shown then, those after it later.
        self._sound, self._newest = sound, -1 if format.muxer == "avi" else -(2**62)
        source = sound.stream
        self._is_copied = source.codec.canonical_name in format.sound
        if self._is_copied:
            self._stream: AudioStream = output.add_stream_from_template(source)
        else:
            self._stream = _encoder(output, format, source)
        sound.is_wanted = True

    def until(self, seconds: float) -> list[Packet[Any]]:
        """Return what begins before a time, as packets to write."""
        packets = self._sound.until(seconds)
        return list(self._in_order(packets if self._is_copied else self._encoded(packets)))

    def end(self) -> None:
        """Take nothing any more."""
        self._sound.end()

    def rest(self, seconds: float) -> list[Packet[Any]]:
        """Return the same, at least for as long as the last frame lasts, and what is still held."""
        seconds = max(seconds, self._sound.frames_end)
        return self.until(seconds) + ([] if self._is_copied else self._stream.encode(None))

    def _in_order(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
        for packet in packets:
            if packet.dts is not None and packet.dts > self._newest:
                self._newest = packet.dts
                packet.stream = self._stream
                yield packet

    def _encoded(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
        for packet in packets:
            frames: list[AudioFrame] = []
            with suppress(InvalidDataError):  # damaged pieces are left out
                frames = self._sound.stream.codec_context.decode(packet)
            for frame in frames:
                yield from self._stream.encode(frame)


def _encoder(output: OutputContainer, format: Format, source: AudioStream) -> AudioStream:
    name = next((name for name in format.sound_encoders if name in av.codecs_available), None)
    if name is None:
        raise ValueError(f"{format.muxer} files take no {source.codec.canonical_name}")
    rates = av.Codec(name, "w").audio_rates or []
    rate = source.rate if source.rate in rates else 48000
    track = cast("AudioStream", output.add_stream(name, rate))
    track.layout = "mono" if source.channels == 1 else "stereo"
    return track
