"""Sound that goes along with the frames of a file."""

from pathlib import Path

import pytest
from support.numbered_clip import read_numbers, write_clip
from support.sound_clip import FPS, listen, write_sound_clip

from data.video.container import ContainerSource, open_container
from data.video.reader import open_video
from data.video.writer import VideoWriter

FRAME = 1 / FPS


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 10)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def copy(source: Path, target: Path, most: int | None = None, skip: int | None = None) -> Path:
    """Write the frames of a file again, without one of them or the last ones if asked for."""
    with (
        open_video(source) as video,
        VideoWriter(target, video.fps, video.image_hw, video.sound) as writer,
    ):
        for number, frame in enumerate(video):
            if number == most:
                break
            if number != skip:
                writer.write(frame, video.seconds)
    return target


@pytest.mark.parametrize(
    ("source", "sound", "target", "codec", "video_start", "sound_late"),
    [
        ("a.mp4", "aac", "o.mkv", "aac", 0, 0),
        ("a.mp4", "libmp3lame", "o.mov", "mp3", 0, 0),
        ("a.mkv", "flac", "o.mp4", "aac", 0, 0),
        ("a.mkv", "libopus", "o.m4v", "aac", 0, 0),
        ("a.mov", "pcm_s16le", "o.mp4", "aac", 0, 0),
        ("a.ts", "aac", "o.mp4", "aac", 0, 0),
        ("a.mp4", "aac", "o.ts", "aac", 0, 0),
        ("a.mp4", "aac", "o.webm", "opus", 0, 0),
        ("a.mkv", "libopus", "o.webm", "opus", 0, 0),
        ("a.mp4", "libmp3lame", "o.avi", "mp3", 0, 0),
        ("a.mp4", "aac", "o.avi", "mp3", 0, 0),
        ("a.mkv", "pcm_s16le", "o.avi", "pcm_s16le", 0, 0),
        ("a.mkv", "pcm_s16le", "o.ts", "aac", 0, 0),
        *(
            (*formats, *times)
            for formats in (
                ("a.mp4", "aac", "o.mp4", "aac"),  # copied
                ("a.mkv", "flac", "o.mkv", "flac"),
                ("a.ts", "mp2", "o.mp4", "aac"),  # encoded anew
            )
            for times in ((0, 0), (0.4, 0), (0, 0.3), (0.4, -0.3))
        ),
    ],
)
def test_sound_goes_along(
    tmp_path: Path,
    source: str,
    sound: str,
    target: str,
    codec: str,
    video_start: float,
    sound_late: float,
) -> None:
    clip = write_sound_clip(
        tmp_path / source, sound, video_start=video_start, sound_late=sound_late
    )
    heard = listen(copy(clip, tmp_path / target))
    assert heard.codec == codec
    assert heard.flashes == pytest.approx([0, 1], abs=0.002)
    expected = [time + sound_late for time in (0, 1) if time + sound_late >= 0]
    if target == "o.avi":  # it cannot begin before 0, as the first samples of a codec do
        expected = expected[-1:]
    assert min(heard.tones) > -0.15  # what is heard before the first frame is left out
    assert heard.tones[-len(expected) :] == pytest.approx(expected, abs=0.005)
    assert names(tmp_path) == sorted([source, target])


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2)])
def test_encoded_sound_keeps_its_channels(tmp_path: Path, layout: str, channels: int) -> None:
    av = pytest.importorskip("av")
    clip = write_sound_clip(tmp_path / "a.mov", "pcm_s16le", seconds=1, layout=layout)
    with av.open(copy(clip, tmp_path / "o.mp4")) as container:
        assert container.streams.audio[0].channels == channels


def test_sound_ends_with_the_frames(tmp_path: Path) -> None:
    heard = listen(copy(write_sound_clip(tmp_path / "a.mp4"), tmp_path / "o.mp4", most=20))
    assert heard.length == pytest.approx(19 * FRAME, abs=0.001)
    assert heard.sound_length == pytest.approx(20 * FRAME, abs=FRAME)
    assert heard.tones == pytest.approx([0], abs=0.005)


