"""The measure of videos, with a network that knows the truth, and its tables."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
from support.moving import HW, film, found_in

from data.classes import SHAPE_CLASSES
from data.images import Image
from yolact.evaluation.videos import (
    FrameTruth,
    InMemoryVideo,
    VideoRunConfig,
    mean_scores,
    run_in_memory,
    score_run,
)
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds

FRAMES = film("moving", 13)
TRUTH = [FrameTruth(frame.masks, frame.labels.tolist(), frame.ids.tolist()) for frame in FRAMES]
IMAGES = [frame.image for frame in FRAMES]
EXACT = {id(frame.image): found_in(frame) for frame in FRAMES}


def predict(images: list[Image]) -> list[Detections]:
    return [EXACT[id(image)] for image in images]


@pytest.mark.parametrize(
    ("config", "least_ap", "least_iou"),
    [
        (VideoRunConfig("off", False), 99, 0.97),
        (VideoRunConfig(4, False), 60, 0.8),
        (VideoRunConfig("auto", True), 60, 0.85),
        (VideoRunConfig("off", True), 80, 0.9),
    ],
)
def test_a_run_with_an_exact_network(
    config: VideoRunConfig, least_ap: float, least_iou: float
) -> None:
    seen = run_in_memory(InMemoryVideo(IMAGES, 25), predict, Thresholds(), config)
    assert sorted(seen.found) == list(range(13)) and len(seen.delays) == 13
    assert 0 < seen.delay(50) <= seen.delay(95) and seen.fps > 0
    run = score_run(IMAGES, TRUTH, seen, SHAPE_CLASSES)
    assert run.ap >= least_ap and run.scores.mean_iou >= least_iou
    assert run.scores.idf1 == pytest.approx(1) if config.track else math.isnan(run.scores.idf1)
    assert 0 <= run.scores.flicker < 0.3


def test_a_camera_may_drop_frames_which_do_not_count() -> None:
    seen = run_in_memory(
        InMemoryVideo(IMAGES, 100, is_live=True),
        predict,
        Thresholds(),
        VideoRunConfig("auto", True),
    )
    assert 0 < len(seen.delays) == len(seen.found) <= 13
    assert score_run(IMAGES, TRUTH, seen, SHAPE_CLASSES).scores.mean_iou > 0.5


def test_nothing_there_and_nothing_found() -> None:
    truth = [FrameTruth(frame.masks[:0], [], []) for frame in FRAMES[:3]]
    nothing = [lambda images: [predict([image])[0][:0] for image in images]]
    seen = run_in_memory(
        InMemoryVideo(IMAGES[:3], 25), nothing[0], Thresholds(), VideoRunConfig("off", True)
    )
    scores = score_run(IMAGES[:3], truth, seen, SHAPE_CLASSES).scores
    assert math.isnan(scores.idf1) and scores.switches == 0


def test_tables_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "bench_video.py"))
    configs = VideoRunConfig("off", False), VideoRunConfig("off", True)
    seen = [
        run_in_memory(InMemoryVideo(IMAGES, 25), predict, Thresholds(), config)
        for config in configs
    ]
    rows = {
        config: [mean_scores([run, run]), run]
        for config, run in zip(
            configs, (score_run(IMAGES, TRUTH, each, SHAPE_CLASSES) for each in seen), strict=True
        )
    }
    bench["print_table"]("title", rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "title" and lines[-2].startswith("| off | no | 100.0 | ")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    bench["plot"](
        {config: of_config[0] for config, of_config in rows.items()}, tmp_path / "plot.png"
    )
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert bench["as_detections"](FRAMES[0]).image_hw == HW
    assert (bench["as_detections"](FRAMES[0]).masks.numpy() == FRAMES[0].masks).all()
