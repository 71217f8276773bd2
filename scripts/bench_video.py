"""Measure how key frames and tracks affect a video: masks, identities, flicker, speed, delay.

Generated videos have exact ground truth; for other videos, what the network finds in every frame
serves as truth. Then come a camera that is faster than the network, and large models in 8 bits from
file to file.

Example:
  python scripts/bench_video.py --clips=videos --plot=video.png > table.md
"""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.annotations.run_lengths import encode, measure
from data.classes import SHAPE_CLASSES, Categories
from data.images import Picture
from data.shapes.clip import export_clip
from data.shapes.motion import KINDS, GroundTruthFrame, moving_shapes
from data.video.reader import open_video
from yolact.build import build_model
from yolact.checkpoint import BUNDLED
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command
from yolact.cli.predict import VideoOptions, process_video
from yolact.drawing.detections import draw_detections
from yolact.errors import UsageError
from yolact.evaluation.speed import describe_machine
from yolact.evaluation.videos import (
    FrameTruth,
    InMemoryVideo,
    RunScores,
    VideoRunConfig,
    mean_scores,
    run_in_memory,
    score_run,
)
from yolact.predictor import Predictor
from yolact.presets import get_config
from yolact.results.compact import compact_masks
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.video.keyframes import KeyFrameOption
from yolact.video.stages import Predict

MODEL = "yolact_resnet18_shapes"
LARGE = ("yolact_resnet50", "yolact_base")
KEYFRAMES: tuple[KeyFrameOption, ...] = ("off", 2, 4, 8, "auto")
FPS = 25.0
CAMERA_FPS, NETWORK_SECONDS = 30.0, 0.3

