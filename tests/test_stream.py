"""Many images one after another: their order, their number at a time, their end."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from support.fake_video import FakeSource, predict
from support.numbered_clip import number_of, picture, write_clip
from support.tiny import SETTINGS

from data.video import reader
from yolact import Detections, Predictor, build_model, get_config
from yolact.sources.many import Many, open_many, read_each
from yolact.stream import segment_many

COUNT = 12


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with numbered pictures in shots/, some deeper, and clip.mp4."""
    monkeypatch.chdir(tmp_path)
    for number in range(COUNT):
        name = Path("shots") / ("deep/er" if number >= 8 else "") / f"{number}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(name), picture(number))
    write_clip(Path("clip.mp4"), COUNT)
    return tmp_path


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    return Predictor(build_model(get_config("yolact_resnet18").override(*SETTINGS)))


class Camera(FakeSource):
    """Numbered pictures, and whether somebody closed it."""

    name = "0"
    opened: list[Camera]

    def __init__(self, name: str, card: int | None = None):
        super().__init__(10**6, live=True, fps=1000)
        self.name, self.closed = name, False
        self.opened.append(self)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> list[Camera]:
    """The cameras that are opened in place of real ones."""
    Camera.opened = []
    monkeypatch.setattr(reader, "open_video", Camera)
    return Camera.opened


def numbers(found: Iterator[Detections]) -> list[int]:
    return [number_of(each.image) for each in found]


@pytest.mark.parametrize("batch", [1, 5, 100])
@pytest.mark.parametrize("source", ["shots", "shots/**/*.png", Path("shots"), "clip.mp4", iter])
def test_all_come_in_order(folder: Path, predictor: Predictor, source: Any, batch: int) -> None:
    given = iter([picture(n) for n in range(COUNT)]) if source is iter else source
    assert numbers(predictor.stream(given, batch=batch)) == list(range(COUNT))


def test_nothing_gives_nothing(predictor: Predictor) -> None:
    assert list(predictor.stream([])) == list(predictor(iter([]))) == []


