"""Segment images, folders and videos, and write pictures and videos."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from data.annotations.paths import shared_folder
from data.files import without_password
from data.images import Picture
from data.video.reader import TIMEOUT, VideoSource, open_video
from yolact.drawing.detections import Draw
from yolact.drawing.window import show
from yolact.engines.choose import card_of
from yolact.evaluation.way_of_2019 import run_video_plain
from yolact.explain import explain, save_prototypes
from yolact.files import remove_numbered, write_picture
from yolact.predictor import Predictor
from yolact.results.detections import Detections
from yolact.results.folder import CROP_KINDS, Note, ResultFolder, progress_of
from yolact.results.thresholds import Thresholds
from yolact.sources.many import open_many
from yolact.sources.one import read
from yolact.stream import Segment, segment_many
from yolact.tiles.segment import Tiling, in_tiles
from yolact.video.keyframes import KeyFrameOption, KeyFrames, max_group_length
from yolact.video.parts import Parts
from yolact.video.pipeline import VideoReport, run_video
from yolact.video.stages import Predict
from yolact.video.tracks import Tracker

from .output_names import RESULTS
from .saving import SaveOptions

logger = logging.getLogger(__name__)

# Errors that would recur for the next file.
_OF_NO_ONE_FILE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


@dataclass(frozen=True)
class VideoOptions:
    """The processing of a video.

    Attributes:
        batch: frames for each run of the network.
        show_fps: draw the speed into the frames.
        emulate_playback: read a file no faster than it plays.
        plain: use the pipeline of 2019, without overlap of the stages.
        max_frames: stop after this many frames.
        timeout: give up a stream after this many seconds without data.
        raw: format of a video without a header, see `open_video`.
        keyframes: run the network on every Nth frame, or on frames chosen by "auto"; "off" for all.
            None is "off" for a file, and "auto" for a camera faster than the network.
        track: give the objects lasting ids, and smooth their masks.
    """

    batch: int = 1
    show_fps: bool = False
    emulate_playback: bool = False
    plain: bool = False
    max_frames: int | None = None
    timeout: float = TIMEOUT
    raw: str | None = None
    keyframes: KeyFrameOption | None = None
    track: bool = False


def segment_image(
    source: str,
    output: Path | None,
    predictor: Predictor,
    draw: Draw,
    thresholds: Thresholds,
    saving: SaveOptions,
    *,
    tiling: Tiling | None = None,
    explained: bool = False,
    prototypes: bool = False,
) -> None:
    """Segment one image, and print its detections.

    Args:
        source: path or address of the image.
        output: the picture to write, with files of other kinds beside it; None to show it in a
            window.
        predictor: finds the objects.
        draw: draws the objects.
        thresholds: which objects count.
        saving: what to write, show and print.
        tiling: how to cut a large image into tiles; None for no tiles.
        explained: also draw, for each object, how prototypes combine into its mask.
        prototypes: also write prototypes and soft masks as .npy files.
    """
    item = read(source, tiling.max_pixels if tiling else None)
    found = make_segment(predictor, thresholds, tiling)([item.image])[0]
    detections = replace(found, source=item.source, picture=item.image)
    saving.print_json(detections)
    saving.print(*describe(detections))
    if prototypes:
        saving.print(*save_prototypes(predictor, item.image, RESULTS))
    pictures = [draw(item.image, detections)] if saving.picture else []
    if explained:
        pictures += explain(predictor, item.image, thresholds)
    for number, picture in enumerate(pictures, 0 if saving.picture else 1):
        if output is None:
            show(picture, source)
        else:
            name = output if number == 0 else output.with_stem(f"{output.stem}_lincomb{number}")
            saving.print(write_picture(name, picture))
    if output is not None:
        if explained:
            remove_numbered(output, "_lincomb", len(pictures) + (not saving.picture))
        with saving.folder(output.parent, table=output.stem) as folder:
            folder.add(detections, output.stem)
        saving.print(*folder.written)


def segment_images(
    folder: Path,
    pictures: list[tuple[str | Path, Path]],
    predictor: Predictor,
    draw: Draw,
    thresholds: Thresholds,
    saving: SaveOptions,
    tiling: Tiling | None = None,
) -> None:
    """Segment images, and write the results; images that fail are reported and skipped.

    Args:
        folder: folder of all files.
        pictures: the path or address of each image, and the file of its picture.
        predictor: finds the objects.
        draw: draws the objects.
        thresholds: which objects count.
        saving: what to write, show and print.
        tiling: how to cut large images into tiles; None for no tiles.

    Raises:
        ValueError: at the end, if an image could not be read, or its results not be written.
        OSError: no further results can be written, for example on a full disk.
    """
    fast = predictor if tiling else predictor.for_many()  # tiles run in parallel already
    named = {without_password(str(image)): (str(image), picture) for image, picture in pictures}
    written = 0
    with saving.folder(folder, common_folder([image for image, _ in pictures])) as files:
        names = {source: name_in(files.folder, file) for source, (_, file) in named.items()}
        missing = files.missing(names)
        results = segment_many(
            open_many([named[source][0] for source in missing]),
            make_segment(fast, thresholds, tiling),
            1,
            fast.workers,
            skip=True,
            max_pixels=tiling.max_pixels if tiling else None,
        )
        try:
            with closing(results):
                for detections in results:
                    picture = named[detections.source][1]
                    written += _write_image(files, detections, picture, draw, saving)
        finally:
            there, left = len(named) - len(missing), len(missing) - written
            more = "; --resume goes on with these" if left and not saving.json_lines else ""
            logger.info("%d images done, %d there already, %d not%s", written, there, left, more)
    saving.print(*files.written)
    if left:
        raise ValueError(f"{left} of {len(named)} images could not be read or written")


def _write_image(
    files: ResultFolder, detections: Detections, picture: Path, draw: Draw, saving: SaveOptions
) -> bool:
    """Write the results of one image; return False if this failed only because of this image."""
    try:
        files.note(write_image(files, detections, picture, draw, saving))
    except (OSError, ValueError) as error:
        if is_fatal(error):
            raise
        logger.warning("not written: %s: %s", detections.source, error)
        return False
    saving.print_json(detections)
    saving.print(*([picture] if saving.picture else []))
    return True


def common_folder(images: Sequence[str | Path]) -> Path | None:
    """Return the common parent folder of all images; None for addresses."""
    parents = [image.absolute().parent for image in images if isinstance(image, Path)]
    return shared_folder(parents) if parents else None


def name_in(folder: Path, file: Path) -> str:
    """Return the name of the results of a file in a folder, without a suffix."""
    return file.relative_to(folder).with_suffix("").as_posix()


def is_fatal(error: BaseException | None) -> bool:
    """Tell whether an error would recur for the next file, such as a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_NO_ONE_FILE:
            return True
        error = error.__cause__
    return False


