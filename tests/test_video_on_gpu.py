"""Frames that stay on a graphics card, whose part the CPU plays."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorRange, Colorspace
from gpu import made
from support.fake_video import FakeSource, draw
from support.fake_video import predict as predict_number
from support.numbered_clip import number_of, picture, read_numbers, write_clip
from test_video_gpu_codec import untried  # noqa: F401  (a fixture)
from torch import Tensor

from data.images import Image, Picture
from data.shapes.clip import shape_clip
from data.video import container, gpu_codec, pixels
from data.video.container import ContainerSource, open_container
from data.video.pixels import ToRgb, rgb_of
from data.video.reader import open_video
from data.video.source import as_image
from yolact import Detections, Predictor
from yolact.cli import predict as command
from yolact.cli.predict import VideoOptions, process_video, segment_video
from yolact.cli.saving import SaveOptions
from yolact.drawing.detections import draw_detections
from yolact.results.thresholds import Thresholds
from yolact.video.keyframes import KeyFrames
from yolact.video.pipeline import run_video
from yolact.video.tracks import Tracker

# --- colours -------------------------------------------------------------------------------------


def noise(height: int, format: str, colours: int, extent: int) -> av.VideoFrame:
    """Return a frame as a card has it, of any brightness, and with a colour for every two rows."""
    rng = np.random.default_rng(height)
    grey = rng.integers(16, 236, (height, 64), np.uint8)
    tints = np.tile(rng.integers(64, 192, (height // 2, 2), np.uint8), 32)
    planes = np.concatenate([grey, tints])
    frame = av.VideoFrame.from_ndarray(planes, format="nv12").reformat(format=format)
    frame.colorspace, frame.color_range = colours, extent
    return frame


def planes_of(frame: av.VideoFrame) -> list[Tensor]:
    return [torch.from_dlpack(plane.__dlpack__()) for plane in frame.planes]


@pytest.mark.parametrize("format", ["nv12", "p010le"])
@pytest.mark.parametrize("extent", [0, ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize(
    ("height", "colours"), [(48, 2), (720, 2), (48, 1), (720, 5), (720, 6), (720, 9)]
)
def test_colours_are_the_processors(format: str, extent: int, height: int, colours: int) -> None:
    frame = noise(height, format, colours, extent)
    weights = pixels._LUMA[pixels._colours_in(frame)]
    found = rgb_of(*planes_of(frame), weights, extent == ColorRange.JPEG)
    assert (found.dtype, found.shape, found.is_contiguous()) == (torch.uint8, (height, 64, 3), True)
    difference = np.abs(found.numpy().astype(int) - ToRgb(None)(frame))
    assert difference.max() <= 2


@pytest.mark.parametrize("format", ["nv12", "p010le"])
@pytest.mark.parametrize("name", ["highway", "juggle", "person_dog"])
def test_colours_of_real_frames_are_the_processors(data_root: Path, name: str, format: str) -> None:
    with av.open(data_root / "video" / f"{name}.mp4") as file:
        frame = next(file.decode(video=0)).reformat(format=format)
    weights = pixels._LUMA[pixels._colours_in(frame)]
    found = rgb_of(*planes_of(frame), weights, frame.color_range == ColorRange.JPEG)
    assert np.abs(found.numpy().astype(int) - ToRgb(None)(frame)).max() <= 2


class OnCard:
    """A frame that says it is on a card."""

    def __init__(self, frame: av.VideoFrame, **other: Any) -> None:
        self._frame, self.sw_format = frame, frame.format
        self.format = SimpleNamespace(name="cuda")
        vars(self).update(other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)


@pytest.mark.parametrize(
    ("aspect", "other", "stays"),
    [
        (None, {}, True),
        (1, {}, True),
        (2, {}, False),
        (None, {"side_data": {"DISPLAYMATRIX": bytes(36)}}, False),
        (None, {"sw_format": SimpleNamespace(name="yuv444p")}, False),
        (None, {"colorspace": Colorspace.FCC}, False),
        (None, {"height": 47}, False),
        (None, {"width": 63}, False),
        (None, {"format": SimpleNamespace(name="nv12")}, False),
    ],
)
def test_what_takes_more_than_colours_comes_down(
    monkeypatch: pytest.MonkeyPatch, aspect: Any, other: dict[str, Any], stays: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(ToRgb, "__call__", lambda self, frame: "down")
    frame: Any = OnCard(noise(48, "nv12", 2, 0), **other)
    found = ToRgb(aspect).picture(frame)
    assert isinstance(found, Tensor) if stays else found == "down"


# --- whether it works ----------------------------------------------------------------------------


def present(*_: object, **__: object) -> Any:
    """Decode on the CPU."""


def absent(*_: object) -> Any:
    raise OSError("no driver")


def of_old_pyav(*_: object, allow_software_fallback: bool = True) -> Any:
    """Know no other options."""


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_codec, "context_of", nullcontext)
    monkeypatch.setattr("data.video.gpu_codec.HWAccel", present)


def test_whether_frames_stay_is_tried_once(
    on_cpu: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(gpu_codec, "HWAccel", lambda *a, **options: made.append((*a, options)))
    assert not gpu_codec.keeps_frames(None)
    assert [gpu_codec.keeps_frames(1) for _ in range(3)] == [True] * 3
    assert caplog.messages == ["videos are decoded on the card", "decoded frames stay on the card"]
    made.clear()
    gpu_codec.decoder_on(1, stays=True)
    where = {"options": {"primary_ctx": "0", "current_ctx": "1"}, "is_hw_owned": True}
    assert made == [("cuda", 1, True, where)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"HWAccel": of_old_pyav}, "unexpected keyword"),
        ({"context_of": lambda card: nullcontext() if card is None else absent()}, "no driver"),
        ({"_ROUNDING": -1}, "its pictures are others"),
    ],
)
def test_frames_that_cannot_stay_come_down(
    on_cpu: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    change: dict[str, Any],
    reason: str,
) -> None:
    for name, value in change.items():
        monkeypatch.setattr(gpu_codec, name, value)
    clip = write_clip(tmp_path / "clip.mp4", 4)
    for _ in range(2):
        with open_video(clip, card=0, stays=True) as source:
            frames = list(source.pictures())
        assert [number_of(as_image(frame)) for frame in frames] == [0, 1, 2, 3]
    decoded, kept = caplog.messages
    assert kept.startswith("decoded frames stay on the CPU (the card: ") and reason in kept


def test_a_card_that_does_not_decode_is_not_asked_to_keep(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu_codec, "_try_decoder", absent)
    assert not gpu_codec.keeps_frames(0)
    assert len(caplog.messages) == 1


# --- through a file ------------------------------------------------------------------------------


class Staying(ToRgb):
    """Gives tensors, every third frame aside; fails at the frame that `bad` says."""

    bad: int | None = None

    def __init__(self, aspect: Any) -> None:
        super().__init__(aspect)
        self.count, self.bad, Staying.bad = 0, Staying.bad, None

    def picture(self, frame: av.VideoFrame) -> Picture:
        self.count += 1
        if self.count - 1 == self.bad:
            raise torch.OutOfMemoryError("the card is full")
        return self(frame) if self.count % 3 == 0 else torch.from_numpy(self(frame))


@pytest.fixture
def staying(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], ContainerSource]:
    """What opens a file whose frames stay."""
    monkeypatch.setattr(container, "ToRgb", Staying)

    def open_(path: Path) -> ContainerSource:
        anew = partial(open_container, path)
        return ContainerSource(str(path), anew(), path=path, without_card=anew)

    return open_


@pytest.mark.parametrize("bad", [None, 0, 1, 5])
def test_frames_are_tensors_for_those_who_ask(
    staying: Callable[[Path], ContainerSource], tmp_path: Path, bad: int | None
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 9)
    for as_they_are in (True, False):
        Staying.bad = bad
        with staying(clip) as source:
            assert source.image_hw == picture(0).shape[:2]
            frames = list(source.pictures() if as_they_are else source)
        assert [number_of(as_image(frame)) for frame in frames] == list(range(9))
        kinds = [isinstance(frame, Tensor) for frame in frames]
        assert any(kinds) == as_they_are
        assert source.broken_frames == 0


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("show_fps", [False, True])
def test_a_video_of_tensors_is_written(
    staying: Callable[[Path], ContainerSource], tmp_path: Path, batch: int, show_fps: bool
) -> None:
    clip, copy = write_clip(tmp_path / "clip.mp4", 10), tmp_path / "copy.mp4"
    with staying(clip) as source:
        run_video(
            source,
            lambda frames: predict_number([as_image(frame) for frame in frames]),
            lambda frame, found: draw(as_image(frame), found),
            output=copy,
            display=False,
            batch=batch,
            show_fps=show_fps,
        )
    if not show_fps:
        assert read_numbers(copy) == list(range(10))


def test_without_output_the_speed_is_written_on_nothing() -> None:
    frames = [torch.from_numpy(picture(number)) for number in range(3)]
    report = run_video(
        Given(frames),
        lambda given: predict_number([as_image(frame) for frame in given]),
        draw,
        output=None,
        display=False,
        show_fps=True,
    )
    assert report.frames == 3


# --- through a model -----------------------------------------------------------------------------


class Given(FakeSource):
    """Gives pictures of any kind."""

    def __init__(self, frames: list[Any]) -> None:
        super().__init__(len(frames))
        self.given, self.image_hw = frames, tuple(frames[0].shape[:2])

    def pictures(self) -> Iterator[Picture]:
        for number, frame in enumerate(self.given):
            self.seconds = number / self.fps
            yield frame

    def __iter__(self) -> Iterator[Image]:
        return map(as_image, self.pictures())


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(made.tiny_yolact(torch.device("cpu")))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("way", ["", "track", "keyframes"])
def test_tensors_give_what_arrays_give(predictor: Predictor, batch: int, way: str) -> None:
    thresholds = Thresholds(top_k=5)
    arrays = list(shape_clip(6, (90, 120), 1))
    seen: list[list[tuple[Image, Detections]]] = []
    for frames in (arrays, [torch.from_numpy(frame.copy()) for frame in arrays]):
        drawn: list[tuple[Image, Detections]] = []

        def keep(frame: Picture, found: Detections, drawn: Any = drawn) -> Image:
            drawn.append((draw_detections(frame, found), found))
            return drawn[-1][0]

        run_video(
            Given(frames),
            partial(predictor.segment, thresholds=thresholds),
            keep,
            output=Nowhere(),  # type: ignore[arg-type]
            display=False,
            batch=batch,
            keyframes=KeyFrames(2, 25, thresholds.select) if way == "keyframes" else None,
            track=Tracker().update if way == "track" else None,
        )
        seen.append(drawn)
    for (one, expected), (other, found) in zip(*seen, strict=True):
        assert len(expected) >= 5
        for name in ("boxes", "scores", "labels", "soft_masks"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name))
        assert np.abs(one.astype(int) - other).max() <= 1


class Nowhere:
    """Takes frames."""

    path = None

    def write(self, image: Image, seconds: float) -> None:
        assert isinstance(image, np.ndarray)

    def close(self) -> None:
        pass


# --- what asks for it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kinds", "stays"),
    [
        ({}, (), True),
        ({"batch": 4, "show_fps": True}, ("masks", "labelme", "jsonl"), True),
        ({"keyframes": "off"}, (), True),
        ({"keyframes": "auto"}, (), False),
        ({"keyframes": 3}, (), False),
        ({"track": True}, (), False),
        ({"plain": True}, (), False),
        ({}, ("csv", "crops"), False),
        ({}, ("cutouts",), False),
    ],
)
def test_frames_stay_where_nobody_looks_at_their_pixels(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    predictor: Predictor,
    options: dict[str, Any],
    kinds: tuple[Any, ...],
    stays: bool,
) -> None:
    asked = []

    def opened(*given: Any) -> Any:
        asked.append(given[-1])
        raise ValueError("enough")

    monkeypatch.setattr(command, "open_video", opened)
    chosen = Thresholds(), VideoOptions(**options), SaveOptions(kinds)
    with pytest.raises(ValueError, match="enough"):
        segment_video("a.mp4", tmp_path / "b.mp4", predictor, draw_detections, *chosen)
    assert asked == [stays]


def test_the_command_takes_tensors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, predictor: Predictor
) -> None:
    arrays = list(shape_clip(6, (96, 128), 1))
    found: list[list[Detections]] = []
    for frames in (arrays, [torch.from_numpy(frame.copy()) for frame in arrays]):
        monkeypatch.setattr(command, "open_video", lambda *_, frames=frames: Given(frames))
        found.append([])
        process_video(
            "a.mp4",
            tmp_path / "b.mp4",
            predictor,
            draw_detections,
            Thresholds(top_k=5),
            VideoOptions(),
            on_frame=lambda number, objects: found[-1].append(objects),
        )
    kept = [[each.picture is not None for each in frames] for frames in found]
    assert kept == [[True] * 6, [False] * 6]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes)