RUN_CONFIGS = tuple(
    VideoRunConfig(keyframes, track) for track in (False, True) for keyframes in KEYFRAMES
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = make_parser("bench_video.py", __doc__)
    add_flags(
        parser,
        "options",
        (
            flag("--frames", "frames of each generated video; 0 for none", int, 100),
            flag("--height", "height of the generated videos in pixels", int, 384),
            flag("--clips", "folder of other videos, with people", Path),
            flag("--clip_frames", "frames of each other video", int, 90),
            flag("--live", "seconds of a camera; 0 for none", int, 10),
            flag("--large_frames", "frames for large models in 8 bits; 0 for none", int, 60),
            flag("--plot", "also draw the first table to this file", Path),
        ),
    )
    args = parser.parse_args(argv)
    at_least(args, frames=0, height=16, clip_frames=1, live=0, large_frames=0)
    if args.clips is not None and not args.clips.is_dir():
        raise UsageError(f"--clips={args.clips}: no such folder")
    image_hw = args.height, args.height * 4 // 3
    print(describe_machine(torch.device("cpu")))
    if args.frames:
        rows = on_generated(Predictor.from_checkpoint(MODEL), args.frames, image_hw)
        title = f"{len(KINDS)} generated videos of {args.frames} frames, {MODEL}"
        print_table(title, rows)
        if args.plot:
            plot({config: of_config[0] for config, of_config in rows.items()}, args.plot)
    clips = sorted(args.clips.glob("*.mp4")) if args.clips else []
    if clips:
        rows = on_clips(Predictor.from_checkpoint(BUNDLED), clips, args.clip_frames)
        print_table(f"{len(clips)} videos, {args.clip_frames} frames each, {BUNDLED}", rows)
    if args.live:
        print_live(round(args.live * CAMERA_FPS), image_hw)
    if args.large_frames:
        print_large(clips, args.large_frames)


def on_generated(
    predictor: Predictor, frames: int, image_hw: tuple[int, int]
) -> dict[VideoRunConfig, list[RunScores]]:
    """Score every configuration on each kind of video: the mean, then the one with crossings."""
    rows: dict[VideoRunConfig, list[RunScores]] = {config: [] for config in RUN_CONFIGS}
    predict, thresholds = prepared(predictor, image_hw)
    for kind in KINDS:
        print(f"{kind} ...", file=sys.stderr)
        made = list(moving_shapes(kind, frames, image_hw))
        images = [frame.image for frame in made]
        truth = [
            FrameTruth(frame.masks, frame.labels.tolist(), frame.ids.tolist()) for frame in made
        ]
        for config in RUN_CONFIGS:
            seen = run_in_memory(InMemoryVideo(images, FPS), predict, thresholds, config)
            rows[config].append(score_run(images, truth, seen, SHAPE_CLASSES))
    crossing = KINDS.index("crossing")
    return {
        config: [mean_scores(of_config), of_config[crossing]] for config, of_config in rows.items()
    }


def on_clips(
    predictor: Predictor, clips: Sequence[Path], most: int
) -> dict[VideoRunConfig, list[RunScores]]:
    """Score every configuration on videos, against what the network finds in every frame."""
    rows: dict[VideoRunConfig, list[RunScores]] = {config: [] for config in RUN_CONFIGS}
    categories = Categories.from_names(predictor.model.class_names)
    for clip in clips:
        print(f"{clip.name} ...", file=sys.stderr)
        with open_video(str(clip)) as video:
            images, fps = list(itertools.islice(video, most)), video.fps
        predict, thresholds = prepared(predictor, (images[0].shape[0], images[0].shape[1]))
        truth: list[FrameTruth] = []
        for config in RUN_CONFIGS:
            seen = run_in_memory(InMemoryVideo(images, fps), predict, thresholds, config)
            truth = truth or [
                FrameTruth(found.masks.numpy(), found.labels.tolist(), None)
                for _, found in sorted(seen.found.items())
            ]
            rows[config].append(score_run(images, truth, seen, categories))
    return {config: [mean_scores(of_config)] for config, of_config in rows.items()}


def prepared(predictor: Predictor, image_hw: tuple[int, int]) -> tuple[Predict, Thresholds]:
    """Return what segments frames, warmed up, and what of it counts."""
    thresholds = predictor.thresholds()

    def predict(images: list[Picture]) -> list[Detections]:
        return predictor.segment(images, thresholds)

    for _ in range(2):
        predict([np.zeros((*image_hw, 3), np.uint8)])
    return predict, thresholds


def print_table(title: str, rows: dict[VideoRunConfig, list[RunScores]]) -> None:
    """Print a line for each configuration; a second row of it tells the IDF1 of crossings."""
    crossing = any(len(of_config) > 1 for of_config in rows.values())
    heads = ["key frames", "tracks", "mask AP", "mean IoU", "flicker", "IDF1", "switches"]
    heads += ["IDF1, crossings"] * crossing
    heads += ["frames/s", "delay p50, ms", "p95"]
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n{'| --- ' * len(heads)}|")
    for config, (first, *others) in rows.items():
        scores = first.scores
        is_known = not math.isnan(scores.idf1)
        cells = [f"{first.ap:.1f}", f"{scores.mean_iou:.3f}", f"{scores.flicker:.3f}"]
        cells += [f"{scores.idf1:.3f}", str(scores.switches)] if is_known else ["", ""]
        cells += [f"{each.scores.idf1:.3f}" if is_known else "" for each in others]
        cells += [f"{first.fps:.1f}", *(f"{delay:.0f}" for delay in first.delays)]
        print(f"| {config} | {' | '.join(cells)} |", flush=True)


def plot(rows: dict[VideoRunConfig, RunScores], path: Path) -> None:
    """Draw mean IoU and flicker over frames per second."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.6), layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 2),
        ("mean_iou", "flicker"),
        ("mean IoU with the truth", "flicker"),
        strict=True,
    ):
        for track, label in ((False, "no tracks"), (True, "tracks")):
            color = "C1" if track else "C0"
            places = {
                config.keyframes: (each.fps, getattr(each.scores, name))
                for config, each in rows.items()
                if config.track == track
            }
            for keyframes, place in places.items():
                axes.annotate(f" {keyframes}", place)
            chosen = [places.pop("auto")] if "auto" in places else []
            axes.plot(*zip(*places.values(), strict=True), "o-", color=color, label=label)
            for place in chosen:
                axes.plot(*place, "s", color=color)
        axes.set(xlabel="frames/s", ylabel=title)
        axes.legend()
    figure.savefig(path, dpi=110)


def print_live(frames: int, image_hw: tuple[int, int]) -> None:
    """Print how a camera is shown with a network that is slower, exact or not."""
    made = list(moving_shapes("moving", frames, image_hw))
    images = [frame.image for frame in made]
    truth = [FrameTruth(frame.masks, frame.labels.tolist(), frame.ids.tolist()) for frame in made]
    exact = {id(frame.image): as_detections(frame) for frame in made}
    predict, thresholds = prepared(Predictor.from_checkpoint(MODEL), image_hw)
    networks: dict[str, Predict] = {
        "exact": lambda given: [exact[id(image)] for image in given],
        MODEL: predict,
    }
    print(f"\nA camera of {CAMERA_FPS:g} frames/s, a network of {NETWORK_SECONDS * 1000:.0f} ms\n")
    heads = ("network", "key frames", "tracks", "shown, frames/s", "delay p50, ms", "p95")
    print(f"| {' | '.join((*heads, 'mean IoU'))} |\n{'| --- ' * (len(heads) + 1)}|")
    for (name, network), config in itertools.product(
        networks.items(),
        (VideoRunConfig("off", False), VideoRunConfig("auto", False), VideoRunConfig("auto", True)),
    ):
        video = InMemoryVideo(images, CAMERA_FPS, is_live=True)
        seen = run_in_memory(video, slowed(network), thresholds, config)
        iou = score_run(images, truth, seen, SHAPE_CLASSES).scores.mean_iou
        numbers = f"{seen.fps:.1f} | {seen.delay(50):.0f} | {seen.delay(95):.0f} | {iou:.3f}"
        print(f"| {name} | {config} | {numbers} |", flush=True)


def slowed(network: Predict) -> Predict:
    """Return the network, taking its time."""

    def predict(images: list[Picture]) -> list[Detections]:
        start = time.perf_counter()
        found = network(images)
        time.sleep(max(start + NETWORK_SECONDS - time.perf_counter(), 0.0))
        return found

    return predict


def as_detections(frame: GroundTruthFrame) -> Detections:
    """Return the truth as a perfect network would."""
    soft_masks, frames = compact_masks([(mask, (0, 0)) for mask in frame.masks])
    boxes = [measure(encode(mask))[0] for mask in frame.masks]
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    scores = torch.ones(len(frame.ids))
    return Detections(
        boxes=torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        scores=scores,
        labels=torch.from_numpy(frame.labels),
        soft_masks=soft_masks,
        mask_frames=frames,
        box_scores=scores,
        image_hw=(frame.image.shape[0], frame.image.shape[1]),
        class_names=SHAPE_CLASSES.names,
    )


def print_large(clips: Sequence[Path], frames: int) -> None:
    """Print frames per second of large models in 8 bits, from file to file."""
    print("\nFrom file to file, 1280 x 720, INT8, random weights, the ten best objects\n")
    print("| model | key frames | frames/s |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        source = clips[-1] if clips else Path(folder) / "clip.mp4"
        if not clips:
            made = (frame.image for frame in moving_shapes("moving", frames, (720, 1280)))
            export_clip(source, made)
        for name in LARGE:
            predictor = in_8_bits(name, Path(folder) / f"{name}.xml")
            for keyframes in ("off", 4):
                options = VideoOptions(keyframes=keyframes, max_frames=frames)
                output = Path(folder) / "out.mp4"
                thresholds = Thresholds(0.0, top_k=10, drop_empty=True)
                report = process_video(
                    str(source), output, predictor, draw_detections, thresholds, options
                )
                print(f"| {name} | {keyframes} | {report.fps:.1f} |", flush=True)


def in_8_bits(name: str, path: Path) -> Predictor:
    """Quantise a model that has learned nothing."""
    from yolact.engines.exported import metadata, write_openvino
    from yolact.engines.openvino import convert, quantize

    torch.manual_seed(0)
    config = get_config(name)
    model = build_model(config).eval()
    rng = np.random.default_rng(0)

    def load(_: int) -> NDArray[np.float32]:
        image = torch.from_numpy(rng.integers(0, 256, (3, 360, 640), np.uint8))
        x: NDArray[np.float32] = model.preprocess([image]).numpy()
        return x

    network = quantize(convert(model.network, model.image_size, False), range(4), load)
    write_openvino(network, metadata(model, config), path, half=False)
    return Predictor.from_checkpoint(path)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
