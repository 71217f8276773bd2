"""A network camera on this machine: RTSP with H.264 over TCP."""

import re
import socketserver
import struct
import threading
from collections.abc import Callable
from fractions import Fraction

import av

from .numbered_clip import HW, picture

_RATE = 90000


def nal_units(frames: int) -> list[list[bytes]]:
    """Encode numbered frames; each begins anew, as after a break."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *HW, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "1"}
    units = []
    for number in range(frames):
        frame = av.VideoFrame.from_ndarray(picture(number % 25), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        content = b"".join(bytes(packet) for packet in encoder.encode(frame))
        units.append([unit for unit in re.split(b"\x00\x00\x00?\x01", content) if unit])
    return units


class RtspCamera:
    """Sends so many frames for each connection in turn, and then what `after` does.

    Args:
        connections: frames of each; further ones are refused.
        after: called with the socket's handler once the frames are sent.
        pause: seconds between two frames.
    """

    def __init__(
        self,
        connections: list[range],
        after: Callable[[socketserver.StreamRequestHandler], object],
        pause: float = 0.0,
    ):
        units = nal_units(max(frames.stop for frames in connections))
        turns, self.done = iter(connections), threading.Event()

        class Handler(socketserver.StreamRequestHandler):
            def handle(handler) -> None:  # noqa: N805
                frames = next(turns, None)
                if frames is not None and handler.greet():
                    for number in frames:
                        handler.send(number, units[number])
                        self.done.wait(pause)
                    after(handler)

            def greet(self) -> bool:
                """Answer until the client wants to see something."""
                while line := self.rfile.readline():
                    method, heads = line.split()[0].decode(), {}
                    while (head := self.rfile.readline().strip()) != b"":
                        name, _, value = head.decode().partition(": ")
                        heads[name.lower()] = value
                    body = SDP if method == "DESCRIBE" else ""
                    more = {
                        "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
                        "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
                        "DESCRIBE": "Content-Type: application/sdp\r\n",
                    }.get(method, "")
                    answer = f"RTSP/1.0 200 OK\r\nCSeq: {heads['cseq']}\r\nSession: 1\r\n{more}"
                    self.wfile.write(f"{answer}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                    if method == "PLAY":
                        return True
                return False

            sequence = 0

            def send(self, number: int, units: list[bytes]) -> None:
                for unit in units:
                    is_last = unit is units[-1]
                    self.sequence += 1
                    head = struct.pack(
                        ">BBHII", 0x80, 96 | is_last << 7, self.sequence, number * _RATE // 25, 1
                    )
                    self.wfile.write(struct.pack(">cBH", b"$", 0, len(head + unit)) + head + unit)
                self.wfile.flush()

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.address = f"rtsp://me:secret@127.0.0.1:{self._server.server_address[1]}/live"

    def close(self) -> None:
        self.done.set()
        self._server.shutdown()
        self._server.server_close()


SDP = "\r\n".join(
    (
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=camera",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "m=video 0 RTP/AVP 96",
        f"a=rtpmap:96 H264/{_RATE}",
        "a=fmtp:96 packetization-mode=1",
        "a=control:track",
        "",
    )
)