def write_image(
    files: ResultFolder, detections: Detections, picture: Path, draw: Draw, saving: SaveOptions
) -> Note:
    """Write the files of a single image; return their record for `ResultFolder.note`."""
    if saving.picture:
        write_picture(picture, draw(detections.image, detections))
    name = name_in(files.folder, picture)
    return files.write(detections, name, [picture] if saving.picture else [])


def make_segment(predictor: Predictor, thresholds: Thresholds, tiling: Tiling | None) -> Segment:
    """Return a function that segments images, whole or tile by tile."""
    if tiling is None:
        return partial(predictor.segment, thresholds=thresholds)
    return partial(in_tiles, predictor, tiling=tiling, thresholds=thresholds)


def segment_video(
    source: str,
    output: Path | None,
    predictor: Predictor,
    draw: Draw,
    thresholds: Thresholds,
    options: VideoOptions,
    saving: SaveOptions,
) -> None:
    """Segment a video file, a webcam or a stream, and print the speed; show it without `output`.

    Raises:
        ValueError: at the end, if a part of a file was broken or missing.
    """
    name = without_password(source)
    with ExitStack() as stack:
        files: ResultFolder | None = None
        parts: Parts | None = None
        if output is not None:
            if saving.picture or saving.kinds:
                output.parent.mkdir(parents=True, exist_ok=True)
            if saving.settings is None:  # not resumed: start from the beginning
                progress_of(output.parent, output.stem).unlink(missing_ok=True)
                Parts.forget(output)
            files = stack.enter_context(saving.folder(output.parent, table=output.stem))
        if output is not None and files is not None and saving.settings is not None:
            made = Parts(output, saving.settings, options.batch, saving.picture)
            parts = stack.enter_context(made)
            if _resumes(name, files, parts):
                return

        def on_frame(number: int, detections: Detections) -> None:
            named = replace(detections, source=f"{name}#{number}")
            saving.print_json(named)
            if files is not None and output is not None:
                files.add(named, f"{output.stem}_{number:06}")

        video = parts or (output if saving.picture else None)
        outcome = process_video(
            source,
            video,
            predictor,
            draw,
            thresholds,
            options,
            display=output is None,
            on_frame=on_frame,
            cuts=not CROP_KINDS.isdisjoint(saving.kinds),
        )
        if parts is not None:
            outcome = replace(outcome, video=parts.finish(outcome.damage))
    dropped = f", {outcome.dropped} dropped" if outcome.dropped else ""
    speed = f"{outcome.seconds:.1f} s: {outcome.fps:.2f} fps{dropped}"
    saving.print(f"{outcome.frames} frames in {speed}")
    written = [outcome.video] if outcome.video else []
    saving.print(*written, *([] if files is None else files.written))
    _refuse_damage(name, outcome.damage)


