"""Images, folders and videos in, pictures and videos out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from data.images import Image, read_image
from data.video.reader import open_video
from yolact.drawing.detections import Draw
from yolact.drawing.window import show
from yolact.evaluation.way_of_2019 import run_video_plain
from yolact.explain import explain, save_prototypes
from yolact.predictor import Predictor
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.sources.one import read
from yolact.video.pipeline import VideoReport, run_video

from .output_names import RESULTS, write_image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoOptions:
    """The processing of a video.

    Attributes:
        batch: frames for each run of the network.
        show_fps: write the speed into the frames.
        emulate_playback: read a file no faster than it plays.
        plain: in the way of 2019, without overlap of the stages.
        max_frames: stop after so many.
    """

    batch: int = 1
    show_fps: bool = False
    emulate_playback: bool = False
    plain: bool = False
    max_frames: int | None = None


def segment_image(
    source: str,
    output: Path | None,
    predictor: Predictor,
    draw: Draw,
    thresholds: Thresholds,
    *,
    explained: bool = False,
    prototypes: bool = False,
) -> None:
    """Segment one image, and print what is found.

    Args:
        source: path or address of the image.
        output: the picture to write; None shows it in a window.
        predictor: finds the objects.
        draw: draws them.
        thresholds: which of them.
        explained: also draw, for each, how its mask came about.
        prototypes: also write these and the soft masks as .npy files.
    """
    image = read(source).image
    (detections,) = predictor.segment([image], thresholds)
    pictures = [draw(image, detections)]
    if explained:
        pictures += explain(predictor, image, thresholds)
    if prototypes:
        print(*save_prototypes(predictor, image, RESULTS), sep="\n")
    for line in describe(detections):
        print(line)
    for number, picture in enumerate(pictures):
        if output is None:
            show(picture, source)
        else:
            name = output if number == 0 else output.with_stem(f"{output.stem}_lincomb{number}")
            print(write_image(name, picture))


def segment_images(
    pictures: list[tuple[Path, Path]], predictor: Predictor, draw: Draw, thresholds: Thresholds
) -> None:
    """Segment images, and write a picture of each; broken ones are named and passed over.

    Args:
        pictures: each image, and the file of its picture.
        predictor: finds the objects.
        draw: draws them.
        thresholds: which of them.

    Raises:
        ValueError: at the end, if any could not be read.
    """
    broken = 0
    for path, picture in pictures:
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            logger.warning("skipped: %s", error)
            broken += 1
            continue
        (detections,) = predictor.segment([image], thresholds)
        print(write_image(picture, draw(image, detections)))
    if broken:
        raise ValueError(f"{broken} of {len(pictures)} images could not be read")


def segment_video(
    source: str,
    output: Path | None,
    predictor: Predictor,
    draw: Draw,
    thresholds: Thresholds,
    options: VideoOptions,
) -> None:
    """Segment a video file, a webcam or a stream, and print how fast; None shows it in a window."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    outcome = process_video(source, output, predictor, draw, thresholds, options)
    dropped = f", {outcome.dropped} dropped" if outcome.dropped else ""
    print(f"{outcome.frames} frames in {outcome.seconds:.1f} s: {outcome.fps:.2f} fps{dropped}")
    if output is not None:
        print(output)


def process_video(
    source: str,
    output: Path | None,
    predictor: Predictor,
    draw: Draw,
    thresholds: Thresholds,
    options: VideoOptions,
) -> VideoReport:
    """Run a video from end to end; without an output it is shown in a window."""
    with open_video(source) as video:
        # Where nobody waits for a single frame.
        if output is not None and not video.is_live and not options.emulate_playback:
            predictor = predictor.for_many()
        predictor.warm_up()

        def predict(frames: list[Image]) -> list[Detections]:
            return predictor.segment(frames, thresholds)

        if options.plain and output is not None:
            return run_video_plain(video, predict, draw, output, options.max_frames)
        return run_video(
            video,
            predict,
            draw,
            output=output,
            display=output is None,
            batch=options.batch,
            workers=predictor.workers,
            show_fps=options.show_fps,
            emulate_playback=options.emulate_playback,
            max_frames=options.max_frames,
        )


def describe(detections: Detections) -> list[str]:
    """Return a line for each detection: class, score, box."""
    return [
        f"{name}\t{score:.3f}\t" + "\t".join(f"{side:.1f}" for side in box)
        for name, score, box in zip(
            detections.names(), detections.scores.tolist(), detections.boxes.tolist(), strict=True
        )
    ]
