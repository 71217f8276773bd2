"""Images with more objects than the published limits let a model find, count or learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from support.coco_rectangles import CATEGORY_IDS, annotation, detections, ground_truth
from support.tiny import SETTINGS, train_flags

import eval as eval_script
from data.annotations.coco import CocoInstances
from data.catalog import open_dataset
from yolact import build_model, get_config
from yolact.checkpoint import save_checkpoint
from yolact.cli.common import run_command
from yolact.cli.train_flags import parse_arguments
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.limits import limit_for, max_objects_per_image, with_raised_limits
from yolact.training.anchor_fit import count_anchors
from yolact.training.dataset_report import fitted_to_density
from yolact.training.setup import set_up


def grid(count: int) -> list[tuple[int, int, int, int]]:
    """Squares of 4 x 4 pixels, side by side in an image of 160 x 120."""
    return [(x, y, x + 4, y + 4) for y in range(0, 120, 6) for x in range(0, 160, 6)][:count]


def write(folder: Path, counts: list[int], classes: int = 1) -> Path:
    """Write images with so many objects each."""
    folder.mkdir(parents=True, exist_ok=True)
    images, objects = [], []
    for number, count in enumerate(counts, start=1):
        noise = np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), noise)
        images.append({"id": number, "file_name": f"{number}.png", "height": 120, "width": 160})
        for i, (x1, y1, x2, y2) in enumerate(grid(count)):
            entry = {"image_id": number, "category_id": 1 + i % classes}
            outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            objects.append({"id": len(objects) + 1, "segmentation": outline, **entry})
    names = [{"id": 1 + i, "name": f"class {i}"} for i in range(classes)]
    content = {"images": images, "annotations": objects, "categories": names}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("count", [100, 101, 400])
def test_perfect_detections_score_100(count: int) -> None:
    boxes = grid(count)
    coco = ground_truth([annotation(i, 1, 0, box) for i, box in enumerate(boxes, 1)], images=(1,))
    found = detections(boxes, [0] * count, [0.9] * count)
    limit = limit_for(max_objects_per_image(coco)[0])
    assert limit == {100: 100, 101: 200, 400: 400}[count]
    evaluator = CocoEvaluator(coco, CATEGORY_IDS, limit=limit)
    evaluator.add(1, found)
    metrics = evaluator.summarize()
    assert metrics.box.overlaps["all"] == pytest.approx(100)
    assert metrics.mask.overlaps["all"] == pytest.approx(100)


def test_no_objects() -> None:
    assert max_objects_per_image(ground_truth([])) == (0, 0)
    assert limit_for(0) == 100
    config = get_config("yolact_base")
    assert with_raised_limits(config, 0, 0) is config


@pytest.mark.parametrize(
    ("preset", "settings", "most", "of_class", "expected"),
    [
        ("yolact_base", [], 100, 100, (100, 200)),
        ("yolact_base", [], 101, 1, (200, 400)),
        ("yolact_base", [], 400, 400, (400, 800)),
        ("yolact_base", ["max_detections=300", "top_k=600"], 250, 250, (300, 600)),
        ("yolact_base", ["max_detections=300"], 250, 250, (300, 600)),  # top_k was too small
        ("yolact_base", ["nms=cross_class"], 150, 150, (200, 200)),
        ("yolact_base", ["nms=greedy"], 150, 150, (200, 400)),
        ("maskrcnn_resnet50_fpn", [], 230, 230, (300, 600)),
    ],
)
def test_room_for_all_objects(
    preset: str,
    settings: list[str],
    most: int,
    of_class: int,
    expected: tuple[int, int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = get_config(preset).override(*(f"detect.{text}" for text in settings))
    detect = with_raised_limits(config, most, of_class).detect
    assert (detect.max_detections, detect.top_k) == expected
    assert (f"an image has {most} objects" in caplog.text) == (detect != config.detect)


def test_training_follows_the_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "data" / "train", [130, 3]).parent
    write(folder / "val", [240])
    flags = train_flags(folder, tmp_path, 1, "--validation_size=5")
    session = set_up(*parse_arguments(None, flags))
    session.close()
    detect = session.learner.config.detect
    assert (detect.max_detections, detect.top_k) == (300, 600)
    assert session.learner.model.detection == detect
    assert "an image has 240 objects: 300 detections are kept" in caplog.text
    assert "learns 100 masks of an image, a random part: --set loss.masks_to_train=240" in (
        caplog.text
    )
    assert "anchors" not in caplog.text
    config, options, _ = parse_arguments(None, [*flags, "--set=detect.max_detections=150"])
    session = set_up(config, options)
    session.close()
    assert session.learner.config.detect.max_detections == 150  # meant


def test_more_objects_than_anchors_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_dataset(str(write(tmp_path, [400])), "train")
    config = get_config("yolact_resnet18").override("model.image_size=32")
    assert count_anchors(config.model) == 9 * (4**2 + 2**2 + 1 + 1 + 1)
    fitted_to_density(config, [data, None])
    assert "an image has 400 objects, but there are 207 anchors" in caplog.text
    caplog.clear()
    assert isinstance(data, CocoInstances)
    assert fitted_to_density(config, [data.part([]), None]) is config
    assert not caplog.messages


@pytest.mark.parametrize(
    ("counts", "stored", "flags", "limit", "found"),
    [
        ([3, 104], [], [], 200, 200),
        ([3, 7], ["detect.max_detections=150"], [], 100, 150),  # an AP that others compare with
        ([3, 104], [], ["--max_detections=102"], 102, 102),
    ],
)
def test_evaluation_follows_the_data(
    tmp_path: Path,
    counts: list[int],
    stored: list[str],
    flags: list[str],
    limit: int,
    found: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = get_config("yolact_resnet18").with_classes(("class 0",))
    config = config.override(*SETTINGS, "detect.score_threshold=0.0", "detect.iou_threshold=0.99")
    config = config.override(*stored)
    save_checkpoint(Path("tiny.pth"), build_model(config), config)
    folder = write(Path("data"), counts)
    argv = ["--trained_model=tiny.pth", f"--dataset={folder}", "--device=cpu", "--no_bar"]
    evaluators: list[Any] = []
    monkeypatch.setattr(
        eval_script,
        "write_outputs",
        lambda evaluator, *_: evaluators.append(evaluator),
    )
    assert run_command(eval_script.main, [*argv, *flags]) == 0
    if not stored + flags:
        assert run_command(eval_script.main, [*argv, "--resume"]) == 0
    for evaluator in evaluators:
        assert evaluator.summarize().limit == limit
    most = max(sum(d.image_id == i for d in evaluators[0].results.detections) for i in (1, 2))
    assert 0 < most <= found