def test_sound_lasts_as_long_as_the_last_frame(tmp_path: Path) -> None:
    """Of two seconds, the frames of the first one stay, and the last of these lasts a second."""
    av = pytest.importorskip("av")
    clip = write_sound_clip(tmp_path / "a.mp4")
    with av.open(clip) as source, av.open(tmp_path / "b.mp4", "w") as output:
        streams = {s.index: output.add_stream_from_template(s) for s in source.streams}
        packets = [packet for packet in source.demux() if packet.dts is not None]
        frames = [p for p in packets if p.stream.type == "video" and p.pts * p.time_base <= 1]
        frames[-1].duration = round(1 / frames[-1].time_base)
        for packet in packets:
            if packet.stream.type == "audio" or packet in frames:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    heard = listen(copy(tmp_path / "b.mp4", tmp_path / "o.mp4"))
    assert heard.flashes == pytest.approx([0, 1], abs=0.002)
    assert heard.sound_length == pytest.approx(2, abs=FRAME)


def test_a_missing_frame_moves_no_sound(tmp_path: Path) -> None:
    heard = listen(copy(write_sound_clip(tmp_path / "a.mp4"), tmp_path / "o.mp4", skip=10))
    assert heard.flashes == pytest.approx([0, 1], abs=0.002)
    assert heard.tones == pytest.approx([0, 1], abs=0.005)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_damaged_file_keeps_in_sync(tmp_path: Path, suffix: str) -> None:
    clip = write_sound_clip(tmp_path / "a.ts", "mp2", seconds=4)
    content = bytearray(clip.read_bytes())
    place = slice(len(content) * 4 // 10 // 188 * 188, len(content) // 2 // 188 * 188)
    content[place] = bytes(place.stop - place.start)
    clip.write_bytes(content)
    heard = listen(copy(clip, tmp_path / f"o{suffix}"))
    assert heard.flashes[-1] == pytest.approx(3, abs=FRAME)
    assert heard.tones[-1] == pytest.approx(3, abs=FRAME)


def test_a_source_without_sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("av")
    clip = write_clip(tmp_path / "a.mp4", 3)
    assert read_numbers(copy(clip, tmp_path / "o.mp4")) == [0, 1, 2]
    assert not caplog.messages
    assert names(tmp_path) == ["a.mp4", "o.mp4"]


def test_what_cannot_hold_sound_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy(write_sound_clip(tmp_path / "a.mp4"), tmp_path / "o.gif")
    assert caplog.messages == ["no sound is written: gif files take no aac"]


@pytest.mark.parametrize("silent", [False, True])
def test_sound_that_nobody_takes_is_not_kept(tmp_path: Path, clip: Path, silent: bool) -> None:
    """Also when a stream is connected again, which nobody can wait for in a test."""
    heard = write_sound_clip(tmp_path / "a.mp4")
    with open_video(clip if silent else heard) as source:
        assert isinstance(source, ContainerSource)
        assert (source.sound is None) == silent
        next(iter(source))
        assert source.sound is None
        source._use(open_container(heard))
        assert source.sound is None
        assert len(source._streams) == 1


def test_sound_that_is_broken_off_is_not_kept(tmp_path: Path) -> None:
    with open_video(write_sound_clip(tmp_path / "a.mp4")) as source:
        sound = source.sound
        assert sound is not None
        sound.is_wanted = True
        frames = iter(source)
        for _ in range(5):
            next(frames)
        assert list(sound.until(0.1))
        sound.end()
        assert len(list(frames)) > 5
        assert not list(sound.until(1e9))


def test_sound_that_cannot_be_decoded_leaves_the_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data.video.sound import Track

    calls = []

    def broken(self: Track, seconds: float) -> list[object]:
        calls.append(seconds)
        if len(calls) > 10:
            raise RuntimeError("broken")
        return []

    monkeypatch.setattr(Track, "until", broken)
    clip = write_sound_clip(tmp_path / "a.mp4")
    assert len(listen(copy(clip, tmp_path / "o.mp4")).flashes) == 2
    assert caplog.messages == ["the sound ends after 0.4 s: broken"]
    assert len(calls) == 11
