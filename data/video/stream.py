"""Network streams, which break and are connected again."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.packet import Packet

from data.files import without_password
from data.images import Picture

from .container import ContainerSource, restrictions
from .formats import open_to_read

# A playlist from elsewhere names no files of this machine.
_PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,rtsp,rtmp,rtmps,rtmpt,srt,ftp,crypto,data"
_PAUSE = 0.5  # seconds between two attempts to connect
_UNTIMED = {"mpjpeg", "mjpeg"}  # formats without times: libav counts 25 frames/s


class StreamSource(ContainerSource):
    """A video from the network; what has a length is read like a file, everything else is live.

    Where nothing comes for half of the timeout, or the connection breaks, it is connected again.

    Args:
        address: with the password, which no message shows.
        timeout: seconds without data after which the stream is given up.

    Raises:
        OSError: nothing comes.
        ValueError: no video comes.
    """

    def __init__(self, address: str, timeout: float):
        self._address, self._timeout = address, timeout
        container = _connect(address, timeout)
        self._began = time.monotonic()
        is_endless = not _is_sized(container) or container.format.name == "hls"
        is_live = not container.duration and is_endless
        super().__init__(without_password(address), container, is_live=is_live)

    def pictures(self) -> Iterator[Picture]:
        """Yield the remaining frames.

        Raises:
            OSError: nothing has come for as long as the timeout, or a file has ended early.
        """
        yield from super().pictures()
        if told := self._missing():
            raise OSError(f"{self.name}: {told}")

    def _stamp(self, frame: av.VideoFrame) -> float | None:
        is_timed = not self.is_live or self._container.format.name not in _UNTIMED
        return super()._stamp(frame) if is_timed else time.monotonic()

    def _packets(self) -> Iterator[Packet[Any] | None]:
        newest = time.monotonic()
        while True:
            connected, before, reason = time.monotonic(), self._delivered_frames, "it broke off"
            try:
                for packet in self._demuxed():
                    yield packet
                    newest = time.monotonic()
                if self._container.format.name != "rtsp":
                    return
            except (FFmpegError, OSError) as error:
                # So libav calls the end of what was not announced to end.
                is_open_end = error.errno == errno.EIO and not _is_sized(self._container)
                came = (self._delivered_frames - before) / float(self._video.average_rate or 25)
                yield None
                if isinstance(error, (ExitError, TimeoutError)):
                    reason = "it stalled"
                elif not is_open_end:
                    reason = error.strerror or str(error)
                elif newest - connected < came / 2:  # as files come, not as cameras
                    return
            if not (self.is_live and self._connect_again(newest + self._timeout)):
                raise OSError(
                    f"{self.name}: no data for {time.monotonic() - newest:.0f} s ({reason}); "
                    f"{self._delivered_frames} frames came before"
                )

    def _connect_again(self, deadline: float) -> bool:
        self._container.close()
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._use(_connect(self._address, left))
            except (FFmpegError, OSError, ValueError):
                time.sleep(min(_PAUSE, left))
            else:
                self._clock.restart(time.monotonic() - self._began)
                return True
        return False


def _is_sized(container: InputContainer) -> bool:
    """Tell whether a stream announces its end; of others PyAV's size is negative, or None."""
    return (container.size or 0) > 0


def _connect(address: str, timeout: float) -> InputContainer:
    """Open a stream; libav itself connects again to a file that it can read in pieces.

    What comes before a stall is delivered: it looks at half a second only, to know the format.
    """
    stall = timeout / 2
    microseconds = str(round(1e6 * stall))
    options = {
        **restrictions(_PROTOCOLS),
        "rtsp_transport": "tcp",
        "timeout": microseconds,  # of RTSP
        "rw_timeout": microseconds,
        "analyzeduration": "500000",
        "reconnect": "1",
        "reconnect_on_network_error": "0",
        "reconnect_delay_max": str(max(1, round(stall))),
    }
    return open_to_read(address, options=options, timeout=timeout)
