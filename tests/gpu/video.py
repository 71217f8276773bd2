"""Videos: decoded and encoded by the card, in order through the pipeline, and how fast."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import torch

from data.images import Image, Picture
from data.shapes.clip import shape_clip
from data.video.reader import VideoSource, open_video
from data.video.source import as_image
from yolact import Detections, Predictor, load_model
from yolact.drawing.detections import draw_detections
from yolact.engines.choose import card_of, choose_engine
from yolact.engines.names import Precision
from yolact.engines.prepare import prepare
from yolact.models.segmenter import AnySegmenter
from yolact.timing import synchronize
from yolact.video.pipeline import run_video

from .alike import assert_objects
from .material import needs, needs_cuda, untrained
from .report import NotHere, Report

HD = (720, 1280)
FPS = 25.0


class FrameSource(VideoSource):
    """Frames from the memory, or from a file by OpenCV, which needs no PyAV."""

    def __init__(self, frames: Iterable[Image], image_hw: tuple[int, int]):
        super().__init__("frames", FPS, image_hw)
        self._frames = frames

    def __iter__(self) -> Iterator[Image]:
        for number, frame in enumerate(self._frames):
            self.seconds = number / self.fps
            yield frame


@cache
def hd_frames(count: int = 12) -> list[Image]:
    """Return (720, 1280, 3) frames of a moving scene."""
    return list(shape_clip(count, HD, seed=2))


def write_clip(path: Path, frames: int) -> Path:
    """Write so many of them, forwards and again, as MPEG-4 by OpenCV."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, HD[::-1])
    for frame in islice(cycle(hd_frames()), frames):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def read_clip(path: Path) -> Iterator[Image]:
    """Yield a file's frames by OpenCV."""
    capture = cv2.VideoCapture(str(path))
    while (read := capture.read())[0]:
        yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)  # type: ignore[misc]
    capture.release()


def predictor_of(model: AnySegmenter, precision: Precision = "auto") -> Predictor:
    """Return a predictor as `eval.py` makes it, without an engine of another library."""
    engine = choose_engine(str(model.device), "eager", precision)
    predictor = Predictor(model, network=prepare(model.network, engine, model.image_size))
    predictor.warm_up()
    return predictor


def check_card_decodes(device: torch.device, report: Report) -> None:
    """The card's pictures are the CPU's, but for how colours are rounded."""
    needs("av")
    needs_cuda(device)
    from data.video import gpu_codec

    number = card_of(device)
    if gpu_codec.decoder_on(number) is None:
        raise NotHere("a card that decodes for PyAV")
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip.mp4", 24)
        with open_video(clip, card=number) as found, open_video(clip) as expected:
            pairs = list(zip(found, expected, strict=True))
    differences = [np.abs(a.astype(int) - b) for a, b in pairs]
    report.number("decoded by the card: largest difference", max(d.max() for d in differences), "")
    worst = max(float(d.mean()) for d in differences)
    assert worst < 1, f"colours differ by {worst:.2f} on average"


def check_colours(device: torch.device, report: Report) -> None:
    """Planes of 8 and of 10 bits become the CPU's colours."""
    needs("av")
    from data.video.pixels import rgb_of

    rng = torch.Generator().manual_seed(0)
    for dtype, most in ((torch.uint8, 2**8), (torch.uint16, 2**16)):
        shapes = (72, 128), (36, 64, 2)
        planes = [torch.randint(most, shape, generator=rng).to(dtype) for shape in shapes]
        for is_full in (False, True):
            how = (0.2126, 0.0722), is_full
            found = rgb_of(*(plane.to(device) for plane in planes), *how).cpu().int()
            assert (found - rgb_of(*planes, *how).int()).abs().max() <= 1


def check_frames_stay(device: torch.device, report: Report) -> None:
    """Frames that stay on the card are the CPU's, but for how colours are rounded."""
    needs("av")
    needs_cuda(device)
    from data.video import gpu_codec

    number = card_of(device)
    if not gpu_codec.keeps_frames(number):
        raise NotHere("a card and a PyAV whose frames stay there")
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip.mp4", 60)
        with open_video(clip, card=number, stays=True) as found, open_video(clip) as expected:
            # All are kept, so that one which changes later is found, too.
            pairs = list(zip(list(found.pictures()), expected, strict=True))
    differences = []
    for picture, frame in pairs:
        assert isinstance(picture, torch.Tensor)
        assert picture.device.type == "cuda"
        differences.append(np.abs(as_image(picture).astype(int) - frame))
    report.number("kept by the card: largest difference", max(d.max() for d in differences), "")
    worst = max(float(d.mean()) for d in differences)
    assert worst < 1, f"colours differ by {worst:.2f} on average"
    assert_drawn_alike([picture for picture, _ in pairs[:4]], device)


def assert_drawn_alike(pictures: list[Picture], device: torch.device) -> None:
    """Compare what is found and drawn in tensors with that in the same arrays."""
    predictor = predictor_of(load_model("yolact_resnet18_shapes", device=str(device)))
    arrays: list[Picture] = [as_image(picture) for picture in pictures]
    thresholds = predictor.thresholds(0.3)
    found = predictor.segment(pictures, thresholds), predictor.segment(arrays, thresholds)
    for picture, array, one, other in zip(pictures, arrays, *found, strict=True):
        assert_objects(one, other, 0.98)
        drawn = draw_detections(picture, other).astype(int) - draw_detections(array, other)
        assert np.abs(drawn).max() <= 1