def test_each_knows_its_source(
    folder: Path, predictor: Predictor, cameras: list[Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [each.source for each in predictor("shots")]
    assert files[::8] == ["shots/0.png", "shots/deep/er/8.png"]
    assert [next(predictor(source)).source for source in (3, "3")] == ["3#0", "3#0"]
    assert next(predictor.stream("rtsp://host/live")).source == "rtsp://host/live#0"
    assert next(predictor.stream("http://host/live")).source == "http://host/live#0"
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    frames = [each.source for each in predictor("clip.mp4")]
    assert frames == [f"clip.mp4#{number}" for number in range(COUNT)]


def test_pictures_that_can_be_read_again_are_not_kept(folder: Path, predictor: Predictor) -> None:
    """Of a list, which may be long; what streams past is the caller's to keep."""
    names = sorted(map(str, Path("shots").rglob("*.*")))
    assert all(each.picture is None for each in predictor(names))
    for source in ("shots", "clip.mp4"):
        assert all(each.picture is not None for each in predictor(source))


@pytest.mark.parametrize("end", ["close", "garbage", "error"])
def test_a_camera_is_closed_whatever_ends_the_stream(
    predictor: Predictor, cameras: list[Camera], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = predictor(0)
    next(stream)
    (camera,) = cameras
    assert not camera.closed
    if end == "close":
        stream.close()
    elif end == "garbage":
        del stream
        gc.collect()
    else:
        monkeypatch.setattr(Predictor, "segment", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next(stream)
    assert camera.closed


def test_a_file_is_closed_at_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(reader.VideoSource, "__exit__", lambda *_: closed.append(True))
    list(segment_many(open_many("clip.mp4"), predict, batch=5))
    assert closed == [True]


def test_an_iterator_is_asked_when_the_last_result_was_taken(predictor: Predictor) -> None:
    asked = []

    def images() -> Iterator[np.ndarray]:
        shared = np.empty((20, 30, 3), np.uint8)  # as cameras use one
        for number in range(5):
            asked.append(number)
            shared[:] = 10 * number + 8
            yield shared

    kept = []
    for number, found in enumerate(predictor(images())):
        assert asked == list(range(number + 1))
        kept.append(found)
    assert numbers(iter(kept)) == list(range(5))


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (2, 1), (3, 4)])
def test_no_more_images_are_held_for_more_of_them(workers: int, batch: int) -> None:
    """Threads read ahead, in order, but a bounded number."""
    read, delivered, most = 0, 0, 0
    lock = threading.Lock()

    def images() -> Iterator[object]:
        nonlocal read, most
        for number in range(100):
            with lock:
                read += 1
                most = max(most, read - delivered)
            yield picture(number % 25)

    found = []
    for each in segment_many(Many(images(), is_stored=True), predict, batch, workers):  # type: ignore[arg-type]
        with lock:
            delivered += 1
        found.append(int(each.class_names[0]))
    assert found == [number % 25 for number in range(100)]
    assert most <= batch * (workers + 2)


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_what_cannot_be_read_is_skipped_and_counted_or_raised(
    folder: Path, predictor: Predictor, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    Path("shots/3.png").write_bytes(b"no image")
    Path("shots/5.png").unlink()
    Path("shots/5.png").symlink_to("gone.png")
    found = numbers(predictor.stream("shots", batch=batch, on_error="skip"))
    assert found == [0, 1, 2, 4, *range(6, COUNT)]
    assert caplog.messages == [
        "skipped: cannot read shots/3.png as an image: not a known image format",
        "skipped: no such image: shots/5.png",
        "2 of 12 images could not be read",
    ]
    before = []
    with pytest.raises(ValueError, match="shots/3.png"):
        before.extend(predictor.stream("shots", batch=batch))
    assert numbers(iter(before)) == [0, 1, 2]


def test_an_iterator_that_fails_has_given_what_came_before(predictor: Predictor) -> None:
    def images() -> Iterator[np.ndarray]:
        yield from map(picture, range(3))
        raise OSError("unplugged")

    before: list[Detections] = []
    with pytest.raises(OSError, match="unplugged"):
        before.extend(predictor.stream(images(), batch=2))
    assert numbers(iter(before)) == [0, 1, 2]


@pytest.mark.parametrize("buffer", ["array", "tensor", "bytes", "picture"])
def test_an_iterator_may_use_one_buffer_for_all(predictor: Predictor, buffer: str) -> None:
    pictures = [np.full((48, 64, 3), value, np.uint8) for value in (0, 90, 180)]

    def each() -> Iterator[object]:
        array = pictures[0].copy()
        holders = {"array": array, "tensor": torch.from_numpy(array), "bytes": bytearray()}
        held: Any = holders.get(buffer, PilImage.fromarray(array))
        for image in pictures:
            array[:] = image
            if buffer == "picture":
                held.paste(PilImage.fromarray(image))
            if isinstance(held, bytearray):
                held[:] = cv2.imencode(".png", image)[1].tobytes()
            yield held

    found = [found.image for found in predictor.stream(each(), batch=3)]
    np.testing.assert_array_equal(np.stack(found), np.stack(pictures))


def test_a_model_in_training_mode_is_refused(predictor: Predictor) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    predictor.model.train()
    try:
        many = predictor.for_many()
        plain = object.__new__(Predictor)  # as engine "plain" is
        plain.__dict__.update(predictor.__dict__, _network=predictor.model.network)
        assert predictor.model.training  # nobody has changed that
        for each in (predictor, many, plain):
            with pytest.raises(RuntimeError, match="in training mode: model.eval"):
                each(image)
    finally:
        predictor.model.eval()


def test_batches_name_what_has_no_name() -> None:
    with pytest.raises(ValueError, match="^image 8: image of shape"):
        list(read_each([(7, picture(0)), (8, np.zeros((0, 3, 3), np.uint8))]))
    assert len(list(read_each([(7, picture(0)), (8, None)], skip=True))) == 1
    assert list(read_each([])) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch": 0}, "batch=0: expected a whole number, at least 1"),
        ({"batch": 1.5}, "batch=1.5: expected"),
        ({"batch": True}, "batch=True: expected"),
        ({"on_error": "ignore"}, "on_error='ignore': expected raise or skip"),
        ({"score_threshold": 2}, "score_threshold=2: expected a number from 0 to 1"),
        ({"top_k": 0}, "top_k=0: expected"),
        ({"classes": "dgo"}, "classes='dgo': no such class; did you mean 'dog'"),
        ({"source": "absent.mp4"}, "no such video file: absent.mp4"),
        ({"source": "absent"}, "no such file or folder: absent"),
        ({"source": None}, "None is no image"),
    ],
)
def test_mistakes_are_told_at_the_call(
    predictor: Predictor, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        predictor.stream(**{"source": [], **arguments})
    assert said in str(caught.value)
