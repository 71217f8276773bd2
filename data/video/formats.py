"""What each kind of video file holds, what one without a header does, and their library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from av.container import InputContainer


_NEVER_FAILS = 19  # PyAV from which on texts are read whatever they are


class Format(NamedTuple):
    """A kind of video file.

    Attributes:
        muxer: libav's name of it.
        encoders: libav's names of those for its frames, best first.
        sound: codecs of sound that players expect in it, which are copied.
        sound_encoders: for other sound, best first; none where it holds no sound.
        options: of the muxer.
    """

    muxer: str
    encoders: tuple[str, ...]
    sound: frozenset[str] = frozenset()
    sound_encoders: tuple[str, ...] = ()
    options: dict[str, str] = {}  # noqa: RUF012


def silence() -> None:
    """Turn off libav's messages, which some torchvisions send to Python's logging.

    A thread of a decoder that logs waits for the interpreter. Who closes the decoder has that, and
    waits for the thread: for ever.
    """
    import av.logging  # not for those who only ask for a suffix

    av.logging.set_level(None)


def open_to_read(file: object, **options: Any) -> InputContainer:
    """Open a file or stream by PyAV, in silence; texts in no encoding are no error.

    Raises:
        OSError: it is no video.
    """
    import av

    silence()
    if int(av.__version__.split(".")[0]) < _NEVER_FAILS:
        options["metadata_errors"] = "replace"
    container: InputContainer = av.open(file, "r", **options)
    return container


H264 = "libx264"
_H264 = (H264, "libopenh264", "mpeg4")
_MPEG = frozenset(("aac", "mp3", "ac3", "eac3"))
_INDEX_FIRST = {"movflags": "+faststart"}  # so that it plays before all is loaded

FORMATS = {
    ".mp4": Format("mp4", _H264, _MPEG | {"alac"}, ("aac",), _INDEX_FIRST),
    ".m4v": Format("mp4", _H264, _MPEG | {"alac"}, ("aac",), _INDEX_FIRST),
    ".mov": Format("mov", _H264, _MPEG | {"alac"}, ("aac",), _INDEX_FIRST),
    ".mkv": Format(
        "matroska",
        _H264,
        _MPEG | {"mp2", "alac", "flac", "opus", "vorbis", "dts", "pcm_s16le", "pcm_s24le"},
        ("aac",),
    ),
    ".webm": Format("webm", ("libvpx-vp9", "libvpx"), frozenset(("opus", "vorbis")), ("libopus",)),
    ".ts": Format("mpegts", _H264, _MPEG | {"mp2"}, ("aac",)),
    ".avi": Format(
        "avi", ("mjpeg",), frozenset(("mp3", "mp2", "ac3", "pcm_s16le")), ("libmp3lame", "mp2")
    ),
    ".gif": Format("gif", ("gif",)),
}
"""Suffix -> what is written under it."""

ENCODER_OPTIONS = {
    # This preset costs no more time than MPEG-4, for a smaller and better file.
    "libx264": {"preset": "ultrafast", "crf": "23"},
    "h264_nvenc": {"preset": "p4", "rc": "vbr", "cq": "23", "b": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "30"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "4M"},
    "mpeg4": {"qmin": "3", "qmax": "3"},
    "mjpeg": {"qmin": "3", "qmax": "3"},
}


class RawFormat(NamedTuple):
    """The pixels of a stream that has no header.

    Attributes:
        size: "640x480".
        fps: frames per second.
        pixels: libav's name of their format.
    """

    size: str
    fps: float
    pixels: str

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read "640x480@30" or "640x480@30:yuv420p".

        Raises:
            ValueError: it is something else.
        """
        match = re.fullmatch(r"([1-9]\d*x[1-9]\d*)@(\d+(?:\.\d+)?)(?::(\w+))?", text)
        if match is None or not float(match[2]):
            raise ValueError(f"{text!r}: expected WxH@FPS[:PIXELS], as in 640x480@30:bgr24")
        return cls(match[1], float(match[2]), match[3] or "rgb24")

    @property
    def options(self) -> dict[str, str]:
        """What libav's reader of raw video is told."""
        return {"video_size": self.size, "framerate": f"{self.fps:g}", "pixel_format": self.pixels}


def format_of(path: Path) -> Format:
    """Return what a file is by its suffix.

    Raises:
        ValueError: it names no format.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        suffixes = ", ".join(FORMATS)
        raise ValueError(f"cannot write {path}: use one of the suffixes {suffixes}") from None
