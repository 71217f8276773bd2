"""The sound of a video, on its way from who reads to who writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.packet import Packet

# Codecs put priming samples before time 0; older packets are left out.
_PRIMING_SECONDS = 0.1


class Sound:
    """Encoded sound, which comes between the frames; one thread puts and another one takes.

    Attributes:
        stream: what the newest packets are of; another one after a stream was reconnected.
        is_wanted: whoever writes has asked for it.
    """

    stream: AudioStream

    def __init__(self) -> None:
        self.is_wanted = False
        self._packets: deque[tuple[float, Packet[Any]]] = deque()

    def put(self, packet: Packet[Any], start: float) -> None:
        """Add a packet.

        Args:
            packet: as read.
            start: seconds on its clock at which the frames begin.
        """
        if packet.pts is None or packet.dts is None or not packet.time_base:
            return
        shift = round(start / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        begin = float(packet.pts * packet.time_base)
        if begin >= -_PRIMING_SECONDS:
            self._packets.append((begin, packet))

    def until(self, seconds: float) -> Iterator[Packet[Any]]:
        """Take the packets that begin before a time, on the clock of the frames."""
        while self._packets and self._packets[0][0] < seconds:
            yield self._packets.popleft()[1]
