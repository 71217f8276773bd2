"""Readers of videos, and of what a browser sends."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from mutations import damaged
from parser import Parser
from starlette.exceptions import HTTPException
from starlette.requests import Request

from data.shapes.clip import export_clip, shape_clip
from data.video.reader import open_video
from yolact.serve.upload import decode_image, receive_image

_FRAMES, _HW = 3, (32, 48)
_READ = 8  # frames of a video that are looked at
_SUFFIXES = (".mp4", ".mkv", ".avi", ".gif", ".ts", ".webm")
_MOST_BYTES, _MOST_PIXELS = 1 << 20, 1 << 20


def video(folder: Path) -> Parser:
    """Read the frames and the sound of a file."""
    file = folder / "video.m3u8"  # playlists are known by it, all others by their content
    clips = {suffix: folder / f"clip{suffix}" for suffix in _SUFFIXES}
    for clip in clips.values():
        export_clip(clip, shape_clip(_FRAMES, _HW))
    _with_sound(folder / "sound.mp4")
    seeds = [clip.read_bytes() for clip in [*clips.values(), folder / "sound.mp4"]]
    seeds.append(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.ts\n#EXT-X-ENDLIST\n")

    def read(content: bytes) -> None:
        file.write_bytes(content)
        with open_video(file, timeout=1.0) as source:
            for frame in islice(source, _READ):
                if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
                    raise AssertionError(f"{frame.shape}, {frame.dtype}")
            if not 0 <= source.seconds < float("inf") or not 0 < source.fps < 1000:
                raise AssertionError(f"{source.seconds} s, {source.fps} frames per second")
            for packet in source.sound.until(1.0) if source.sound else ():
                source.sound.stream.codec_context.decode(packet)  # type: ignore[union-attr]

    return Parser(seeds, read, damaged, megabytes=2048)


def _with_sound(path: Path) -> None:
    with av.open(path, "w") as container:
        pictures, track = container.add_stream("mpeg4", 25), container.add_stream("aac", 48000)
        pictures.height, pictures.width = _HW
        track.layout = "mono"
        packets: list[Any] = []
        for number, pixels in enumerate(shape_clip(_FRAMES, _HW)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += pictures.encode(frame)
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "mono")
        heard.pts, heard.rate, heard.time_base = 0, 48000, Fraction(1, 48000)
        packets += track.encode(heard) + pictures.encode() + track.encode()
        container.mux(packets)


def upload(folder: Path) -> Parser:
    """Read the body of a request to `yolact serve`; the first line of the content is its type."""
    from labels import image

    picture = image(folder).seeds[2]
    form = b"multipart/form-data; boundary=x\n--x\r\nContent-Disposition: form-data; "
    form += b'name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    seeds = [b"image/png\n" + picture, form + picture + b"\r\n--x--\r\n"]
    return Parser(seeds, _read_body, damaged, (HTTPException,), megabytes=256)


def _read_body(content: bytes) -> None:
    kind, _, body = content.partition(b"\n")
    received = asyncio.run(_received(kind, body))
    decode_image(received, _MOST_PIXELS)


async def _received(kind: bytes, body: bytes) -> bytes:
    half = len(body) // 2
    messages = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    scope: dict[str, Any] = {"type": "http", "method": "POST", "headers": [(b"content-type", kind)]}
    scope["app"] = None  # by which starlette knows that refusals are answered
    return await receive_image(Request(scope, receive), _MOST_BYTES, seconds=5)
