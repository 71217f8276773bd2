"""Frames of files and pipes, by PyAV."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.audio.stream import AudioStream
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from data.files import open_file
from data.images import MAX_PIXELS, Image, Picture
from data.problems import reason_of

from .clock import Clock, Gaps
from .formats import RawFormat, open_to_read
from .pixels import ToRgb
from .sound import Sound
from .source import VideoSource, as_image, check_frame_size

logger = logging.getLogger(__name__)

_TEXT = {"tty", "bin", "xbin", "adf", "idf"}  # libav decodes any text file as ANSI art
_PLAYLISTS = (".m3u8", ".m3u")  # as libav knows them
_MOST_LISTED = 1000  # files of a playlist that are opened until there is a frame
# These do not say how many frames they hold; others have pauses, as GIF.
_UNCOUNTED = {"matroska,webm", "mpegts", "mpeg", "flv"}
_THREADS = 4
# Packets without a frame after which there will be none.
_MAX_FRUITLESS = 1000
_SLACK = 1.0  # seconds by which a container's length may be wrong, of a short video a tenth


class ContainerSource(VideoSource):
    """A video that libav reads; its first frame is decoded already.

    Args:
        name: for messages.
        container: opened; closed with the source.
        is_live: frames come when they are made, so none may wait inside the decoder.
        path: see `VideoSource`.
        without_card: opens the same anew, to decode on the CPU, where the container uses a card.

    Raises:
        ValueError: there are no frames, or gigantic ones.
    """

    def __init__(
        self,
        name: str,
        container: InputContainer,
        *,
        is_live: bool = False,
        path: Path | None = None,
        without_card: Callable[[], InputContainer] | None = None,
    ):
        self.name, self.is_live = name, is_live
        self._without_card = without_card
        self._frames_to_skip = self._sounds_to_skip = self._sounds = 0
        self._is_mute = False
        self._use(container)
        rate = float(self._video.average_rate or self._video.guessed_rate or 0)
        length = _claimed_seconds(container, self._video)
        self._latest, self._ends, self._trouble = 0.0, 0.0, ""
        self._gaps = Gaps()
        self._delivered_frames, self._untimed = 0, 0
        self._clock = Clock(rate or 30, None if length is None else length + 10 * _SLACK)
        self._length = length
        self._frames = self._decoded()
        first = next(self._frames, None)
        if first is None:
            raise ValueError(f"not a video, or one without frames: {name}")
        image_hw = (first.shape[0], first.shape[1])
        super().__init__(name, rate, image_hw, is_live=is_live, path=path)
        self._frames = chain((first,), self._frames)

    @property
    def start(self) -> float:
        """Seconds at which the frames begin, on the clock of the container."""
        return self._clock.start or 0.0

    def __iter__(self) -> Iterator[Image]:
        """Yield the remaining frames; then tell what was broken or missing."""
        return map(as_image, self.pictures())

    def pictures(self) -> Iterator[Picture]:
        """Yield the same, as tensors those that stay on a card."""
        self._is_mute = self.sound is None or not self.sound.is_wanted
        if self._is_mute:
            self.sound = None
        yield from self._frames
        if self.sound is not None:
            self.sound.frames_end = self._ends
        if told := self._damage():
            self.damage = "" if self.is_live else told
            logger.warning("%s: %s", self.name, told)

    def close(self) -> None:
        """Close the file; the iteration ends."""
        self._container.close()
        self._frames = iter(())

    def _use(self, container: InputContainer) -> None:
        """Read from a container from now on."""
        self._container = container
        video = None if container.format.name in _TEXT else container.streams.best("video")
        if not isinstance(video, VideoStream) or video.codec_context is None:
            raise ValueError(f"not a video: {self.name}")
        context = video.codec_context
        check_frame_size(self.name, context.width, context.height)
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_count = 1 if context.is_hwaccel else _THREADS
        # Threads for whole frames keep as many frames back.
        context.thread_type = "SLICE" if self.is_live else "AUTO"
        ratio = video.sample_aspect_ratio  # of a type that depends on PyAV
        aspect = Fraction(ratio.numerator, ratio.denominator) if ratio else None
        self._video, self._to_rgb = video, ToRgb(aspect)
        check_frame_size(self.name, self._to_rgb.width(context.width), context.height)
        sound = container.streams.best("audio")
        self._pending_audio: list[Packet[Any]] = []  # before the first frame
        self._streams: list[VideoStream | AudioStream] = [video]
        if isinstance(sound, AudioStream) and sound.codec_context and not self._is_mute:
            self.sound = self.sound or Sound()
            self.sound.stream = sound
            self._streams.append(sound)

    def _packets(self) -> Iterator[Packet[Any] | None]:
        """Yield what the container holds; an error is an early end.

        None stands for such an end: the decoder is to give what it still holds.
        """
        try:
            yield from self._demuxed()
        except (FFmpegError, OSError, UnicodeDecodeError) as error:  # of a name in a playlist
            self._trouble = reason_of(error)
            yield None

    def _demuxed(self) -> Iterator[Packet[Any]]:
        while True:
            try:
                yield from self._container.demux(self._streams)
                return
            except IndexError:  # of PyAV, at a packet of a stream that began midway
                continue

    def _decoded(self) -> Iterator[Picture]:
        fruitless = 0
        for packet in self._packets():
            if packet is not None and packet.stream.type == "audio":
                self._take_audio(packet)
                continue
            if packet is not None:
                self._note_end(packet)
            fruitless += 1
            try:
                for frame in self._video.codec_context.decode(packet):
                    picture, fruitless = self._to_rgb.picture(frame), 0
                    if self._frames_to_skip:
                        self._frames_to_skip -= 1
                        continue
                    self._note_time(frame)
                    yield picture
            except (FFmpegError, ValueError, RuntimeError) as error:  # of pixels, and PyTorch's
                if self._without_card is not None:
                    yield from self._decoded_anew(error)
                    return
                self.broken_frames, self._untimed = self.broken_frames + 1, self._untimed + 1
            if fruitless > _MAX_FRUITLESS:
                self._trouble = "no frames any more"
                return

    def _decoded_anew(self, error: Exception) -> Iterator[Picture]:
        """Go on after the latest frame on the CPU, which also tells whether the file is broken."""
        logger.info("%s: decoded on the CPU from now on (the card: %s)", self.name, error)
        assert self._without_card is not None
        container, self._without_card = self._without_card(), None
        self._container.close()
        self._frames_to_skip = self._delivered_frames
        self._sounds_to_skip = self._sounds - len(self._pending_audio)
        self._use(container)
        yield from self._decoded()

    def _note_time(self, frame: av.VideoFrame) -> None:
        before = self.seconds
        self.seconds = self._clock.advance(self._stamp(frame), self._untimed)
        if self._delivered_frames and not self._untimed:
            self._gaps.note(self.seconds - before, frame.is_corrupt)
        self._delivered_frames, self._untimed = self._delivered_frames + 1, 0
        self._ends = self.seconds + float((frame.duration or 0) * (frame.time_base or 0))
        while self._pending_audio and self.sound is not None and self._clock.start is not None:
            self.sound.put(self._pending_audio.pop(0), self._clock.start)

    def _stamp(self, frame: av.VideoFrame) -> float | None:
        """Return the seconds of a frame on the clock of its container."""
        # AVI counts frames in the order of the file, with B-frames not that of showing. The last
        # ones, which the decoder held back, have no count then: they follow at the usual pace.
        stamp = frame.dts if self._container.format.name == "avi" else frame.pts
        return None if stamp is None else float(stamp * (frame.time_base or Fraction(0)))

    def _take_audio(self, packet: Packet[Any]) -> None:
        if self.sound is None:
            return
        if self._sounds_to_skip:
            self._sounds_to_skip -= 1
            return
        self._sounds += 1
        if self._clock.start is None:
            self._pending_audio.append(packet)
        else:
            self.sound.put(packet, self._clock.start)

    def _note_end(self, packet: Packet[Any]) -> None:
        if packet.pts is not None and packet.time_base:
            begin = packet.pts - (self._video.start_time or 0)
            end = float((begin + (packet.duration or 0)) * packet.time_base)
            self._latest = max(self._latest, end)

    def _missing(self) -> str:
        """Say that the container ended before its time; "" if it did not."""
        length = self._length or 0.0
        # AVI counts its frames, and its length says no more than how many of them are listed.
        is_avi = self._container.format.name == "avi"
        counted = float(self._video.frames * (self._video.time_base or 0)) if is_avi else 0.0
        slack = 0.0 if counted > length - 2 / self.fps else min(_SLACK, length / 10)
        length = max(length, counted)
        if not self._trouble and length - self._latest <= slack + 2 / self.fps:
            return ""
        claimed = f" of {length:.1f} s" if length else " s"
        why = f" ({self._trouble})" if self._trouble else ""
        return f"ends early, after {self._latest:.1f}{claimed}{why}"

    def _damage(self) -> str:
        """Say which part of the video is not there; "" if all is."""
        broken = f"{self.broken_frames} broken frames were left out" if self.broken_frames else ""
        lost = self._gaps.lost_frames() if self._container.format.name in _UNCOUNTED else 0
        gaps = f"about {lost} frames are missing" if lost else ""
        return "; ".join(filter(None, (self._missing(), broken, gaps)))


def open_container(
    file: Path | object,
    raw: RawFormat | None = None,
    timeout: float | None = None,
    hwaccel: HWAccel | None = None,
) -> InputContainer:
    """Open a file by its path, or what has a method `read`; decode on a card where that is given.

    Args:
        file: where it is.
        raw: format of frames without a header.
        timeout: seconds that a playlist may grow by nothing.
        hwaccel: how a card decodes it.

    Raises:
        OSError: it is no video.
    """
    options = {**restrictions("file,crypto,data"), **(raw.options if raw else {})}
    is_playlist = isinstance(file, Path) and file.suffix.lower() in _PLAYLISTS
    opener = _Opener() if is_playlist else None
    container = open_to_read(
        f"file:{file}" if isinstance(file, Path) else file,
        format="rawvideo" if raw else None,
        options=options,
        timeout=timeout if is_playlist else None,
        io_open=opener,
        hwaccel=hwaccel,
    )
    if opener is not None:
        opener.left = sys.maxsize
    return container


class _Opener:
    """Opens a playlist and what it names; a pipe, a device, or what is not there is empty.

    Attributes:
        left: how many files may be opened; one list that names itself would be opened for ever.
    """

    def __init__(self) -> None:
        self.left = _MOST_LISTED

    def __call__(self, address: str, flags: int, options: dict[str, str]) -> BinaryIO:
        self.left -= 1
        if self.left < 0:
            raise OSError(f"it names more than {_MOST_LISTED} files before its first frame")
        try:
            return open_file(Path(address.removeprefix("file:")))
        except (OSError, ValueError):  # one part that is not there costs only itself
            return io.BytesIO()


class SoundOfFile:
    """The sound of a file, read on its own, on the clock of its frames.

    Args:
        container: opened.
        stream: of the sound in it.
        start: seconds at which the first frame is shown, on the clock of the container.
    """

    def __init__(self, container: InputContainer, stream: AudioStream, start: float) -> None:
        self.sound = Sound()
        self.sound.stream, self._start = stream, start
        self._packets, self._newest = container.demux(stream), 0.0

    @classmethod
    def open(cls, stack: ExitStack, path: Path) -> SoundOfFile | None:
        """Open a file, which the stack closes; None without frames or sound in it."""
        try:
            frames = ContainerSource(str(path), open_container(path))
            with frames:
                start = frames.start  # later than the stream's where its first frames are broken
            container = stack.enter_context(open_container(path))
        except (FFmpegError, OSError, UnicodeDecodeError, ValueError):
            return None
        stream = container.streams.best("audio")
        if not (isinstance(stream, AudioStream) and stream.codec_context):
            return None
        return cls(container, stream, start)

    def read_until(self, seconds: float) -> None:
        """Read what begins before a time."""
        with suppress(FFmpegError, OSError):  # a damaged file ends
            while self._newest < seconds and (packet := next(self._packets, None)) is not None:
                self.sound.put(packet, self._start)
                if packet.pts is not None and packet.time_base:
                    self._newest = float(packet.pts * packet.time_base) - self._start


def restrictions(protocols: str) -> dict[str, str]:
    """Return options of libav, by which what a file names is reached by few protocols, if at all.

    A list of ffconcat opens what it names past every check, pipes, devices and itself among it.
    """
    formats = ",".join(sorted(av.formats_available - {"concat"}))
    return {"protocol_whitelist": protocols, "format_whitelist": formats}


def _claimed_seconds(container: InputContainer, video: VideoStream) -> float | None:
    """Return how long the frames last by what a container says; None where it does not."""
    if video.duration and video.time_base:
        return float(video.duration * video.time_base)
    with suppress(KeyError, ValueError):  # Matroska
        hours, minutes, seconds = video.metadata["DURATION"].split(":")
        end = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        return end - float((video.start_time or 0) * (video.time_base or 0))
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None
