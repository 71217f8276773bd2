"""Limits of detections: what is kept, what an AP counts, and what is told of them."""

from __future__ import annotations

import pytest
from support.coco_rectangles import SMALL, annotation, ground_truth

from yolact import get_config
from yolact.evaluation.limits import kept_detections, scored_detections, warn_of_limits


@pytest.mark.parametrize(
    ("preset", "settings", "kept", "scored"),
    [
        ("yolact_resnet18", [], (100, 100), 100),
        ("yolact_resnet18", ["max_detections=1"], (1, 1), 100),
        ("yolact_resnet18", ["max_detections=400"], (400, 200), 400),
        ("yolact_resnet18", ["max_detections=400", "top_k=800"], (400, 400), 400),
        ("yolact_resnet18", ["max_detections=400", "nms=greedy"], (400, 400), 400),
        ("yolact_resnet18", ["max_detections=400", "nms=cross_class"], (200, 200), 400),
        ("yolact_resnet18", ["nms=cross_class"], (200, 200), 100),
        ("maskrcnn_resnet50_fpn", ["max_detections=400", "nms=cross_class"], (400, 400), 400),
    ],
)
def test_kept_and_scored(
    preset: str, settings: list[str], kept: tuple[int, int], scored: int
) -> None:
    config = get_config(preset).override(*(f"detect.{setting}" for setting in settings))
    assert kept_detections(config) == kept
    assert scored_detections(config.detect) == scored


@pytest.mark.parametrize(
    ("counts", "settings", "said"),
    [
        ([], [], None),
        ([0, 100], [], None),
        ([6], ["max_detections=5"], "1 of 1 images has more than 5 objects (up to 6)"),
        ([3, 101], [], "1 of 2 images has more than 100 objects (up to 101)"),
        ([400, 0, 300], [], "2 of 3 images have more than 100 objects (up to 400)"),
        ([300], ["max_detections=400"], "1 of 1 images has more than 200 objects of a class"),
        ([300], ["max_detections=400", "top_k=400"], None),
        ([150], ["nms=cross_class"], "1 of 1 images has more than 100 objects of a class"),
        ([150], ["nms=cross_class", "max_detections=200"], None),
    ],
)
def test_crowded_images_are_told(
    counts: list[int], settings: list[str], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    truth = [annotation(0, image, 0, SMALL) for image, n in enumerate(counts) for _ in range(n)]
    truth = [{**part, "id": number} for number, part in enumerate(truth, start=1)]
    config = get_config("yolact_resnet18").override(*(f"detect.{text}" for text in settings))
    crowds = [annotation(10**6 + n, 0, 0, SMALL, crowd=1) for n in range(200 if counts else 0)]
    images = range(len(counts))
    warn_of_limits(ground_truth(truth + crowds, images), images, config, "raise --max_detections")
    beyond = "detections beyond that are dropped or do not count; raise --max_detections"
    assert caplog.messages == [] if said is None else caplog.messages[0].startswith(said)
    assert (beyond in caplog.text) == (said is not None)