def check_card_encodes(device: torch.device, report: Report) -> None:
    """What the card encodes looks like what went in."""
    needs("av")
    needs_cuda(device)
    from data.video import gpu_codec
    from data.video.writer import VideoWriter

    number = card_of(device)
    if gpu_codec.encoder_on(number) is None:
        raise NotHere("a card that encodes for PyAV")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        with VideoWriter(clip, FPS, HD, card=number) as writer:
            for frame in hd_frames():
                writer.write(frame)
        with open_video(clip) as source:
            found = list(source)
    differences = [
        np.abs(a.astype(int) - b).mean() for a, b in zip(found, hd_frames(), strict=True)
    ]
    assert max(differences) < 6, differences


def check_pipeline(device: torch.device, report: Report) -> None:
    """Frames come in order, each with the objects that it has when it is looked at alone."""
    # In half precision single images and batches round differently.
    model = load_model("yolact_resnet18_shapes", device=str(device))
    predictor = predictor_of(model, "float32")
    thresholds = predictor.thresholds(0.3)
    frames = [next(shape_clip(1, (384, 512), seed)) for seed in range(12)]
    expected = [predictor.segment([frame], thresholds)[0] for frame in frames]
    for batch in (1, 4):
        found: list[Detections] = []
        run_video(
            FrameSource(frames, (384, 512)),
            partial(predictor.segment, thresholds=thresholds),
            draw_detections,
            output=None,
            display=False,
            batch=batch,
            on_frame=lambda number, objects, found=found: found.append(objects),  # type: ignore[misc]
        )
        for one, other in zip(found, expected, strict=True):
            assert_objects(one, other, 0.98)


def measure_720p(device: torch.device, report: Report) -> None:
    """From a file to a file, with each stage alone, of which the slowest bounds the whole."""
    frames = 150 if device.type == "cuda" else 12
    preset = "yolact_resnet50" if device.type == "cuda" else "yolact_resnet18"
    predictor = predictor_of(untrained(preset, device))
    thresholds = predictor.thresholds(0.15, 15)
    with tempfile.TemporaryDirectory() as folder:
        clip, copy = Path(folder) / "clip.mp4", Path(folder) / "copy.mp4"
        encode, finish = encoder_of(clip, device)
        for frame in islice(cycle(hd_frames()), frames):
            encode(frame)
        finish()
        for name, stays in (("", True), (", frames brought to the CPU", False)):
            whole = time_pipeline(predictor, clip, copy, stays)
            report.number(f"{preset}, 720p from file to file{name}", whole, "frames/s")
        stages = time_stages(predictor, clip, copy)
    for name, rate in stages.items():
        report.number(f"{preset}, 720p: {name} alone", rate, "frames/s")
    by = "PyAV" if find_spec("av") else "OpenCV"
    report.note(f"720p video by {by}: {min(stages, key=stages.__getitem__)} takes longest")
    assert len(predictor.segment([hd_frames()[0]], thresholds)[0]) > 0


def open_clip(clip: Path, device: torch.device, stays: bool = True) -> VideoSource:
    """Open a file as `eval.py` does, by OpenCV where PyAV is absent."""
    if find_spec("av"):
        return open_video(clip, card=card_of(device), stays=stays)
    return FrameSource(read_clip(clip), HD)


def time_pipeline(predictor: Predictor, clip: Path, copy: Path, stays: bool) -> float:
    """Return frames per second of the product's own pipeline."""
    thresholds = predictor.thresholds(0.15, 15)
    segment = partial(predictor.segment, thresholds=thresholds)
    with open_clip(clip, predictor.device, stays) as source:
        if find_spec("av"):
            return run_video(source, segment, draw_detections, output=copy, display=False).fps
        # Drawn where the pipeline draws, and written where it writes.
        drawn: deque[Image] = deque()

        def draw(image: Picture, found: Detections, _: float) -> Detections:
            drawn.append(draw_detections(image, found))
            return found

        writer = cv2.VideoWriter(str(copy), cv2.VideoWriter.fourcc(*"mp4v"), FPS, HD[::-1])
        report = run_video(
            source,
            segment,
            draw_detections,
            output=None,
            display=False,
            track=draw,
            on_frame=lambda *_: writer.write(cv2.cvtColor(drawn.popleft(), cv2.COLOR_RGB2BGR)),
        )
        writer.release()
        return report.fps


def time_stages(predictor: Predictor, clip: Path, copy: Path) -> dict[str, float]:
    """Return frames per second of each stage, when nothing else runs."""
    thresholds = predictor.thresholds(0.15, 15)
    with open_clip(clip, predictor.device) as source:
        start, frames = time.perf_counter(), list(islice(source.pictures(), 100))
        synchronize(predictor.device)
        decoding = len(frames) / (time.perf_counter() - start)
    found = [predictor.segment([frame], thresholds)[0] for frame in frames[:3]]
    sample = frames[:50]
    arrays = [as_image(frame) for frame in sample]
    encode, finish = encoder_of(copy, predictor.device)
    try:
        return {
            "decoding": decoding,
            "finding objects": rate(lambda i: predictor.segment([sample[i]], thresholds), sample),
            "drawing": rate(lambda i: draw_detections(sample[i], found[i % 3]), sample),
            "encoding": rate(lambda i: encode(arrays[i]), arrays),
        }
    finally:
        finish()


def encoder_of(
    path: Path, device: torch.device
) -> tuple[Callable[[Image], None], Callable[[], None]]:
    """Return what writes a frame, and what finishes the file."""
    if find_spec("av"):
        from data.video.writer import VideoWriter

        writer = VideoWriter(path, FPS, HD, card=card_of(device))
        return writer.write, writer.close
    plain = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, HD[::-1])
    return lambda frame: plain.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)), plain.release


def rate(work: Callable[[int], object], items: Sequence[object]) -> float:
    """Return how many times a second something is done."""
    start = time.perf_counter()
    for index in range(len(items)):
        work(index)
    return len(items) / (time.perf_counter() - start)
