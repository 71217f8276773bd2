"""Sound on its way into a file."""

from __future__ import annotations

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
from .sound import Sound


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
        self._sound, self._newest = sound, -(2**62)
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
        return list(self._copies(packets) if self._is_copied else self._encoded(packets))

    def rest(self, seconds: float) -> list[Packet[Any]]:
        """Return the same, and what the encoder still holds."""
        return self.until(seconds) + ([] if self._is_copied else self._stream.encode(None))

    def _copies(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
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