def _resumes(name: str, files: ResultFolder, parts: Parts) -> bool:
    """Find the frame at which a video continues; return True if it is already finished."""
    finished = parts.finished
    frames = (finished or {}).get("frames", parts.start)
    frames = min(frames, files.noted + 1)  # of a record that claims more, one is missing
    done = [f"{name}#{number}" for number in range(frames)]
    missing = files.missing(done)
    if finished is not None and not missing:
        logger.info("%s is there already, %d frames", parts.path, len(done))
        _refuse_damage(name, finished["damage"])
        return True
    if missing:
        parts.resume_from(done.index(missing[0]))
    files.missing(done[: parts.start])
    if parts.start:
        logger.info("%d frames are there already", parts.start)
    return False


def _refuse_damage(name: str, damage: str) -> None:
    if damage:
        raise ValueError(f"{name} is damaged: {damage}; what could be read is kept")


def process_video(
    source: str,
    output: Path | Parts | None,
    predictor: Predictor,
    draw: Draw,
    thresholds: Thresholds,
    options: VideoOptions,
    *,
    display: bool = False,
    on_frame: Callable[[int, Detections], None] | None = None,
    cuts: bool = False,
) -> VideoReport:
    """Run a video from end to end; `on_frame` is called as in `run_video`.

    With `Parts`, it continues where they end. Frames stay on a GPU that decodes them, unless the
    CPU needs their pixels: to find motion, or for `on_frame`, if it `cuts` objects out of them.
    """
    card = card_of(predictor.device)
    stays = not (cuts or options.track or options.plain or options.keyframes not in (None, "off"))
    with open_video(source, options.timeout, options.raw, card, stays) as video:
        # Throughput matters if nobody waits for a single frame.
        if not (display or video.is_live or options.emulate_playback):
            predictor = predictor.for_many()
        predictor.warm_up()
        given = 0
        if isinstance(output, Parts):
            given, on_frame = output.tracks, output.resume_source(video, on_frame)

        def predict(frames: Sequence[Picture]) -> list[Detections]:
            found = predictor.segment(frames, thresholds)
            return [
                replace(each, picture=frame) if isinstance(frame, np.ndarray) else each
                for each, frame in zip(found, frames, strict=True)
            ]

        if options.plain and isinstance(output, Path):
            return run_video_plain(video, predict, draw, output, options.max_frames)
        return run_video(
            video,
            predict,
            draw,
            output=output,
            display=display,
            batch=options.batch,
            workers=predictor.workers,
            show_fps=options.show_fps,
            emulate_playback=options.emulate_playback,
            on_frame=on_frame,
            max_frames=options.max_frames,
            keyframes=key_frames(options.keyframes, video, predict, predictor.counting(thresholds)),
            track=Tracker(given=given, top_k=thresholds.top_k).update if options.track else None,
        )


def key_frames(
    option: KeyFrameOption | None, video: VideoSource, predict: Predict, thresholds: Thresholds
) -> KeyFrames | None:
    """Return which frames of a video the network runs on, and log this; None for all frames."""
    if option is None:
        option = "auto" if video.is_live and not _is_fast_enough(predict, video) else "off"
    keys = KeyFrames.from_option(option, video.fps, thresholds.select)
    if keys is not None:
        every = keys.every and max_group_length(video.image_hw, keys.every)
        which = f"one frame in {every}" if every else "the frames that need it"
        which = "the newest frame" if video.is_live else which
        logger.info("the network runs on %s, and optical flow carries its results on", which)
    return keys


def _is_fast_enough(predict: Predict, video: VideoSource) -> bool:
    """Tell whether the network is faster than the video's frame rate."""
    blank = np.zeros((*video.image_hw, 3), np.uint8)
    predict([blank])  # the first run is slower
    start = time.perf_counter()
    predict([blank])
    return time.perf_counter() - start < 1 / video.fps


def describe(detections: Detections) -> list[str]:
    """Return a line for each detection: class, score, box."""
    return [
        f"{name}\t{score:.3f}\t" + "\t".join(f"{side:.1f}" for side in box)
        for name, score, box in zip(
            detections.names(), detections.scores.tolist(), detections.boxes.tolist(), strict=True
        )
    ]
