"""Videos on a graphics card, whose part the CPU plays."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from support.numbered_clip import HW, number_of, picture, write_clip
from support.sound_clip import listen, write_sound_clip

from data.images import Image
from data.video import container, gpu_codec
from data.video.container import ContainerSource, open_container
from data.video.pixels import ToRgb, ToYuv
from data.video.reader import open_video
from data.video.writer import VideoWriter
from yolact.engines import choose


@pytest.fixture(autouse=True)
def untried(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Forget what earlier trials have shown."""
    caplog.set_level(logging.INFO, "data.video")
    trials = gpu_codec._decodes, gpu_codec._keeps, gpu_codec._encodes
    for trial in trials:
        trial.cache_clear()
    yield
    for trial in trials:
        trial.cache_clear()


def absent(*_: object, **__: object) -> Any:
    raise OSError("no driver\nmore")


def present(*_: object, **__: object) -> Any:
    """Decode on the CPU."""


def test_without_a_card_nothing_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    assert (gpu_codec.decoder_on(None), gpu_codec.encoder_on(None)) == (None, None)
    assert not caplog.messages


def test_a_card_that_decodes_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(gpu_codec, "HWAccel", lambda *a, **options: made.append((*a, options)))
    for _ in range(3):
        gpu_codec.decoder_on(1)
    assert caplog.messages == ["videos are decoded on the card"]
    strict, *kind = (("cuda", 1, {"allow_software_fallback": choice}) for choice in (False, True))
    assert made == [strict, *kind, *kind, *kind]


def test_a_card_that_does_not_decode_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_codec, "HWAccel", absent)
    clip = write_clip(tmp_path / "clip.mp4", 4)
    for _ in range(2):
        with open_video(clip, card=0) as source:
            assert [number_of(frame) for frame in source] == [0, 1, 2, 3]
    assert caplog.messages == ["videos are decoded on the CPU (the card: no driver)"]


@pytest.mark.parametrize("change", [lambda x: x[1:], lambda x: 255 - x], ids=["fewer", "others"])
def test_a_card_with_other_pictures_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: Any
) -> None:
    right, turns = gpu_codec._decoded, iter((change, lambda x: x) * 2)
    monkeypatch.setattr(gpu_codec, "HWAccel", present)
    monkeypatch.setattr(gpu_codec, "_decoded", lambda *a: next(turns)(right(*a)))
    monkeypatch.setattr(gpu_codec, "ENCODER", "libx264")
    assert (gpu_codec.decoder_on(0), gpu_codec.encoder_on(0)) == (None, None)
    assert caplog.messages[0] == "videos are decoded on the CPU (the card: its pictures are others)"


def test_an_encoder_that_works_is_used_for_h264_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_codec, "ENCODER", "mpeg4")  # stands for the card's
    written = {}
    for name in ("a.mp4", "a.mkv", "a.avi"):
        with VideoWriter(tmp_path / name, 25, HW, card=0) as writer:
            writer.write(picture(1))
        with av.open(tmp_path / name) as file:
            written[name] = file.streams.video[0].codec.name
    assert written == {"a.mp4": "mpeg4", "a.mkv": "mpeg4", "a.avi": "mjpeg"}
    assert caplog.messages == ["videos are encoded on the card"]
    assert gpu_codec.encoder_options("mpeg4", 1)["gpu"] == "1"
    assert "gpu" not in gpu_codec.encoder_options("libx264", 1)


@pytest.mark.parametrize("works", [False, True])  # but not for pictures of this size
def test_the_cpu_encodes_what_the_card_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works: bool
) -> None:
    missing = "no_such_encoder"
    monkeypatch.setattr(gpu_codec, "ENCODER", missing)
    if works:
        name = "data.video.encoder.encoder_on"
        monkeypatch.setattr(name, lambda number: None if number is None else "gif")
    with VideoWriter(tmp_path / "a.mp4", 25, HW, card=0) as writer:
        for number in range(3):
            writer.write(picture(number))
    with open_video(tmp_path / "a.mp4") as source:
        assert [number_of(frame) for frame in source] == [0, 1, 2]


@pytest.mark.parametrize(("own", "of_card"), [("yuv420p", "nv12"), ("yuv420p10le", "p010le")])
@pytest.mark.parametrize("height", [48, 720])
def test_the_cards_arrangement_gives_the_same_pixels(own: str, of_card: str, height: int) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (height // 8, 8, 3), np.uint8)
    frame = ToYuv((height, 64))(np.kron(colours, np.ones((8, 8, 1), np.uint8)))
    planar = frame.reformat(format=own)
    to_rgb = ToRgb(None)
    np.testing.assert_array_equal(to_rgb(planar.reformat(format=of_card)), to_rgb(planar))


class FailingOnce(ToRgb):
    """Converts so many frames, and then none until another one is made."""

    good: int | None

    def __init__(self, aspect: Any) -> None:
        super().__init__(aspect)
        self.left, FailingOnce.good = FailingOnce.good, None

    def __call__(self, frame: av.VideoFrame) -> Image:
        if self.left == 0:
            raise av.error.ExternalError(1, "the card is gone")
        self.left = None if self.left is None else self.left - 1
        return super().__call__(frame)


def open_failing(monkeypatch: pytest.MonkeyPatch, path: Path, good: int | None) -> ContainerSource:
    monkeypatch.setattr(container, "ToRgb", FailingOnce)
    FailingOnce.good = good
    anew = partial(open_container, path)
    return ContainerSource(str(path), anew(), path=path, without_card=anew)


@pytest.mark.parametrize("good", [None, 0, 1, 4, 9, 10])
def test_the_cpu_goes_on_with_the_same_frame(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, good: int
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 10)
    with open_failing(monkeypatch, clip, good) as source:
        found = [(number_of(frame), round(25 * source.seconds)) for frame in source]
    assert found == [(number, number) for number in range(10)]
    assert source.broken_frames == 0
    assert len(caplog.messages) == (good not in (None, 10))


@pytest.mark.parametrize("good", [0, 1, 20, 49])
@pytest.mark.parametrize("start", [0, 0.4])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"], ids=["copied", "encoded"])
def test_sound_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, good: int, start: float, suffix: str
) -> None:
    clip = write_sound_clip(tmp_path / "clip.mkv", "flac", video_start=start)
    heard = []
    for number, left in enumerate((None, good)):
        target = tmp_path / f"{number}{suffix}"
        with (
            open_failing(monkeypatch, clip, left) as source,
            VideoWriter(target, source.fps, source.image_hw, source.sound) as writer,
        ):
            for frame in source:
                writer.write(frame, source.seconds)
        heard.append(listen(target))
    assert heard[0] == heard[1]


def test_what_is_broken_for_the_cpu_too_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 10)
    with open_failing(monkeypatch, clip, 3) as source:
        FailingOnce.good = 6
        found = [number_of(frame) for frame in source]
    assert found == [0, 1, 2, 3, 4, 5]
    assert source.broken_frames


@pytest.mark.parametrize(
    ("name", "number"), [("cpu", None), ("mps", None), ("meta", None), ("cuda:1", 1), ("cuda", 3)]
)
def test_the_card_of_a_device(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int | None
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert choose.card_of(torch.device(name)) == number
